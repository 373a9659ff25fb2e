"""The Transformer (Vaswani et al. 2017): encoder and decoder with fixed sinusoidal positions and one table of embeddings.

The paper's `norm="post"` and today's "pre". Weights have the names of torch.nn.Transformer. Read next: `models/t5.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.cache import leave
from jaxlm.layers.embed import check_length, lookup, unembed
from jaxlm.layers.linear import Normal
from jaxlm.layers.sides import Style, make_side, see_memory
from jaxlm.layers.sight import decoder_sight, encoder_sight, refuse
from jaxlm.models.bart import SETTINGS, dims  # noqa: F401 (a family has SETTINGS and dims)
from jaxlm.models.names import Names, Row, linear, norm, same
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.ops.dropout import split
from jaxlm.ops.positions import sinusoids
from jaxlm.overrides import choose


@dataclasses.dataclass(frozen=True)
class Config:
    """Keys as in Hugging Face's encoder-decoders; the defaults are the paper's base model."""

    vocab_size: int | None = 37000
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "relu"
    norm: str = "post"  # or "pre"
    final_norm: bool | None = None  # after the last layer; None: where norms come first
    layer_norm_eps: float = 1e-5
    max_position_embeddings: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    tie_word_embeddings: bool = True  # the output embedding is the decoder's
    share_encoder_decoder_embeddings: bool = True
    decoder_vocab_size: int | None = None  # where the tables are not shared; None: vocab_size
    extra: Frozen = Frozen()
    model_type: str = "transformer"


HEADS = {"encoder_attention_heads": 16, "decoder_attention_heads": 16}
SIZES = {
    "transformer-base": Config(),
    "transformer-big": Config(d_model=1024, encoder_ffn_dim=4096, decoder_ffn_dim=4096, dropout=0.3, **HEADS),
}


class Transformer(nn.Module):
    """Tokens [B, S] and targets [B, T] to the decoder's hidden states [B, T, D] and logits [B, T, V].

    Initialization, all biases 0 and all norms 1:

      embeddings             normal, d_model ** -0.5 (the input is multiplied by d_model ** 0.5: section 3.4)
      q, k, v, o             normal, d_model ** -0.5
      up, down               normal, (2 / (d_model + ffn_dim)) ** 0.5 (Glorot & Bengio 2010)
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
        """The arguments are every encoder-decoder's (`models/__init__.py`)."""
        refuse("the Transformer", token_types=token_types)
        refuse("the Transformer without targets", cache=None if targets is not None else cache)
        config, keys = self.config, split(key, 2)
        rows = config.vocab_size if config.share_encoder_decoder_embeddings else config.decoder_vocab_size or config.vocab_size
        source = self._table("source", config.vocab_size)
        target = source if config.share_encoder_decoder_embeddings else self._table("target", rows)
        if memory is None and tokens is not None:
            sight, positions = encoder_sight(tokens, mask, segments, positions)
            memory, _ = self._side("encoder")(self._embed(source, tokens, positions), sight, None, keys[0])
        if targets is None:
            return Output(memory, memory=memory)
        sight, target_positions, cache = decoder_sight(targets, target_mask, target_segments, target_positions, cache)
        sight, cache = see_memory(sight, cache, memory, mask, segments, target_segments)
        hidden, layer_caches = self._side("decoder")(self._embed(target, targets, target_positions), sight, cache, keys[1])
        logits = None
        if self.task == "seq2seq-lm":
            logits = unembed(hidden, target if config.tie_word_embeddings else self._table("lm_head", rows))
        return Output(hidden, logits, memory=memory, cache=leave(cache, layer_caches, targets.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T."""
        tied = "source" if self.config.share_encoder_decoder_embeddings else "target"
        return params[tied if self.config.tie_word_embeddings else "lm_head"]

    def _embed(self, table, tokens, positions):
        config = self.config
        check_length(tokens, config.max_position_embeddings, "max_position_embeddings")
        x = lookup(table, tokens) * config.d_model**0.5
        x = x + lookup(jnp.asarray(sinusoids(config.max_position_embeddings, config.d_model)), positions)
        return x.astype(self.compute.dtype)

    def _side(self, name: str):
        config = self.config
        pre = choose("norm", config.norm, ("post", "pre")) == "pre"
        width = getattr(config, f"{name}_ffn_dim")
        drawn = Normal(config.d_model**-0.5), Normal((2 / (config.d_model + width)) ** 0.5)
        last = pre if config.final_norm is None else config.final_norm
        return make_side(name, config, Style(pre, False, last, config.layer_norm_eps, *drawn), self.compute)

    def _table(self, name: str, rows: int) -> Array:
        return self.param(name, Normal(self.config.d_model**-0.5), (rows, self.config.d_model), jnp.float32, ("vocab", "embed"))


def _attention(theirs: str, ours: str) -> tuple[Row, ...]:
    weight, bias = (tuple(f"{ours}/{name}/{kind}" for name in "qkv") for kind in ("kernel", "bias"))
    out = linear(f"{theirs}.out_proj", f"{ours}/o", inputs=2)
    return Row(f"{theirs}.in_proj_weight", weight, 1), Row(f"{theirs}.in_proj_bias", bias, 0), *out


def _side(side: str, *norms: str) -> tuple[Row, ...]:
    theirs, ours = f"{side}.layers.{{i}}", f"{side}/layers/{{i}}"
    return (
        *_attention(f"{theirs}.self_attn", f"{ours}/attn"),
        *_attention(f"{theirs}.multihead_attn", f"{ours}/cross"),
        *linear(f"{theirs}.linear1", f"{ours}/mlp/up"),
        *linear(f"{theirs}.linear2", f"{ours}/mlp/down"),
        *(row for number, name in enumerate(norms, 1) for row in norm(f"{theirs}.norm{number}", f"{ours}/{name}")),
        *norm(f"{side}.norm", f"{side}/ln_out"),
    )


NAMES = Names(
    {"seq2seq-lm": "TransformerForConditionalGeneration", "features": "TransformerModel"},
    base="",
    body=(*same("source.weight", "source"), *same("target.weight", "target"))
    + (*_side("encoder", "ln_1", "ln_2"), *_side("decoder", "ln_1", "ln_cross", "ln_2")),
    heads=same("lm_head.weight", "lm_head"),
    tied={"lm_head.weight": "target.weight", "target.weight": "source.weight"},
)
