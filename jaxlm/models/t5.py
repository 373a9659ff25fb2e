"""T5 (Raffel et al. 2020), T5 1.1, Flan-T5, ByT5: pre-norm, without biases, relative positions; "features" is the encoder alone."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.block import Layers
from jaxlm.layers.cache import leave
from jaxlm.layers.embed import lookup, unembed
from jaxlm.layers.linear import Normal
from jaxlm.layers.mlp import GatedMlp, Mlp
from jaxlm.layers.norm import RMSNorm
from jaxlm.layers.relative import RelativeBias
from jaxlm.layers.sides import Side, make_block, see_memory
from jaxlm.layers.sight import decoder_sight, encoder_sight, refuse
from jaxlm.models.names import Names, Row, classes, same
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
from jaxlm.ops.dropout import split


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of T5."""

    vocab_size: int | None = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"  # or "gated-gelu", "gated-silu", ...
    tie_word_embeddings: bool = True
    extra: Frozen = Frozen()
    model_type: str = "t5"


SMALL, BASE = {"d_ff": 1024, "num_layers": 8, "num_heads": 6}, {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}
LARGE = {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16}
XL, XXL = {**LARGE, "d_model": 2048, "d_ff": 5120, "num_heads": 32}, {**LARGE, "d_model": 4096, "d_ff": 10240, "num_heads": 64}
NEWER = {"small": SMALL, "base": BASE, "large": LARGE, "xl": XL, "xxl": XXL}
SIZES = {"t5-small": Config(), "t5-base": Config(**{**BASE, "d_ff": 3072}), "t5-large": Config(**{**LARGE, "d_ff": 4096})}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
SIZES |= {f"t5-v1_1-{name}": Config(**size, **GATED) for name, size in NEWER.items()}
SIZES["byt5-small"] = Config(384, 1472, 64, 3584, 12, 4, 6, **GATED)


class T5(nn.Module):
    """Tokens [B, S] and targets [B, T] to the decoder's hidden states [B, T, D] and logits [B, T, V].
    Initialization (times initializer_factor; norms 1, the others normal):
      shared, lm_head            1
      q                          (d_model * d_kv) ** -0.5 (q k^T has no scale)
      k, v, up, gate, relative   d_model ** -0.5
      o, down                    (their inputs) ** -0.5
    """

    config: Config
    compute: Compute = Compute()
    task: str = "seq2seq-lm"

    @nn.compact
    def __call__(
        self, tokens: Ids, targets: Ids = None, *, mask: Flags = None, target_mask: Flags = None, token_types: Ids = None,
        segments: Ids = None, target_segments: Ids = None, positions: Ids = None, target_positions: Ids = None,
        memory: Float[Array, "B S D"] | None = None, cache: Any = None, key: Key = None,
    ) -> Output:  # fmt: skip
        """The arguments are every encoder-decoder's (`models/__init__.py`), but positions: those are counted along the row."""
        refuse("t5", token_types=token_types, positions=positions, target_positions=target_positions)
        refuse("t5 without targets", cache=None if targets is not None else cache)
        refuse("t5 for features, which is the encoder alone,", targets=targets if self.task == "features" else None)
        config, keys, dtype = self.config, split(key, 2), jnp.dtype(self.compute.dtype)
        table = self.param("shared", self._normal(), (config.vocab_size, config.d_model), jnp.float32, ("vocab", "embed"))
        if memory is None and tokens is not None:
            sight, _ = encoder_sight(tokens, mask, segments, None)
            memory, _ = self._side("encoder", dtype)(lookup(table, tokens).astype(dtype), sight, None, keys[0])
        if targets is None:
            return Output(memory, memory=memory)
        sight, _, cache = decoder_sight(targets, target_mask, target_segments, None, cache)
        sight, cache = see_memory(sight, cache, memory, mask, segments, target_segments)
        hidden, layer_caches = self._side("decoder", dtype)(lookup(table, targets).astype(dtype), sight, cache, keys[1])
        if not config.tie_word_embeddings:
            table = self.param("lm_head", self._normal(), table.shape, jnp.float32, ("vocab", "embed"))
        cache = leave(cache, layer_caches, targets.shape[1])
        return Output(hidden, unembed(hidden * self._scale(), table), memory=memory, cache=cache)

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T."""
        return params["shared" if self.config.tie_word_embeddings else "lm_head"] * self._scale()

    def _scale(self) -> float:
        """Of the logits: tied embeddings are as large as an input needs them; T5 1.1's own are not, and mT5 never scales."""
        config, key = self.config, "scale_decoder_outputs"
        return config.d_model**-0.5 if config.model_type == "t5" and config.extra.get(key, config.tie_word_embeddings) else 1.0

    def _side(self, name: str, dtype: Any) -> Side:
        config, known, free = self.config, dims(self.config), {"dtype": dtype, "parent": None}
        wide, rate = self._normal(config.d_model**-0.5), config.dropout_rate
        query, out = (self._normal((inputs * config.d_kv) ** -0.5) for inputs in (config.d_model, known.heads))
        plain = {"bias": False, "out_bias": False, "scale": 1.0, "init_query": query, "init_out": out, **free}
        attention = lambda kind: kind(known.heads, config.d_kv, None, rate, wide, implementation=self.compute.attention, **plain)
        gate, _, activation = config.feed_forward_proj.replace("gated-gelu", "gated-gelu_new").rpartition("-")
        mlp = (GatedMlp if gate else Mlp)(config.d_ff, activation, wide, self._normal(config.d_ff**-0.5), bias=False, dropout=rate, **free)
        ln, far = (lambda: RMSNorm(config.layer_norm_epsilon, **free)), config.relative_attention_max_distance
        blocks = (make_block(name, True, attention, ln, mlp, rate),) * (config.num_layers if name == "encoder" else known.layers)
        relative = RelativeBias(known.heads, config.relative_attention_num_buckets, far, name == "encoder", wide, parent=None)
        return Side(Layers(blocks, self.compute.layout, self.compute.remat), None, ln(), rate, relative, rate, name=name)

    def _normal(self, scale: float = 1.0) -> Normal:
        return Normal(self.config.initializer_factor * scale)


