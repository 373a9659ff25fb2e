"""GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions and a tied output embedding.

The whole model is here: its configuration (Hugging Face's names), its sizes, its assembly. Read next: `tasks/causal_lm.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import Compute
from jaxlm.layers.attention import Attention
from jaxlm.layers.block import HIDDEN, Block, Layers
from jaxlm.layers.cache import enter, layers_of, leave
from jaxlm.layers.embed import check_length, lookup, unembed
from jaxlm.layers.linear import Normal
from jaxlm.layers.mlp import Mlp
from jaxlm.layers.norm import LayerNorm
from jaxlm.models.output import Output
from jaxlm.ops.dropout import dropout, fold


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of GPT-2; `vocab_size` None is filled in from the tokenizer."""

    vocab_size: int | None = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    embd_pdrop: float = 0.1
    resid_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    tie_word_embeddings: bool = True
    model_type: str = "gpt2"


SIZES = {
    "gpt2": Config(),
    "gpt2-medium": Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": Config(n_embd=1280, n_layer=36, n_head=20),
    "gpt2-xl": Config(n_embd=1600, n_layer=48, n_head=25),
}


class GPT2(nn.Module):
    """A language model: tokens [B, T] to logits [B, T, V].

    Initialization, all biases 0 and all norms 1:

      wte, wpe                      normal, initializer_range
      q, k, v, up                   normal, initializer_range
      o, down (into the residual)   normal, initializer_range / sqrt(2 n_layer)
      lm_head (if untied)           normal, initializer_range
    """

    config: Config
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        mask: Bool[Array, "B T"] | None = None,
        segments: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        cache: dict[str, Any] | None = None,
        key: Array | None = None,
    ) -> Output:
        """Hidden states [B, T, D], logits [B, T, V], and the cache with the new keys and values.

        Args:
          mask: False on padding, on either side.
          segments: documents of packed rows, 0 on padding; positions restart in each.
          positions: of each token; None: counted over the real tokens.
          cache: from `layers.cache.make_cache`; the tokens continue it.
          key: of dropout; None: no dropout.
        """
        config, dtype = self.config, jnp.dtype(self.compute.dtype)
        check_length(tokens, config.n_positions, "n_positions")
        wte = self.param("wte", self._normal(), (config.vocab_size, config.n_embd), jnp.float32, ("vocab", "embed"))
        wpe = self.param("wpe", self._normal(), (config.n_positions, config.n_embd), jnp.float32, (None, "embed"))
        sight, positions, cache = enter(tokens, mask, segments, positions, cache)

        x = (lookup(wte, tokens) + lookup(wpe, positions)).astype(dtype)
        x = dropout(x, config.embd_pdrop, fold(key, config.n_layer), HIDDEN)
        layers = Layers(self._block(dtype), config.n_layer, self.compute.layout, self.compute.remat)
        params = self.param("h", layers.init, x)
        x, layer_caches = layers.apply(params, x, sight, layers_of(cache), key)
        hidden = LayerNorm(config.layer_norm_epsilon, dtype, name="ln_f")(x)

        table = wte
        if not config.tie_word_embeddings:
            table = self.param("lm_head", self._normal(), wte.shape, jnp.float32, ("vocab", "embed"))
        return Output(hidden, unembed(hidden, table), cache=leave(cache, layer_caches, tokens.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T."""
        return params["wte"] if self.config.tie_word_embeddings else params["lm_head"]

    def _block(self, dtype: Any) -> Block:
        """One layer, as a value: `parent=None` keeps Flax from making it a part of the module that is being called."""
        config, free = self.config, {"dtype": dtype, "parent": None}
        residual = self._normal((2 * config.n_layer) ** -0.5)
        ln_1, ln_2 = (LayerNorm(config.layer_norm_epsilon, **free) for _ in range(2))
        attn = Attention(
            config.n_head,
            config.n_embd // config.n_head,
            dropout=config.attn_pdrop,
            init_kernel=self._normal(),
            init_out=residual,
            implementation=self.compute.attention,
            **free,
        )
        mlp = Mlp(config.n_inner or 4 * config.n_embd, config.activation_function, self._normal(), residual, **free)
        return Block(ln_1, attn, ln_2, mlp, dropout=config.resid_pdrop, parent=None)

    def _normal(self, scale: float = 1.0) -> Normal:
        return Normal(self.config.initializer_range * scale)


def sizes(config: Config) -> dict[str, int]:
    """The axes that a mesh may divide, for `sharding.check_sizes`."""
    return {"vocab": config.vocab_size, "heads": config.n_head, "mlp": config.n_inner or 4 * config.n_embd, "embed": config.n_embd}


# The configuration keys that set those axes, for messages.
SETTINGS = {"vocab": "model.vocab_size", "heads": "model.n_head", "mlp": "model.n_inner", "embed": "model.n_embd"}


def context(config: Config) -> int:
    """The most tokens a row may have."""
    return config.n_positions


def cache_shape(config: Config) -> tuple[int, int, int]:
    """Layers, key/value heads and head size, for `layers.cache.make_cache`."""
    return config.n_layer, config.n_head, config.n_embd // config.n_head
