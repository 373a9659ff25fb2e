"""Mistral (Jiang et al. 2023): Llama whose layers may see only a window of the last tokens.

Read next: `models/mixtral.py`, which has experts in the place of the feed-forward half.
"""

import dataclasses
from typing import Any

import flax.linen as nn

from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.mlp import GatedMlp
from jaxlm.layers.sight import Sight
from jaxlm.models import llama
from jaxlm.models.names import Names, classes


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of Mistral; `sliding_window` None: every token sees all before it."""

    vocab_size: int | None = 32000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Frozen | None = None
    sliding_window: int | None = 4096
    initializer_range: float = 0.02
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "mistral"


NEWER = {"max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0, "sliding_window": None}
SIZES = {
    "mistral-7b-v0.1": Config(max_position_embeddings=32768, rms_norm_eps=1e-5),
    "mistral-7b-v0.2": Config(**NEWER),
    "mistral-7b-v0.3": Config(vocab_size=32768, **NEWER),
}


class Mistral(llama.Llama):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits, as `Llama`."""

    config: Config

    def _sights(self, sight: Sight) -> tuple[tuple[Sight, ...], None]:
        return (sight.but(window=self.config.sliding_window),), None

    def _attention(self, dtype: Any) -> Attention:
        return self._heads(dtype, bias=False, out_bias=False)

    def _mlp(self, dtype: Any) -> nn.Module:
        return GatedMlp(self.config.intermediate_size, self.config.hidden_act, self._normal(), dtype=dtype, parent=None)


dims = llama.dims
BODY = (*llama.OUTSIDE, *llama.NORMS, *llama.ATTENTION)
NAMES = Names(classes("Mistral", *llama.TASKS), "model", (*BODY, *llama.MLP), llama.HEADS, llama.TIED)
