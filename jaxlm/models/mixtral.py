"""Mixtral (Jiang et al. 2024): Mistral whose feed-forward half is several experts, of which a router picks two a token.

Read next: `layers/experts.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn

from jaxlm.frozen import Frozen
from jaxlm.layers.experts import Experts
from jaxlm.models import llama, mistral
from jaxlm.models.names import Names, Row, classes, linear


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of Mixtral."""

    vocab_size: int | None = 32000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1_000_000.0
    rope_scaling: Frozen | None = None
    sliding_window: int | None = None
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    initializer_range: float = 0.02
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "mixtral"


SIZES = {
    "mixtral-8x7b": Config(max_position_embeddings=32768),
    "mixtral-8x22b": Config(
        vocab_size=32768, hidden_size=6144, intermediate_size=16384, num_hidden_layers=56, num_attention_heads=48,
        max_position_embeddings=65536,
    ),
}  # fmt: skip


class Mixtral(mistral.Mistral):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits, as `Llama`."""

    config: Config

    def _mlp(self, dtype: Any) -> nn.Module:
        config = self.config
        experts = (config.num_local_experts, config.num_experts_per_tok, config.intermediate_size)
        return Experts(*experts, config.hidden_act, self._normal(), dtype, parent=None)


dims = llama.dims
EXPERTS = "layers.{i}.block_sparse_moe.experts.{e}"
NAMES = Names(
    classes("Mixtral", *llama.TASKS),
    base="model",
    body=(
        *mistral.BODY,
        *linear("layers.{i}.block_sparse_moe.gate", "layers/{i}/mlp/router"),
        Row(f"{EXPERTS}.w1.weight", ("layers/{i}/mlp/gate",), 1),
        Row(f"{EXPERTS}.w2.weight", ("layers/{i}/mlp/down",), 1),
        Row(f"{EXPERTS}.w3.weight", ("layers/{i}/mlp/up",), 1),
    ),
    heads=llama.HEADS,
    tied=llama.TIED,
)
