"""GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions and a tied output embedding.

The whole model is here: its configuration (Hugging Face's names), its sizes, its assembly, its name table. Read next:
`tasks/causal_lm.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.block import HIDDEN, Block, Layers
from jaxlm.layers.cache import layers_of, leave
from jaxlm.layers.embed import check_length, lookup
from jaxlm.layers.heads import decoder_logits
from jaxlm.layers.linear import Normal
from jaxlm.layers.mlp import Mlp
from jaxlm.layers.norm import LayerNorm
from jaxlm.layers.sight import decoder_sight
from jaxlm.models.names import Names, classes, linear, norm, same
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
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
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "gpt2"


SIZES = {
    "gpt2": Config(),
    "gpt2-medium": Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": Config(n_embd=1280, n_layer=36, n_head=20),
    "gpt2-xl": Config(n_embd=1600, n_layer=48, n_head=25),
}


class GPT2(nn.Module):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits.

    Initialization, all biases 0 and all norms 1:

      wte, wpe, score               normal, initializer_range
      q, k, v, up                   normal, initializer_range
      o, down (into the residual)   normal, initializer_range / sqrt(2 n_layer)
      lm_head (if untied)           normal, initializer_range
    """

    config: Config
    compute: Compute = Compute()
    task: str = "causal-lm"

    @nn.compact
    def __call__(
        self, tokens: Ids, *, mask: Flags = None, token_types: Ids = None, segments: Ids = None, positions: Ids = None,
        cache: Any = None, key: Key = None,
    ) -> Output:  # fmt: skip
        """The arguments are every family's (`models/__init__.py`); token_types are ids whose token embeddings are added."""
        config, dtype = self.config, jnp.dtype(self.compute.dtype)
        check_length(tokens, config.n_positions, "n_positions")
        wte = self.param("wte", self._normal(), (config.vocab_size, config.n_embd), jnp.float32, ("vocab", "embed"))
        wpe = self.param("wpe", self._normal(), (config.n_positions, config.n_embd), jnp.float32, (None, "embed"))
        sight, positions, cache = decoder_sight(tokens, mask, segments, positions, cache)

        x = (lookup(wte, tokens) + lookup(wpe, positions)).astype(dtype)
        x = x if token_types is None else x + lookup(wte, token_types).astype(dtype)
        x = dropout(x, config.embd_pdrop, fold(key, config.n_layer), HIDDEN)
        layers = Layers((self._block(dtype),) * config.n_layer, self.compute.layout, self.compute.remat)
        params = self.param("h", layers.init, x)
        x, layer_caches = layers.apply(params, x, sight, layers_of(cache), key)
        hidden = LayerNorm(config.layer_norm_epsilon, dtype, name="ln_f")(x)

        table = wte
        if not config.tie_word_embeddings and self.task == "causal-lm":
            table = self.param("lm_head", self._normal(), wte.shape, jnp.float32, ("vocab", "embed"))
        logits = decoder_logits(self.task, hidden, table, config.num_labels, mask, segments)
        return Output(hidden, logits, cache=leave(cache, layer_caches, tokens.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T."""
        return params["wte"] if self.config.tie_word_embeddings else params["lm_head"]

    def _block(self, dtype: Any) -> Block:
        """One layer, as a value: `parent=None` keeps Flax from making it a part of the module that is being called."""
        config, known, free = self.config, dims(self.config), {"dtype": dtype, "parent": None}
        into = self._normal((2 * config.n_layer) ** -0.5)
        ln_1, ln_2 = (LayerNorm(config.layer_norm_epsilon, **free) for _ in range(2))
        parts = {"dropout": config.attn_pdrop, "init_kernel": self._normal(), "init_out": into}
        attn = Attention(known.heads, known.head_size, implementation=self.compute.attention, **parts, **free)
        mlp = Mlp(known.mlp, config.activation_function, self._normal(), into, **free)
        return Block(ln_1, attn, ln_2, mlp, dropout=config.resid_pdrop, parent=None)

    def _normal(self, scale: float = 1.0) -> Normal:
        return Normal(self.config.initializer_range * scale)


def dims(config: Config) -> Dims:
    """The sizes of the model."""
    width, heads = config.n_embd, config.n_head
    return Dims(width, config.n_layer, heads, heads, width // heads, config.n_inner or 4 * width, config.n_positions)


SETTINGS = {"vocab": "vocab_size", "heads": "n_head", "kv_heads": "n_head", "mlp": "n_inner", "embed": "n_embd"}
NAMES = Names(
    {"causal-lm": "GPT2LMHeadModel"} | classes("GPT2", "sequence-classification", "features"),
    base="transformer",
    body=(
        *same("wte.weight", "wte"),
        *same("wpe.weight", "wpe"),
        *norm("h.{i}.ln_1", "h/{i}/ln_1"),
        *linear("h.{i}.attn.c_attn", "h/{i}/attn/q", "h/{i}/attn/k", "h/{i}/attn/v", transposed=False),
        *linear("h.{i}.attn.c_proj", "h/{i}/attn/o", inputs=2, transposed=False),
        *norm("h.{i}.ln_2", "h/{i}/ln_2"),
        *linear("h.{i}.mlp.c_fc", "h/{i}/mlp/up", transposed=False),
        *linear("h.{i}.mlp.c_proj", "h/{i}/mlp/down", transposed=False),
        *norm("ln_f", "ln_f"),
    ),
    heads=(*same("lm_head.weight", "lm_head"), *linear("score", "score/out")),
    tied={"lm_head.weight": "wte.weight"},
)
