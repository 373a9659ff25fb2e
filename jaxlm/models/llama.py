"""Llama 1 to 3 (Touvron et al. 2023; Grattafiori et al. 2024), and SmolLM2: a pre-norm decoder with rotary positions.

Key/value heads are shared by groups of query heads. Read next: `models/mistral.py`, which changes one part.
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
from jaxlm.models.names import Names, classes, linear, norm, same
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
from jaxlm.models.rope_keys import rotary
from jaxlm.ops.rotary import rotation


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of Llama."""

    vocab_size: int | None = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Frozen | None = None
    initializer_range: float = 0.02
    attention_dropout: float = 0.0
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "llama"


LLAMA3 = {"vocab_size": 128256, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0}
SMOL = {"vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100_000.0, "tie_word_embeddings": True}
SMALL = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
SIZES = {
    "llama-7b": Config(),
    "llama-2-7b": Config(max_position_embeddings=4096, rms_norm_eps=1e-5),
    "llama-3-8b": Config(max_position_embeddings=8192, intermediate_size=14336, **LLAMA3),
    "smollm2-135m": Config(**SMALL, **SMOL),
    "smollm2-360m": Config(hidden_size=960, intermediate_size=2560, num_attention_heads=15, num_key_value_heads=5, **SMOL),
}


class Llama(nn.Module):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits.

    All matrices and tables are drawn from a normal distribution of initializer_range; biases are 0, norms 1.
    """

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
        sight = sight.but(rotation=rotation(positions, rotary(config)))

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
        attn = Attention(
            known.heads, known.head_size, known.kv_heads, bias=config.attention_bias, out_bias=config.attention_bias, **parts, **free
        )
        mlp = GatedMlp(config.intermediate_size, config.hidden_act, normal, bias=config.mlp_bias, **free)
        return Block(ln_1, attn, ln_2, mlp, parent=None)


def dims(config: Any) -> Dims:
    """The sizes of the model."""
    heads, turns = config.num_attention_heads, rotary(config)
    kv_heads = config.num_key_value_heads or heads
    return Dims(config.hidden_size, config.num_hidden_layers, heads, kv_heads, turns.size, config.intermediate_size, turns.reach)


# The families that descend from Llama call these parts the same.
OUTSIDE = (*same("embed_tokens.weight", "embed"), *norm("norm", "norm"))
NORMS = (*norm("layers.{i}.input_layernorm", "layers/{i}/ln_1"), *norm("layers.{i}.post_attention_layernorm", "layers/{i}/ln_2"))
ATTENTION = (
    *(row for part in "qkv" for row in linear(f"layers.{{i}}.self_attn.{part}_proj", f"layers/{{i}}/attn/{part}")),
    *linear("layers.{i}.self_attn.o_proj", "layers/{i}/attn/o", inputs=2),
)
MLP = tuple(row for part in ("gate", "up", "down") for row in linear(f"layers.{{i}}.mlp.{part}_proj", f"layers/{{i}}/mlp/{part}"))
HEADS = (*same("lm_head.weight", "lm_head"), *linear("score", "score/out"))
TIED = {"lm_head.weight": "embed_tokens.weight"}
TASKS = ("causal-lm", "sequence-classification", "features")
NAMES = Names(classes("Llama", *TASKS), "model", (*OUTSIDE, *NORMS, *ATTENTION, *MLP), HEADS, TIED)
