"""Gemma 3's text models (Gemma Team 2025): Gemma 2 with query and key norms and its own positions in windowed layers."""

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
from jaxlm.layers.windows import kinds, sizes, whole_every
from jaxlm.models import gemma2, llama, qwen3
from jaxlm.models.names import Names, classes
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.models.rope_keys import rotary
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

    def __post_init__(self):
        if self.use_bidirectional_attention:
            raise ConfigError(f"{self.model_type}: use_bidirectional_attention=true is not supported: use a model that only looks back")


SMALL = {"vocab_size": 262144, "num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 32768, "sliding_window": 512}
SIZES = {
    "gemma-3-270m": Config(hidden_size=640, intermediate_size=2048, num_hidden_layers=18, **SMALL),
    "gemma-3-1b": Config(hidden_size=1152, intermediate_size=6912, **SMALL),
}


class Gemma3(nn.Module):
    """Tokens [B, T] to hidden states [B, T, D] and the task's logits, initialized as `Gemma2`."""

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
        near = rotation(positions, Rotary(config.head_dim, config.rope_local_base_freq))
        windowed = sight.but(window=config.sliding_window, rotation=near)
        seen = _kinds(config)

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
        ln_1, ln_1_out, ln_2, ln_2_out, q_norm, k_norm = (RMSNorm(config.rms_norm_eps, offset=1.0, **free) for _ in range(6))
        parts = {"dropout": config.attention_dropout, "init_kernel": normal, "implementation": self.compute.attention}
        parts |= {"bias": config.attention_bias, "out_bias": config.attention_bias, "scale": config.query_pre_attn_scalar**-0.5}
        attn = Attention(known.heads, known.head_size, known.kv_heads, q_norm=q_norm, k_norm=k_norm, **parts, **free)
        mlp = GatedMlp(config.intermediate_size, config.hidden_activation, normal, **free)
        return SandwichBlock(ln_1, attn, ln_1_out, ln_2, mlp, ln_2_out, parent=None)


def windows(config: Config) -> tuple[int | None, ...]:
    """How many tokens each layer sees; None: all before."""
    return sizes(_kinds(config), config.sliding_window)


def _kinds(config: Config) -> tuple[int, ...]:
    """Of positions too: 1 where they are a windowed layer's."""
    count = config.num_hidden_layers
    return kinds(config.layer_types or whole_every(config.sliding_window_pattern, count), count)


dims = llama.dims
NAMES = Names(
    classes("Gemma3", "causal-lm") | classes("Gemma3Text", "sequence-classification", "features"),
    base="model",
    body=(*gemma2.BODY, *qwen3.HEAD_NORMS),
    heads=llama.HEADS,
    tied=llama.TIED,
)
