"""Mistral (Jiang et al. 2023): Llama whose layers may see only a window of the last tokens.

Read next: `models/mixtral.py`, which has experts in the place of the feed-forward half.
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
from jaxlm.models import llama
from jaxlm.models.names import Names, classes
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.models.rope_keys import rotary
from jaxlm.ops.rotary import rotation


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


class Mistral(nn.Module):
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
        sight = sight.but(window=config.sliding_window, rotation=rotation(positions, rotary(config)))

        table = self.param("embed", normal, (config.vocab_size, config.hidden_size), jnp.float32, ("vocab", "embed"))
        x = lookup(table, tokens).astype(dtype)
        layers = Layers((self._block(normal, dtype),) * config.num_hidden_layers, self.compute.layout, self.compute.remat)
        params = self.param("layers", layers.init, x)
        x, layer_caches = layers.apply(params, x, sight, layers_of(cache), key)
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
        attn = Attention(known.heads, known.head_size, known.kv_heads, bias=False, out_bias=False, **parts, **free)
        mlp = GatedMlp(config.intermediate_size, config.hidden_act, normal, **free)
        return Block(ln_1, attn, ln_2, mlp, parent=None)


def windows(config: Config) -> tuple[int | None, ...]:
    """How many tokens each layer sees."""
    return (config.sliding_window,) * config.num_hidden_layers


dims = llama.dims
BODY = (*llama.OUTSIDE, *llama.NORMS, *llama.ATTENTION)
NAMES = Names(classes("Mistral", *llama.TASKS), "model", (*BODY, *llama.MLP), llama.HEADS, llama.TIED)
