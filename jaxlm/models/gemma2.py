"""Gemma 2 (Gemma Team 2024): norms before and after each half, soft caps on logits, windows in every other layer.

Read next: `models/gemma3.py`.
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
from jaxlm.layers.block import Layers
from jaxlm.layers.blocks import SandwichBlock
from jaxlm.layers.cache import layers_of, leave
from jaxlm.layers.embed import lookup, unembed
from jaxlm.layers.heads import decoder_logits
from jaxlm.layers.linear import Normal
from jaxlm.layers.mlp import GatedMlp
from jaxlm.layers.norm import RMSNorm
from jaxlm.layers.sight import decoder_sight, refuse
from jaxlm.layers.windows import kinds, kinds_of, sizes, whole_every
from jaxlm.models import llama
from jaxlm.models.names import Names, classes, norm
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.models.rope_keys import rotary
from jaxlm.ops.rotary import rotation


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of Gemma 2; `layer_types` None: windows in the layers 0, 2, 4 ..."""

    vocab_size: int | None = 256000
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Frozen | None = None
    query_pre_attn_scalar: int = 256
    attn_logit_softcapping: float | None = 50.0
    final_logit_softcapping: float | None = 30.0
    sliding_window: int | None = 4096
    layer_types: tuple[str, ...] | None = None
    use_bidirectional_attention: bool | None = None
    initializer_range: float = 0.02
    attention_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = True
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "gemma2"

    def __post_init__(self):
        if self.use_bidirectional_attention:
            raise ConfigError(f"{self.model_type}: use_bidirectional_attention=true is not supported: use a model that only looks back")


SIZES = {
    "gemma-2-2b": Config(),
    "gemma-2-9b": Config(
        hidden_size=3584, intermediate_size=14336, num_hidden_layers=42, num_attention_heads=16, num_key_value_heads=8
    ),
    "gemma-2-27b": Config(
        hidden_size=4608, intermediate_size=36864, num_hidden_layers=46, num_attention_heads=32, num_key_value_heads=16,
        head_dim=128, query_pre_attn_scalar=144,
    ),
}  # fmt: skip


class Gemma2(nn.Module):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits.

    All matrices and tables are drawn from a normal distribution of initializer_range; norms begin at 1, kept as 0.
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
        whole = sight.but(rotation=rotation(positions, rotary(config)))
        windowed = whole.but(window=config.sliding_window)
        seen = kinds_of(windows(config))

        table = self.param("embed", normal, (config.vocab_size, config.hidden_size), jnp.float32, ("vocab", "embed"))
        x = lookup(table, tokens).astype(dtype) * jnp.asarray(config.hidden_size**0.5, dtype)
        layers = Layers((self._block(normal, dtype),) * config.num_hidden_layers, self.compute.layout, self.compute.remat, seen)
        params = self.param("layers", layers.init, x)
        x, layer_caches = layers.apply(params, x, (whole, windowed), layers_of(cache), key)
        hidden = RMSNorm(config.rms_norm_eps, dtype, 1.0, name="norm")(x)

        if not config.tie_word_embeddings and self.task == "causal-lm":
            table = self.param("lm_head", normal, table.shape, jnp.float32, ("vocab", "embed"))
        if self.task == "causal-lm":
            logits = unembed(hidden, table, self.softcap)
        else:
            logits = decoder_logits(self.task, hidden, table, config.num_labels, mask, segments)
        return Output(hidden, logits, cache=leave(cache, layer_caches, tokens.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T."""
        return params["embed"] if self.config.tie_word_embeddings else params["lm_head"]

    @property
    def softcap(self) -> float | None:
        """Logits over the vocabulary are softcap * tanh(hidden @ table^T / softcap)."""
        return self.config.final_logit_softcapping

    def _block(self, normal: Normal, dtype: Any) -> SandwichBlock:
        config, known, free = self.config, dims(self.config), {"dtype": dtype, "parent": None}
        ln_1, ln_1_out, ln_2, ln_2_out = (RMSNorm(config.rms_norm_eps, offset=1.0, **free) for _ in range(4))
        parts = {"dropout": config.attention_dropout, "init_kernel": normal, "implementation": self.compute.attention}
        parts |= {"bias": config.attention_bias, "out_bias": config.attention_bias, "scale": config.query_pre_attn_scalar**-0.5}
        attn = Attention(known.heads, known.head_size, known.kv_heads, softcap=config.attn_logit_softcapping, **parts, **free)
        mlp = GatedMlp(config.intermediate_size, config.hidden_activation, normal, **free)
        return SandwichBlock(ln_1, attn, ln_1_out, ln_2, mlp, ln_2_out, parent=None)


def windows(config: Config) -> tuple[int | None, ...]:
    """How many tokens each layer sees; None: all before."""
    count = config.num_hidden_layers
    return sizes(kinds(config.layer_types or whole_every(2, count), count), config.sliding_window)


dims = llama.dims
NORMS = (
    *norm("layers.{i}.input_layernorm", "layers/{i}/ln_1"),
    *norm("layers.{i}.post_attention_layernorm", "layers/{i}/ln_1_out"),
    *norm("layers.{i}.pre_feedforward_layernorm", "layers/{i}/ln_2"),
    *norm("layers.{i}.post_feedforward_layernorm", "layers/{i}/ln_2_out"),
)
BODY = (*llama.OUTSIDE, *NORMS, *llama.ATTENTION, *llama.MLP)
NAMES = Names(classes("Gemma2", *llama.TASKS), "model", BODY, llama.HEADS, llama.TIED)
