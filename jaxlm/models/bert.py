"""BERT (Devlin et al. 2019): a post-norm encoder with learned positions and token types; with `is_decoder`, a decoder.

Read next: `models/roberta.py`, which changes positions and heads.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.block import HIDDEN, Layers
from jaxlm.layers.blocks import PostBlock
from jaxlm.layers.cache import layers_of, leave
from jaxlm.layers.embed import check_length, lookup
from jaxlm.layers.heads import POOLED, VOCABULARY, Classifier, EncoderHeads, Transform, VocabularyLogits, as_rows
from jaxlm.layers.linear import Normal
from jaxlm.layers.mlp import Mlp
from jaxlm.layers.norm import LayerNorm
from jaxlm.layers.sight import decoder_sight, encoder_sight
from jaxlm.models.names import LABELS, Names, classes, linear, norm, same
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

    @nn.compact
    def __call__(
        self, tokens: Ids, *, mask: Flags = None, token_types: Ids = None, segments: Ids = None, positions: Ids = None,
        cache: Any = None, key: Key = None,
    ) -> Output:  # fmt: skip
        """The arguments are every family's (`models/__init__.py`)."""
        config, dtype, choices = self.config, jnp.dtype(self.compute.dtype), tokens.shape[:-1]
        tokens, mask, token_types, segments, positions = as_rows(tokens, mask, token_types, segments, positions)
        check_length(tokens, config.max_position_embeddings, "max_position_embeddings")
        if config.is_decoder:
            sight, positions, cache = decoder_sight(tokens, mask, segments, positions, cache)
        else:
            sight, positions = encoder_sight(tokens, mask, segments, positions)
        keys = split(key, 3)
        table = self._table("word", config.vocab_size, "vocab")
        x = lookup(table, tokens) + lookup(self._table("position", config.max_position_embeddings), positions)
        x = x + lookup(self._table("type", config.type_vocab_size), jnp.zeros_like(tokens) if token_types is None else token_types)
        x = LayerNorm(config.layer_norm_eps, dtype, name="ln")(x)
        x = dropout(x, config.hidden_dropout_prob, keys[0], HIDDEN)
        layers = Layers((self._block(dtype),) * config.num_hidden_layers, self.compute.layout, self.compute.remat)
        params = self.param("layers", layers.init, x)
        hidden, layer_caches = layers.apply(params, x, sight, layers_of(cache), keys[1])

        pooled = self._pool(hidden)
        if self.task in VOCABULARY:
            norm = LayerNorm(config.layer_norm_eps, dtype, parent=None)
            x = Transform(config.hidden_size, config.hidden_act, norm, self._normal(), dtype, name="transform")(hidden)
            logits = VocabularyLogits(name="vocabulary")(x, table)
        else:
            rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
            logits = EncoderHeads(config.num_labels, rate, choices, self._normal()).logits(self.task, hidden, pooled, keys[2])
        relation = Classifier(2, dtype=dtype, name="relation")(pooled) if self.task == "pretraining" else None
        return Output(hidden, logits, pooled, relation, cache=leave(cache, layer_caches, tokens.shape[1]))

    def _pool(self, hidden):
        if self.task not in POOLED or not (self.is_initializing() or self.has_variable("params", "pooler")):
            return None
        return Transform(hidden.shape[-1], "tanh", None, self._normal(), hidden.dtype, name="pooler")(hidden[:, 0])

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are transform(hidden) @ table^T + bias."""
        return params["word"]

    def _block(self, dtype: Any) -> PostBlock:
        config, known, free = self.config, dims(self.config), {"dtype": dtype, "parent": None}
        attn = Attention(
            known.heads, known.head_size, None, config.attention_probs_dropout_prob, self._normal(),
            implementation=self.compute.attention, **free
        )  # fmt: skip
        mlp = Mlp(known.mlp, config.hidden_act, self._normal(), **free)
        ln_1, ln_2 = (LayerNorm(config.layer_norm_eps, **free) for _ in range(2))
        return PostBlock(attn, ln_1, mlp, ln_2, config.hidden_dropout_prob, parent=None)

    def _table(self, name: str, rows: int, axis: str | None = None) -> Array:
        return self.param(name, self._normal(), (rows, self.config.hidden_size), jnp.float32, (axis, "embed"))

    def _normal(self) -> Normal:
        return Normal(self.config.initializer_range)


def dims(config: Config) -> Dims:
    """The sizes of the model."""
    width, heads = config.hidden_size, config.num_attention_heads
    return Dims(width, config.num_hidden_layers, heads, heads, width // heads, config.intermediate_size, config.max_position_embeddings)


# ELECTRA and RoBERTa call their bodies the same.
BODY = (
    *same("embeddings.word_embeddings.weight", "word"),
    *same("embeddings.position_embeddings.weight", "position"),
    *same("embeddings.token_type_embeddings.weight", "type"),
    *norm("embeddings.LayerNorm", "ln"),
    *linear("encoder.layer.{i}.attention.self.query", "layers/{i}/attn/q"),
    *linear("encoder.layer.{i}.attention.self.key", "layers/{i}/attn/k"),
    *linear("encoder.layer.{i}.attention.self.value", "layers/{i}/attn/v"),
    *linear("encoder.layer.{i}.attention.output.dense", "layers/{i}/attn/o", inputs=2),
    *norm("encoder.layer.{i}.attention.output.LayerNorm", "layers/{i}/ln_1"),
    *linear("encoder.layer.{i}.intermediate.dense", "layers/{i}/mlp/up"),
    *linear("encoder.layer.{i}.output.dense", "layers/{i}/mlp/down"),
    *norm("encoder.layer.{i}.output.LayerNorm", "layers/{i}/ln_2"),
    *linear("pooler.dense", "pooler/dense"),
)
NAMES = Names(
    classes("Bert", "masked-lm", "features", "pretraining", "next-sentence", *LABELS, causal_lm="BertLMHeadModel"),
    base="bert",
    body=BODY,
    heads=(
        *linear("cls.predictions.transform.dense", "transform/dense"),
        *norm("cls.predictions.transform.LayerNorm", "transform/norm"),
        *same("cls.predictions.bias", "vocabulary/bias"),
        *linear("cls.seq_relationship", "relation/out"),
        *linear("classifier", "classifier/out"),
        *linear("qa_outputs", "span/out"),
    ),
    tied={
        "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    optional=("pooler",),
)
