"""BERT (Devlin et al. 2019): a post-norm encoder with learned positions and token types; with `is_decoder`, a decoder.

Read next: `models/roberta.py`, which changes positions and heads.
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
from jaxlm.layers.heads import POOLED, VOCABULARY, Classifier, EncoderHeads, Transform, as_rows
from jaxlm.layers.linear import Normal
from jaxlm.layers.norm import LayerNorm
from jaxlm.models.names import LABELS, Names, classes, linear, norm, same, tied_vocabulary, vocabulary
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
from jaxlm.ops.dropout import dropout, split


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of BERT."""

    vocab_size: int | None = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    classifier_dropout: float | None = None
    tie_word_embeddings: bool = True
    is_decoder: bool = False
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "bert"

    @property
    def head_dropout(self) -> float:
        """In front of a classifier."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


SIZES = {
    "bert-base": Config(),
    "bert-large": Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
}


class Bert(nn.Module):
    """Tokens [B, T] (multiple choice: [B, C, T]) to hidden states [B, T, D], the pooled first token, and the task's logits.

    All matrices and tables are drawn from a normal distribution of initializer_range; biases are 0, norms 1.
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
        check_length(tokens, config.max_position_embeddings, "max_position_embeddings")
        sight, positions, cache = either_sight(config.is_decoder, tokens, mask, segments, positions, cache)

        word = table("word", config.vocab_size, "vocab")
        x = lookup(word, tokens) + lookup(table("position", config.max_position_embeddings), positions)
        x = x + lookup(table("type", config.type_vocab_size), jnp.zeros_like(tokens) if token_types is None else token_types)
        x = dropout(LayerNorm(config.layer_norm_eps, dtype, name="ln")(x), config.hidden_dropout_prob, keys[0], HIDDEN)
        parts = layer_parts(dims(config), config.hidden_act, config.layer_norm_eps, config.attention_probs_dropout_prob, init, self.compute)
        block = PostBlock(*parts, config.hidden_dropout_prob, parent=None)
        layers = Layers((block,) * config.num_hidden_layers, self.compute.layout, self.compute.remat)
        params = self.param("layers", layers.init, x)
        hidden, layer_caches = layers.apply(params, x, sight, layers_of(cache), keys[1])

        pooled = pool(self, POOLED, hidden, init, segments)
        relation = Classifier(2, init_kernel=init, dtype=dtype, name="relation")(pooled) if self.task == "pretraining" else None
        if self.task in VOCABULARY:
            ln = LayerNorm(config.layer_norm_eps, dtype, parent=None)
            x = Transform(config.hidden_size, config.hidden_act, ln, init, dtype, name="transform")(chosen(hidden, places))
            logits = vocabulary_logits(x, word, config.tie_word_embeddings, init, spare=True)
        else:
            logits = EncoderHeads(config.num_labels, config.head_dropout, choices, init).logits(self.task, hidden, pooled, keys[2])
        return Output(hidden, logits, pooled, relation, cache=leave(cache, layer_caches, tokens.shape[1]))


def dims(config: Any) -> Dims:
    """The sizes of the model."""
    width, heads = config.hidden_size, config.num_attention_heads
    return Dims(width, config.num_hidden_layers, heads, heads, width // heads, config.intermediate_size, config.max_position_embeddings)


# ELECTRA's, RoBERTa's and ALBERT's embeddings, and the layers of the first two, are called the same.
EMBEDDINGS = (
    *same("embeddings.word_embeddings.weight", "word"),
    *same("embeddings.position_embeddings.weight", "position"),
    *same("embeddings.token_type_embeddings.weight", "type"),
    *norm("embeddings.LayerNorm", "ln"),
)
LAYERS = (
    *linear("encoder.layer.{i}.attention.self.query", "layers/{i}/attn/q"),
    *linear("encoder.layer.{i}.attention.self.key", "layers/{i}/attn/k"),
    *linear("encoder.layer.{i}.attention.self.value", "layers/{i}/attn/v"),
    *linear("encoder.layer.{i}.attention.output.dense", "layers/{i}/attn/o", inputs=2),
    *norm("encoder.layer.{i}.attention.output.LayerNorm", "layers/{i}/ln_1"),
    *linear("encoder.layer.{i}.intermediate.dense", "layers/{i}/mlp/up"),
    *linear("encoder.layer.{i}.output.dense", "layers/{i}/mlp/down"),
    *norm("encoder.layer.{i}.output.LayerNorm", "layers/{i}/ln_2"),
)
NAMES = Names(
    classes("Bert", "masked-lm", "features", "pretraining", "next-sentence", *LABELS, causal_lm="BertLMHeadModel"),
    base="bert",
    body=(*EMBEDDINGS, *LAYERS, *linear("pooler.dense", "pooler/dense")),
    heads=(
        *linear("cls.predictions.transform.dense", "transform/dense"),
        *norm("cls.predictions.transform.LayerNorm", "transform/norm"),
        *vocabulary("cls.predictions.decoder", "cls.predictions.bias"),
        *linear("cls.seq_relationship", "relation/out"),
        *linear("classifier", "classifier/out"),
        *linear("qa_outputs", "span/out"),
    ),
    tied=tied_vocabulary("cls.predictions.decoder", "cls.predictions.bias"),
    optional=("pooler",),
)
