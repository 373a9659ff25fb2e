"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler, under other names.

Read next: `models/modernbert.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.block import HIDDEN, Layers
from jaxlm.layers.blocks import PostBlock
from jaxlm.layers.embed import check_length, lookup
from jaxlm.layers.encoder import chosen, layer_parts, tied_or_own_table, vocabulary_logits
from jaxlm.layers.heads import EncoderHeads, Transform, as_rows, first_token
from jaxlm.layers.linear import Normal
from jaxlm.layers.norm import LayerNorm
from jaxlm.layers.sight import encoder_sight, refuse
from jaxlm.models.names import LABELS, Names, classes, linear, norm, same, vocabulary
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
from jaxlm.ops.dropout import dropout, split

EPSILON = 1e-12  # of every norm


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of DistilBERT."""

    vocab_size: int | None = 30522
    max_position_embeddings: int = 512
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    initializer_range: float = 0.02
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    tie_word_embeddings: bool = True
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "distilbert"


SIZES = {"distilbert-base": Config(), "distilbert-base-multilingual": Config(119547)}


class DistilBert(nn.Module):
    """Tokens [B, T] (multiple choice: [B, C, T]) to hidden states [B, T, D] and the task's logits, drawn as in `bert.Bert`.

    Classification of rows reads relu(first token W + b), which is `Output.pooled` there.
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
        """The arguments are every family's (`models/__init__.py`); there are no token types and no cache."""
        config, dtype, init = self.config, jnp.dtype(self.compute.dtype), Normal(self.config.initializer_range)
        refuse(config.model_type, token_types=token_types, cache=cache)
        choices, keys = tokens.shape[:-1], split(key, 3)
        tokens, mask, segments, positions = as_rows(tokens, mask, segments, positions)
        check_length(tokens, config.max_position_embeddings, "max_position_embeddings")
        sight, positions = encoder_sight(tokens, mask, segments, positions)

        word = self.param("word", init, (config.vocab_size, config.dim), jnp.float32, ("vocab", "embed"))
        position = self.param("position", init, (config.max_position_embeddings, config.dim), jnp.float32, (None, "embed"))
        x = lookup(word, tokens) + lookup(position, positions)
        x = dropout(LayerNorm(EPSILON, dtype, name="ln")(x), config.dropout, keys[0], HIDDEN)
        parts = layer_parts(dims(config), config.activation, EPSILON, config.attention_dropout, init, self.compute)
        layers = Layers((PostBlock(*parts, 0.0, config.dropout, parent=None),) * config.n_layers, self.compute.layout, self.compute.remat)
        params = self.param("layers", layers.init, x)
        hidden, _ = layers.apply(params, x, sight, None, keys[1])

        pooled, rate = None, config.dropout
        if self.task in ("sequence-classification", "multiple-choice"):
            pooled = Transform(config.dim, "relu", None, init, dtype, name="pooler")(first_token(hidden, segments))
            rate = config.seq_classif_dropout
        if self.task == "masked-lm":
            ln = LayerNorm(EPSILON, dtype, parent=None)
            x = Transform(config.dim, config.activation, ln, init, dtype, name="transform")(chosen(hidden, places))
            logits = vocabulary_logits(x, word, config.tie_word_embeddings, init)
        else:
            heads = EncoderHeads(config.num_labels, rate, choices, init, config.qa_dropout)
            logits = heads.logits(self.task, hidden, pooled, keys[2])
        return Output(hidden, logits, pooled)


def dims(config: Config) -> Dims:
    """The sizes of the model."""
    width, heads = config.dim, config.n_heads
    return Dims(width, config.n_layers, heads, heads, width // heads, config.hidden_dim, config.max_position_embeddings)


SETTINGS = {"vocab": "vocab_size", "heads": "n_heads", "kv_heads": "n_heads", "mlp": "hidden_dim", "embed": "dim"}
NAMES = Names(
    classes("DistilBert", "masked-lm", "features", *LABELS),
    base="distilbert",
    body=(
        *same("embeddings.word_embeddings.weight", "word"),
        *same("embeddings.position_embeddings.weight", "position"),
        *norm("embeddings.LayerNorm", "ln"),
        *linear("transformer.layer.{i}.attention.q_lin", "layers/{i}/attn/q"),
        *linear("transformer.layer.{i}.attention.k_lin", "layers/{i}/attn/k"),
        *linear("transformer.layer.{i}.attention.v_lin", "layers/{i}/attn/v"),
        *linear("transformer.layer.{i}.attention.out_lin", "layers/{i}/attn/o", inputs=2),
        *norm("transformer.layer.{i}.sa_layer_norm", "layers/{i}/ln_1"),
        *linear("transformer.layer.{i}.ffn.lin1", "layers/{i}/mlp/up"),
        *linear("transformer.layer.{i}.ffn.lin2", "layers/{i}/mlp/down"),
        *norm("transformer.layer.{i}.output_layer_norm", "layers/{i}/ln_2"),
    ),
    heads=(
        *linear("vocab_transform", "transform/dense"),
        *norm("vocab_layer_norm", "transform/norm"),
        *vocabulary("vocab_projector"),
        *linear("pre_classifier", "pooler/dense"),
        *linear("classifier", "classifier/out"),
        *linear("qa_outputs", "span/out"),
    ),
    tied={"vocab_projector.weight": "embeddings.word_embeddings.weight"},
)
