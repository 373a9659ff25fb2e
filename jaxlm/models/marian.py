"""Marian (Junczys-Dowmunt et al. 2018): BART's parts with sinusoidal positions and a bias on the logits.

The two sides may have tables of their own.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.layers.cache import leave
from jaxlm.layers.embed import check_length, lookup, unembed
from jaxlm.layers.linear import Normal
from jaxlm.layers.sides import Style, fixed_bias, make_side, see_memory
from jaxlm.layers.sight import decoder_sight, encoder_sight, refuse
from jaxlm.models import bart, pegasus
from jaxlm.models.bart import SETTINGS, dims  # noqa: F401 (a family has SETTINGS and dims)
from jaxlm.models.names import same
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.ops.dropout import split
from jaxlm.ops.positions import sinusoids


@dataclasses.dataclass(frozen=True)
class Config(bart.Config):
    """Hugging Face's config.json of Marian."""

    vocab_size: int | None = 58101
    decoder_vocab_size: int | None = None  # where the tables are not shared; None: vocab_size
    share_encoder_decoder_embeddings: bool = True
    eos_token_id: int | None = 0
    decoder_start_token_id: int | None = 58100
    num_labels: int = 2
    model_type: str = "marian"


BASE = {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
BASE |= {"encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "activation_function": "swish", "scale_embedding": True}
SIZES = {"opus-mt-en-de": Config(max_position_embeddings=512, **BASE)}


class Marian(nn.Module):
    """Tokens [B, S] and targets [B, T] to the decoder's hidden states [B, T, D] and the task's logits.

    Initialization: all matrices and tables normal, init_std; all biases 0 and all norms 1.
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
        config, limit, keys = self.config, self.config.max_position_embeddings, split(key, 2)
        refuse("marian", token_types=token_types)
        refuse("marian without targets", cache=None if targets is not None else cache)
        if config.share_encoder_decoder_embeddings:
            source = target = self._table("shared", config.vocab_size)
        else:
            source = self._table("source", config.vocab_size)
            target = self._table("target", config.decoder_vocab_size or config.vocab_size)
        scale = config.d_model**0.5 if config.scale_embedding else 1.0
        places = jnp.asarray(sinusoids(limit, config.d_model, interleaved=False))
        style = Style(pre_norm=False, init_attention=Normal(config.init_std), init_mlp=Normal(config.init_std))
        if memory is None and tokens is not None:
            check_length(tokens, limit, "max_position_embeddings")
            sight, positions = encoder_sight(tokens, mask, segments, positions)
            x = lookup(source, tokens) * scale + lookup(places, positions)
            memory, _ = make_side("encoder", config, style, self.compute)(x.astype(self.compute.dtype), sight, None, keys[0])
        if targets is None:
            return Output(memory, memory=memory)

        check_length(targets, limit, "max_position_embeddings")
        sight, target_positions, cache = decoder_sight(targets, target_mask, target_segments, target_positions, cache)
        sight, cache = see_memory(sight, cache, memory, mask, segments, target_segments)
        x = lookup(target, targets) * scale + lookup(places, target_positions)
        hidden, layer_caches = make_side("decoder", config, style, self.compute)(x.astype(self.compute.dtype), sight, cache, keys[1])
        logits = None
        if self.task == "seq2seq-lm":
            table = target if config.tie_word_embeddings else self._table("lm_head", target.shape[0])
            logits = unembed(hidden, table, bias=fixed_bias(self, table.shape[0]))
        return Output(hidden, logits, memory=memory, cache=leave(cache, layer_caches, targets.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T + final_logits_bias."""
        tied = "shared" if self.config.share_encoder_decoder_embeddings else "target"
        return params[tied if self.config.tie_word_embeddings else "lm_head"]

    def _table(self, name: str, rows: int) -> Array:
        return self.param(name, Normal(self.config.init_std), (rows, self.config.d_model), jnp.float32, ("vocab", "embed"))


NAMES = dataclasses.replace(
    bart.NAMES,
    architectures={"seq2seq-lm": "MarianMTModel", "features": "MarianModel"},
    body=(*bart.NAMES.body, *same("encoder.embed_tokens.weight", "source"), *same("decoder.embed_tokens.weight", "target")),
    computed=pegasus.NAMES.computed,
    unstored=("seq2seq-lm",),
    tied={**bart.NAMES.tied, "lm_head.weight": "decoder.embed_tokens.weight"},
)
