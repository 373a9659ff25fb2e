"""Qwen 3 (Yang et al. 2025): Qwen 2 with norms on every head's queries and keys, and no biases.

Read next: `models/gemma2.py`.
"""

import dataclasses
from typing import Any

from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.norm import RMSNorm
from jaxlm.models import llama, mistral, qwen2
from jaxlm.models.names import Names, classes, norm


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of Qwen 3."""

    vocab_size: int | None = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 32
    head_dim: int | None = 128
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Frozen | None = None
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: tuple[str, ...] | None = None
    initializer_range: float = 0.02
    attention_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "qwen3"


QWEN3 = {"num_key_value_heads": 8, "max_position_embeddings": 40960, "rope_theta": 1_000_000.0}
SMALL = {"num_hidden_layers": 28, "num_attention_heads": 16, "tie_word_embeddings": True, **QWEN3}
SIZES = {
    "qwen3-0.6b": Config(hidden_size=1024, intermediate_size=3072, **SMALL),
    "qwen3-1.7b": Config(hidden_size=2048, intermediate_size=6144, **SMALL),
    "qwen3-8b": Config(intermediate_size=12288, num_hidden_layers=36, **QWEN3),
}


class Qwen3(qwen2.Qwen2):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits, as `Llama`."""

    config: Config

    def _attention(self, dtype: Any) -> Attention:
        bias = self.config.attention_bias
        q_norm, k_norm = (RMSNorm(self.config.rms_norm_eps, dtype, parent=None) for _ in range(2))
        return self._heads(dtype, bias=bias, out_bias=bias, q_norm=q_norm, k_norm=k_norm)


dims = llama.dims
HEAD_NORMS = (
    *norm("layers.{i}.self_attn.q_norm", "layers/{i}/attn/q_norm"),
    *norm("layers.{i}.self_attn.k_norm", "layers/{i}/attn/k_norm"),
)
BODY = (*mistral.BODY, *HEAD_NORMS, *llama.MLP)
NAMES = Names(classes("Qwen3", *llama.TASKS), "model", BODY, llama.HEADS, llama.TIED)
