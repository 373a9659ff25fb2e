"""RoBERTa (Liu et al. 2019): BERT whose positions start behind that of padding, with heads of its own.

Read next: `models/roberta_prelayernorm.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.block import HIDDEN, Layers
from jaxlm.layers.blocks import PostBlock
from jaxlm.layers.cache import layers_of, leave
from jaxlm.layers.embed import check_length, lookup
from jaxlm.layers.encoder import chosen, either_sight, layer_parts, pool, tied_or_own_table, vocabulary_logits
from jaxlm.layers.heads import VOCABULARY, DeepClassifier, EncoderHeads, Transform, as_rows, first_token
from jaxlm.layers.linear import Normal
from jaxlm.layers.norm import LayerNorm
from jaxlm.models import bert
from jaxlm.models.names import LABELS, Names, classes, linear, norm, tied_vocabulary, vocabulary
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
from jaxlm.ops.dropout import dropout, split
from jaxlm.ops.positions import from_mask


@dataclasses.dataclass(frozen=True)
class Config(bert.Config):
    """Hugging Face's config.json of RoBERTa: BERT's keys, and the padding's id, from which positions count."""

    vocab_size: int | None = 50265
    pad_token_id: int = 1
    extra: Frozen = Frozen()
    model_type: str = "roberta"


BASE = Config(max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
LARGE = dataclasses.replace(BASE, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
SIZES = {"roberta-base": BASE, "roberta-large": LARGE}


class Roberta(nn.Module):
    """Tokens to hidden states, the pooled first token, and the task's logits, drawn and shaped as in `bert.Bert`.

    Tokens read row pad_token_id + 1 + position of the table of positions; padding reads row pad_token_id. `positions` count
    from 0 as in every family. Without a mask, tokens that are pad_token_id count for nothing, but are seen.
    """

    config: Config
    compute: Compute = Compute()
    task: str = "masked-lm"
    plain_logits, output_table = False, tied_or_own_table

    @nn.compact
    def __call__(
        self, tokens: Ids, *, mask: Flags = None, token_types: Ids = None, segments: Ids = None, positions: Ids = None,
        cache: Any = None, key: Key = None, places: Ids = None,
    ) -> Output:  # fmt: skip
        """The arguments are every family's (`models/__init__.py`); a cache with `is_decoder` only."""
        config, dtype, init = self.config, jnp.dtype(self.compute.dtype), Normal(self.config.initializer_range)
        table = lambda name, rows, axis=None: self.param(name, init, (rows, config.hidden_size), jnp.float32, (axis, "embed"))
        choices, keys = tokens.shape[:-1], split(key, 3)
        tokens, mask, token_types, segments, positions = as_rows(tokens, mask, token_types, segments, positions)
        check_length(tokens, dims(config).context, "max_position_embeddings - pad_token_id - 1")
        real = tokens != config.pad_token_id if mask is None else mask
        if all(given is None for given in (mask, segments, positions, cache)):
            positions = from_mask(real)
        sight, positions, cache = either_sight(config.is_decoder, tokens, mask, segments, positions, cache)
        rows = jnp.where(real, positions, -1) + config.pad_token_id + 1

        word = table("word", config.vocab_size, "vocab")
        x = lookup(word, tokens) + lookup(table("position", config.max_position_embeddings), rows)
        x = x + lookup(table("type", config.type_vocab_size), jnp.zeros_like(tokens) if token_types is None else token_types)
        x = dropout(LayerNorm(config.layer_norm_eps, dtype, name="ln")(x), config.hidden_dropout_prob, keys[0], HIDDEN)
        parts = layer_parts(dims(config), config.hidden_act, config.layer_norm_eps, config.attention_probs_dropout_prob, init, self.compute)
        block = PostBlock(*parts, config.hidden_dropout_prob, parent=None)
        layers = Layers((block,) * config.num_hidden_layers, self.compute.layout, self.compute.remat)
        params = self.param("layers", layers.init, x)
        hidden, layer_caches = layers.apply(params, x, sight, layers_of(cache), keys[1])

        pooled = pool(self, ("features", "multiple-choice"), hidden, init, segments)
        if self.task in VOCABULARY:
            ln = LayerNorm(config.layer_norm_eps, dtype, parent=None)
            x = Transform(config.hidden_size, "gelu", ln, init, dtype, name="transform")(chosen(hidden, places))
            logits = vocabulary_logits(x, word, config.tie_word_embeddings, init, spare=True)
        elif self.task == "sequence-classification":
            head = DeepClassifier(config.num_labels, "tanh", config.head_dropout, init, dtype, name="sequence")
            logits = head(first_token(hidden, segments), keys[2])
        else:
            rate = config.hidden_dropout_prob if self.task == "multiple-choice" else config.head_dropout
            logits = EncoderHeads(config.num_labels, rate, choices, init).logits(self.task, hidden, pooled, keys[2])
        return Output(hidden, logits, pooled, cache=leave(cache, layer_caches, tokens.shape[1]))


def dims(config: Config) -> Dims:
    """The sizes of the model; its context is the rows of the table of positions that tokens can have."""
    return dataclasses.replace(bert.dims(config), context=config.max_position_embeddings - config.pad_token_id - 1)


HEADS = (
    *linear("lm_head.dense", "transform/dense"),
    *norm("lm_head.layer_norm", "transform/norm"),
    *vocabulary("lm_head.decoder", "lm_head.bias"),
    *linear("classifier.dense", "sequence/dense"),
    *linear("classifier.out_proj", "sequence/out"),
    *linear("classifier", "classifier/out"),
    *linear("qa_outputs", "span/out"),
)
NAMES = Names(
    classes("Roberta", "masked-lm", "features", *LABELS, "causal-lm"),
    base="roberta",
    body=(*bert.EMBEDDINGS, *bert.LAYERS, *linear("pooler.dense", "pooler/dense")),
    heads=HEADS,
    tied=tied_vocabulary("lm_head.decoder", "lm_head.bias"),
    optional=("pooler",),
)
