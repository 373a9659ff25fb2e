"""Qwen 2 (Yang et al. 2024): Llama with biases on queries, keys and values; the upper layers may see a window only.

Read next: `models/qwen3.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.block import Block, Layers
from jaxlm.layers.cache import layers_of, leave
from jaxlm.layers.embed import lookup
from jaxlm.layers.heads import decoder_logits
from jaxlm.layers.linear import Normal
from jaxlm.layers.mlp import GatedMlp
from jaxlm.layers.norm import RMSNorm
from jaxlm.layers.sight import decoder_sight, refuse
from jaxlm.layers.windows import kinds, kinds_of, sizes, windows_from
from jaxlm.models import llama, mistral
from jaxlm.models.names import Names, classes
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.models.rope_keys import rotary
from jaxlm.ops.rotary import rotation


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


class Qwen2(nn.Module):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits, initialized as `Llama`."""

    config: Config
    compute: Compute = Compute()
    task: str = "causal-lm"

    @nn.compact
    def __call__(
        self, tokens: Ids, *, mask: Flags = None, token_types: Ids = None, segments: Ids = None, positions: Ids = None,
        cache: Any = None, key: Key = None,
    ) -> Output:  # fmt: skip
        """The arguments are every family's (`models/__init__.py`)."""
        config, dtype, normal = self.config, jnp.dtype(self.compute.dtype), Normal(self.config.initializer_range)
        refuse(config.model_type, token_types=token_types)
        sight, positions, cache = decoder_sight(tokens, mask, segments, positions, cache)
        whole = sight.but(rotation=rotation(positions, rotary(config)))
        sights, seen = (whole, whole.but(window=config.sliding_window)), kinds_of(windows(config))

        table = self.param("embed", normal, (config.vocab_size, config.hidden_size), jnp.float32, ("vocab", "embed"))
        x = lookup(table, tokens).astype(dtype)
        layers = Layers((self._block(normal, dtype),) * config.num_hidden_layers, self.compute.layout, self.compute.remat, seen)
        params = self.param("layers", layers.init, x)
        x, layer_caches = layers.apply(params, x, sights, layers_of(cache), key)
        hidden = RMSNorm(config.rms_norm_eps, dtype, name="norm")(x)

        if not config.tie_word_embeddings and self.task == "causal-lm":
            table = self.param("lm_head", normal, table.shape, jnp.float32, ("vocab", "embed"))
        logits = decoder_logits(self.task, hidden, table, config.num_labels, mask, segments)
        return Output(hidden, logits, cache=leave(cache, layer_caches, tokens.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T."""
        return params["embed"] if self.config.tie_word_embeddings else params["lm_head"]

    def _block(self, normal: Normal, dtype: Any) -> Block:
        config, known, free = self.config, dims(self.config), {"dtype": dtype, "parent": None}
        ln_1, ln_2 = (RMSNorm(config.rms_norm_eps, **free) for _ in range(2))
        parts = {"dropout": config.attention_dropout, "init_kernel": normal, "implementation": self.compute.attention}
        attn = Attention(known.heads, known.head_size, known.kv_heads, bias=True, out_bias=False, **parts, **free)
        mlp = GatedMlp(config.intermediate_size, config.hidden_act, normal, **free)
        return Block(ln_1, attn, ln_2, mlp, parent=None)


def windows(config: Config) -> tuple[int | None, ...]:
    """How many tokens each layer sees; None: all before."""
    count = config.num_hidden_layers
    if not config.use_sliding_window:
        return (None,) * count
    return sizes(kinds(config.layer_types or windows_from(config.max_window_layers, count), count), config.sliding_window)


dims = llama.dims
NAMES = Names(classes("Qwen2", *llama.TASKS), "model", (*mistral.BODY, *llama.MLP), llama.HEADS, llama.TIED)
