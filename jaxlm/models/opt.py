"""OPT (Zhang et al. 2022): a decoder with learned positions; pre-norm, but post-norm and narrow embeddings in its 350m size.

Read next: `models/gpt2.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.errors import ConfigError
from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.block import Block, Layers
from jaxlm.layers.blocks import PostBlock
from jaxlm.layers.cache import layers_of, leave
from jaxlm.layers.embed import check_length, lookup
from jaxlm.layers.heads import decoder_logits
from jaxlm.layers.linear import Linear, Normal
from jaxlm.layers.mlp import Mlp
from jaxlm.layers.norm import LayerNorm
from jaxlm.layers.sight import decoder_sight, refuse
from jaxlm.models.names import Names, classes, linear, norm, same
from jaxlm.models.output import Dims, Flags, Ids, Key, Output

FIRST = 2  # the row of the first position: a habit of fairseq, where padding had a row


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of OPT; `word_embed_proj_dim` None: hidden_size."""

    vocab_size: int | None = 50272
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    ffn_dim: int = 3072
    word_embed_proj_dim: int | None = None
    max_position_embeddings: int = 2048
    activation_function: str = "relu"
    do_layer_norm_before: bool = True
    _remove_final_layer_norm: bool = False
    enable_bias: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.0
    layerdrop: float = 0.0
    init_std: float = 0.02
    tie_word_embeddings: bool = True
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "opt"

    def __post_init__(self):
        if not self.extra.get("layer_norm_elementwise_affine", True):
            raise ConfigError("opt: layer_norm_elementwise_affine=false is not supported: use an OPT whose norms have weights")


NARROW = {"do_layer_norm_before": False, "word_embed_proj_dim": 512}
SIZES = {
    "opt-125m": Config(),
    "opt-350m": Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, ffn_dim=4096, **NARROW),
    "opt-1.3b": Config(hidden_size=2048, num_hidden_layers=24, num_attention_heads=32, ffn_dim=8192),
}


class OPT(nn.Module):
    """Tokens [B, T] to hidden states [B, T, E], as wide as the embeddings, and the task's logits. Drawn from Normal(init_std)."""

    config: Config
    compute: Compute = Compute()
    task: str = "causal-lm"

    @nn.compact
    def __call__(
        self, tokens: Ids, *, mask: Flags = None, token_types: Ids = None, segments: Ids = None, positions: Ids = None,
        cache: Any = None, key: Key = None,
    ) -> Output:  # fmt: skip
        """The arguments are every family's (`models/__init__.py`)."""
        config, dtype, normal = self.config, jnp.dtype(self.compute.dtype), Normal(self.config.init_std)
        refuse(config.model_type, token_types=token_types)
        check_length(tokens, config.max_position_embeddings, "max_position_embeddings")
        sight, positions, cache = decoder_sight(tokens, mask, segments, positions, cache)
        narrow = config.word_embed_proj_dim or config.hidden_size

        table = self.param("embed", normal, (config.vocab_size, narrow), jnp.float32, ("vocab", "embed"))
        rows = config.max_position_embeddings + FIRST
        places = self.param("position", normal, (rows, config.hidden_size), jnp.float32, (None, "embed"))
        x = lookup(places, positions + FIRST).astype(dtype)
        x = x + self._project("project_in", config.hidden_size, lookup(table, tokens).astype(dtype))
        blocks = (self._block(normal, dtype),) * config.num_hidden_layers
        layers = Layers(blocks, self.compute.layout, self.compute.remat, skip=config.layerdrop)
        params = self.param("layers", layers.init, x)
        x, layer_caches = layers.apply(params, x, sight, layers_of(cache), key)
        if config.do_layer_norm_before and not config._remove_final_layer_norm:
            x = LayerNorm(dtype=dtype, name="norm")(x)
        hidden = self._project("project_out", narrow, x)

        if not config.tie_word_embeddings and self.task == "causal-lm":
            table = self.param("lm_head", normal, table.shape, jnp.float32, ("vocab", "embed"))
        logits = decoder_logits(self.task, hidden, table, config.num_labels, mask, segments)
        return Output(hidden, logits, cache=leave(cache, layer_caches, tokens.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V E"]:
        """The output embedding: logits are hidden @ table^T."""
        return params["embed"] if self.config.tie_word_embeddings else params["lm_head"]

    def _project(self, name: str, width: int, x: Float[Array, "B T D"]) -> Float[Array, "B T E"]:
        if self.config.word_embed_proj_dim in (None, self.config.hidden_size):
            return x
        return Linear((width,), ("embed", None), False, Normal(self.config.init_std), x.dtype, name=name)(x)

    def _block(self, normal: Normal, dtype: Any) -> nn.Module:
        config, known, free = self.config, dims(self.config), {"dtype": dtype, "parent": None}
        parts = {"bias": config.enable_bias, "out_bias": config.enable_bias}
        parts |= {"dropout": config.attention_dropout, "init_kernel": normal, "implementation": self.compute.attention}
        attn = Attention(known.heads, known.head_size, **parts, **free)
        mlp = Mlp(known.mlp, config.activation_function, normal, bias=config.enable_bias, **free)
        order = Block if config.do_layer_norm_before else PostBlock
        return order(ln_1=LayerNorm(**free), attn=attn, ln_2=LayerNorm(**free), mlp=mlp, dropout=config.dropout, parent=None)


def dims(config: Config) -> Dims:
    """The sizes of the model."""
    width, heads = config.hidden_size, config.num_attention_heads
    return Dims(width, config.num_hidden_layers, heads, heads, width // heads, config.ffn_dim, config.max_position_embeddings)


SETTINGS = {"vocab": "vocab_size", "heads": "num_attention_heads", "kv_heads": "num_attention_heads", "mlp": "ffn_dim"}
SETTINGS |= {"embed": "hidden_size"}
NAMES = Names(
    classes("OPT", "causal-lm", "sequence-classification", "features"),
    base="model",
    body=(
        *same("decoder.embed_tokens.weight", "embed"),
        *same("decoder.embed_positions.weight", "position"),
        *linear("decoder.project_in", "project_in"),
        *linear("decoder.project_out", "project_out"),
        *(row for part in "qkv" for row in linear(f"decoder.layers.{{i}}.self_attn.{part}_proj", f"layers/{{i}}/attn/{part}")),
        *linear("decoder.layers.{i}.self_attn.out_proj", "layers/{i}/attn/o", inputs=2),
        *norm("decoder.layers.{i}.self_attn_layer_norm", "layers/{i}/ln_1"),
        *linear("decoder.layers.{i}.fc1", "layers/{i}/mlp/up"),
        *linear("decoder.layers.{i}.fc2", "layers/{i}/mlp/down"),
        *norm("decoder.layers.{i}.final_layer_norm", "layers/{i}/ln_2"),
        *norm("decoder.final_layer_norm", "norm"),
    ),
    heads=(*same("lm_head.weight", "lm_head"), *linear("score", "score/out")),
    tied={"lm_head.weight": "decoder.embed_tokens.weight"},
)
