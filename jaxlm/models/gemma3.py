"""Gemma 3's text models (Gemma Team 2025): Gemma 2 with query and key norms and its own positions in windowed layers."""

import dataclasses
from typing import Any

from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.sight import Sight
from jaxlm.models import gemma2, llama, qwen3
from jaxlm.models.names import Names, classes
from jaxlm.models.output import Ids
from jaxlm.ops.rotary import Rotary, rotation


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of Gemma 3; `layer_types` None: every sliding_window_pattern-th layer sees all before it.

    `rope_theta` and `rope_scaling` are of those layers, `rope_local_base_freq` of the windowed ones.
    """

    vocab_size: int | None = 262208
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    rope_local_base_freq: float = 10_000.0
    rope_scaling: Frozen | None = None
    query_pre_attn_scalar: int = 256
    final_logit_softcapping: float | None = None
    sliding_window: int | None = 4096
    sliding_window_pattern: int = 6
    layer_types: tuple[str, ...] | None = None
    use_bidirectional_attention: bool | None = None
    initializer_range: float = 0.02
    attention_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = True
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "gemma3_text"


SMALL = {"vocab_size": 262144, "num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 32768, "sliding_window": 512}
SIZES = {
    "gemma-3-270m": Config(hidden_size=640, intermediate_size=2048, num_hidden_layers=18, **SMALL),
    "gemma-3-1b": Config(hidden_size=1152, intermediate_size=6912, **SMALL),
}


class Gemma3(gemma2.Gemma2):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits, as `Gemma2`."""

    config: Config

    def _sights(self, sight: Sight, positions: Ids) -> tuple[tuple[Sight, ...], tuple[int, ...]]:
        near = Rotary(self.config.head_dim, self.config.rope_local_base_freq)
        windowed = sight.but(window=self.config.sliding_window, rotation=rotation(positions, near))
        return (sight, windowed), self._kinds(self.config.sliding_window_pattern)

    def _attention(self, dtype: Any) -> Attention:
        return self._scaled(dtype, q_norm=self._norm(dtype), k_norm=self._norm(dtype))


dims = llama.dims
NAMES = Names(
    classes("Gemma3", "causal-lm") | classes("Gemma3Text", "sequence-classification", "features"),
    base="model",
    body=(*gemma2.BODY, *qwen3.HEAD_NORMS),
    heads=llama.HEADS,
    tied=llama.TIED,
)
