"""Qwen 2 (Yang et al. 2024): Llama with biases on queries, keys and values; the upper layers may see a window only.

Read next: `models/qwen3.py`.
"""

import dataclasses
from typing import Any

from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.sight import Sight
from jaxlm.models import llama, mistral
from jaxlm.models.names import Names, classes


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of Qwen 2; `layer_types` None: windows from layer max_window_layers on."""

    vocab_size: int | None = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 32
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
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "qwen2"


SMALL = {"rope_theta": 1_000_000.0, "tie_word_embeddings": True, "num_key_value_heads": 2}
SIZES = {
    "qwen2.5-0.5b": Config(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, **SMALL),
    "qwen2.5-1.5b": Config(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, max_position_embeddings=131072, **SMALL
    ),
    "qwen2.5-7b": Config(
        vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, max_position_embeddings=131072, rope_theta=1_000_000.0,
    ),
}  # fmt: skip


class Qwen2(mistral.Mistral):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits, as `Llama`."""

    config: Config

    def _sights(self, sight: Sight) -> tuple[tuple[Sight, ...], tuple[int, ...] | None]:
        config = self.config
        if not config.use_sliding_window or config.sliding_window is None:
            return (sight,), None
        names = config.layer_types or windows_from(config.max_window_layers, config.num_hidden_layers)
        return (sight, sight.but(window=config.sliding_window)), tuple(int(name == "sliding_attention") for name in names)

    def _attention(self, dtype: Any) -> Attention:
        return self._heads(dtype, bias=True, out_bias=False)


def windows_from(first: int, layers: int) -> tuple[str, ...]:
    """Hugging Face's `layer_types`: whole attention below layer `first`, windows from there on.

    >>> windows_from(1, 2)
    ('full_attention', 'sliding_attention')
    """
    return tuple("sliding_attention" if i >= first else "full_attention" for i in range(layers))


dims = llama.dims
NAMES = Names(classes("Qwen2", *llama.TASKS), "model", (*mistral.BODY, *llama.MLP), llama.HEADS, llama.TIED)
