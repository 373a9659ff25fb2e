"""GPT-NeoX (Black et al. 2022) and Pythia: a decoder whose attention and feed-forward read the same input, in parallel.

Read next: `models/llama.py`.
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
from jaxlm.layers.blocks import ParallelBlock
from jaxlm.layers.cache import layers_of, leave
from jaxlm.layers.embed import lookup
from jaxlm.layers.heads import decoder_logits
from jaxlm.layers.linear import Normal
from jaxlm.layers.mlp import Mlp
from jaxlm.layers.norm import LayerNorm
from jaxlm.layers.sight import decoder_sight, refuse
from jaxlm.models.names import Names, classes, linear, norm, same
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
from jaxlm.ops.dropout import dropout, fold
from jaxlm.ops.rotary import Rotary, rotation


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of GPT-NeoX; `rotary_pct` is the share of a head's features that turn."""

    vocab_size: int | None = 50432
    hidden_size: int = 6144
    num_hidden_layers: int = 44
    num_attention_heads: int = 64
    intermediate_size: int = 24576
    hidden_act: str = "gelu"
    max_position_embeddings: int = 2048
    layer_norm_eps: float = 1e-5
    rotary_pct: float = 0.25
    rotary_emb_base: float = 10_000.0
    rope_scaling: Frozen | None = None
    use_parallel_residual: bool = True
    attention_bias: bool = True
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "gpt_neox"


SIZES = {
    "gpt-neox-20b": Config(hidden_act="gelu_fast"),
    "pythia-70m": Config(vocab_size=50304, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048),
    "pythia-160m": Config(vocab_size=50304, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "pythia-410m": Config(vocab_size=50304, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
}


class GPTNeoX(nn.Module):
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
        x = dropout(x, config.hidden_dropout, fold(key, config.num_hidden_layers), HIDDEN)
        layers = Layers((self._block(normal, dtype),) * config.num_hidden_layers, self.compute.layout, self.compute.remat)
        params = self.param("layers", layers.init, x)
        x, layer_caches = layers.apply(params, x, sight, layers_of(cache), key)
        hidden = LayerNorm(config.layer_norm_eps, dtype, name="norm")(x)

        if not config.tie_word_embeddings and self.task == "causal-lm":
            table = self.param("lm_head", normal, table.shape, jnp.float32, ("vocab", "embed"))
        logits = decoder_logits(self.task, hidden, table, config.num_labels, mask, segments)
        return Output(hidden, logits, cache=leave(cache, layer_caches, tokens.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T."""
        return params["embed"] if self.config.tie_word_embeddings else params["lm_head"]

    def _block(self, normal: Normal, dtype: Any) -> nn.Module:
        config, known, free = self.config, dims(self.config), {"dtype": dtype, "parent": None}
        ln_1, ln_2 = (LayerNorm(config.layer_norm_eps, **free) for _ in range(2))
        parts = {"bias": config.attention_bias, "out_bias": config.attention_bias}
        parts |= {"dropout": config.attention_dropout, "init_kernel": normal, "implementation": self.compute.attention}
        attn = Attention(known.heads, known.head_size, **parts, **free)
        order = ParallelBlock if config.use_parallel_residual else Block
        mlp = Mlp(known.mlp, config.hidden_act, normal, **free)
        return order(ln_1, attn, ln_2, mlp, config.hidden_dropout, parent=None)


def rotary(config: Config) -> Rotary:
    """How the first features of a head turn with its position."""
    size = int(config.hidden_size // config.num_attention_heads * config.rotary_pct)
    return Rotary(size, config.rotary_emb_base, config.max_position_embeddings, config.rope_scaling)


def dims(config: Config) -> Dims:
    """The sizes of the model."""
    width, heads = config.hidden_size, config.num_attention_heads
    return Dims(width, config.num_hidden_layers, heads, heads, width // heads, config.intermediate_size, rotary(config).reach)


SETTINGS = {"vocab": "vocab_size", "heads": "num_attention_heads", "kv_heads": "num_attention_heads", "mlp": "intermediate_size"}
SETTINGS |= {"embed": "hidden_size"}
NAMES = Names(
    classes("GPTNeoX", "causal-lm", "sequence-classification", "features"),
    base="gpt_neox",
    body=(
        *same("embed_in.weight", "embed"),
        *norm("layers.{i}.input_layernorm", "layers/{i}/ln_1"),
        *linear("layers.{i}.attention.query_key_value", *(f"layers/{{i}}/attn/{part}" for part in "qkv"), interleaved=True),
        *linear("layers.{i}.attention.dense", "layers/{i}/attn/o", inputs=2),
        *norm("layers.{i}.post_attention_layernorm", "layers/{i}/ln_2"),
        *linear("layers.{i}.mlp.dense_h_to_4h", "layers/{i}/mlp/up"),
        *linear("layers.{i}.mlp.dense_4h_to_h", "layers/{i}/mlp/down"),
        *norm("final_layer_norm", "norm"),
    ),
    heads=(*same("embed_out.weight", "lm_head"), *linear("score", "score/out")),
    tied={"embed_out.weight": "embed_in.weight"},
)