def dims(config: Config) -> Dims:
    """The sizes of the model; layers are the decoder's."""
    layers, heads = config.num_decoder_layers or config.num_layers, (config.num_heads,) * 2
    return Dims(config.d_model, layers, *heads, config.d_kv, config.d_ff, None)


def _rows(side: str, *attentions: tuple[str, str, str]) -> tuple[Row, ...]:
    theirs, ours = f"{side}.block.{{i}}.layer", f"{side}/layers/{{i}}"
    relative = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    rows = [*same(relative, f"{side}/relative/table"), *same(f"{side}.final_layer_norm.weight", f"{side}/ln_out/scale")]
    for number, (name, attn, ln) in enumerate(attentions):
        rows += same(f"{theirs}.{number}.layer_norm.weight", f"{ours}/{ln}/scale")
        rows += [Row(f"{theirs}.{number}.{name}.{x}.weight", (f"{ours}/{attn}/{x}/kernel",), 2 if x == "o" else 1) for x in "qkvo"]
    rows += same(f"{theirs}.{len(attentions)}.layer_norm.weight", f"{ours}/ln_2/scale")
    for name, matrix in (("wi_0", "gate"), ("wi_1", "up"), ("wi", "up"), ("wo", "down")):  # wi where there is no gate
        beside = f"{ours}/mlp/gate/kernel" if name == "wi_1" else None
        rows += [Row(f"{theirs}.{len(attentions)}.DenseReluDense.{name}.weight", (f"{ours}/mlp/{matrix}/kernel",), 1, beside=beside)]
    return tuple(rows)


SETTINGS = {"vocab": "vocab_size", "heads": "num_heads", "kv_heads": "num_heads", "mlp": "d_ff", "embed": "d_model"}
SELF, CROSS = ("SelfAttention", "attn", "ln_1"), ("EncDecAttention", "cross", "ln_cross")
NAMES = Names(
    classes("T5", "seq2seq-lm", features="T5EncoderModel"),
    base="",
    body=(*same("shared.weight", "shared"), *_rows("encoder", SELF)),
    heads=(*_rows("decoder", SELF, CROSS), *same("lm_head.weight", "lm_head")),  # "features" is without the decoder
    tied=dict.fromkeys(("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), "shared.weight"),
)
