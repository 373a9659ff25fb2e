"""ALBERT (Lan et al. 2020): BERT over narrow embeddings, whose layers share their parameters in groups.

Read next: `models/distilbert.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.block import HIDDEN, Layers
from jaxlm.layers.blocks import Group, PostBlock
from jaxlm.layers.embed import check_length, lookup
from jaxlm.layers.encoder import chosen, layer_parts, pool, tied_or_own_table, vocabulary_logits
from jaxlm.layers.heads import VOCABULARY, Classifier, EncoderHeads, Transform, as_rows
from jaxlm.layers.linear import Linear, Normal
from jaxlm.layers.norm import LayerNorm
from jaxlm.layers.sight import encoder_sight, refuse
from jaxlm.models import bert
from jaxlm.models.bert import dims
from jaxlm.models.names import LABELS, Names, classes, linear, norm, tied_vocabulary, vocabulary
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.ops.dropout import dropout, split

__all__ = ["NAMES", "SIZES", "Albert", "Config", "dims"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of ALBERT; `is_decoder` is not among its keys."""

    vocab_size: int | None = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    inner_group_num: int = 1
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    classifier_dropout_prob: float | None = 0.1
    tie_word_embeddings: bool = True
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "albert"


SIZES = {
    "albert-base-v2": Config(hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    "albert-large-v2": Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
    "albert-xlarge-v2": Config(hidden_size=2048, num_hidden_layers=24, num_attention_heads=16, intermediate_size=8192),
    "albert-xxlarge-v2": Config(),
}


POOLED = ("features", "pretraining", "sequence-classification", "multiple-choice")


class Albert(nn.Module):
    """Tokens to hidden states, the pooled first token, and the task's logits, drawn and shaped as in `bert.Bert`.

    Layer i of L is that of group i G // L. "relation" says: are the texts in order?
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
        """The arguments are every family's (`models/__init__.py`); there is no cache."""
        config, dtype, init = self.config, jnp.dtype(self.compute.dtype), Normal(self.config.initializer_range)
        table = lambda name, rows, axis=None: self.param(name, init, (rows, config.embedding_size), jnp.float32, (axis, "embed"))
        refuse(config.model_type, cache=cache)
        choices, keys = tokens.shape[:-1], split(key, 3)
        tokens, mask, token_types, segments, positions = as_rows(tokens, mask, token_types, segments, positions)
        check_length(tokens, config.max_position_embeddings, "max_position_embeddings")
        sight, positions = encoder_sight(tokens, mask, segments, positions)

        word = table("word", config.vocab_size, "vocab")
        x = lookup(word, tokens) + lookup(table("position", config.max_position_embeddings), positions)
        x = x + lookup(table("type", config.type_vocab_size), jnp.zeros_like(tokens) if token_types is None else token_types)
        x = dropout(LayerNorm(config.layer_norm_eps, dtype, name="ln")(x), config.hidden_dropout_prob, keys[0], HIDDEN)
        x = Linear((config.hidden_size,), ("embed", None), init_kernel=init, dtype=dtype, name="project")(x)
        parts = dims(config), config.hidden_act, config.layer_norm_eps, config.attention_probs_dropout_prob, init, self.compute
        block = lambda: PostBlock(*layer_parts(*parts), config.hidden_dropout_prob, mlp_dropout=0.0, parent=None)
        group = Group(tuple(block() for _ in range(config.inner_group_num)), parent=None)  # Flax shares what is given twice
        order = tuple(int(i / (config.num_hidden_layers / config.num_hidden_groups)) for i in range(config.num_hidden_layers))
        layers = Layers((group,) * config.num_hidden_groups, self.compute.layout, self.compute.remat, order=order)
        params = self.param("layers", layers.init, x)
        hidden, _ = layers.apply(params, x, sight, None, keys[1])

        pooled, relation = pool(self, POOLED, hidden, init, segments), None
        rate = config.hidden_dropout_prob if config.classifier_dropout_prob is None else config.classifier_dropout_prob
        if self.task == "pretraining":
            relation = Classifier(config.num_labels, rate, init_kernel=init, dtype=dtype, name="relation")(pooled, keys[2])
        if self.task in VOCABULARY:
            ln = LayerNorm(config.layer_norm_eps, dtype, parent=None)
            x = Transform(config.embedding_size, config.hidden_act, ln, init, dtype, name="transform")(chosen(hidden, places))
            logits = vocabulary_logits(x, word, config.tie_word_embeddings, init, spare=True)
        else:
            logits = EncoderHeads(config.num_labels, rate, choices, init).logits(self.task, hidden, pooled, keys[2])
        return Output(hidden, logits, pooled, relation)


LAYER, OURS = "encoder.albert_layer_groups.{i}.albert_layers.{j}", "layers/{i}/blocks_{j}"
NAMES = Names(
    classes("Albert", "masked-lm", "features", "pretraining", *LABELS),
    base="albert",
    body=(
        *bert.EMBEDDINGS,
        *linear("encoder.embedding_hidden_mapping_in", "project"),
        *linear(f"{LAYER}.attention.query", f"{OURS}/attn/q"),
        *linear(f"{LAYER}.attention.key", f"{OURS}/attn/k"),
        *linear(f"{LAYER}.attention.value", f"{OURS}/attn/v"),
        *linear(f"{LAYER}.attention.dense", f"{OURS}/attn/o", inputs=2),
        *norm(f"{LAYER}.attention.LayerNorm", f"{OURS}/ln_1"),
        *linear(f"{LAYER}.ffn", f"{OURS}/mlp/up"),
        *linear(f"{LAYER}.ffn_output", f"{OURS}/mlp/down"),
        *norm(f"{LAYER}.full_layer_layer_norm", f"{OURS}/ln_2"),
        *linear("pooler", "pooler/dense"),
    ),
    heads=(
        *linear("predictions.dense", "transform/dense"),
        *norm("predictions.LayerNorm", "transform/norm"),
        *vocabulary("predictions.decoder", "predictions.bias"),
        *linear("sop_classifier.classifier", "relation/out"),
        *linear("classifier", "classifier/out"),
        *linear("qa_outputs", "span/out"),
    ),
    tied=tied_vocabulary("predictions.decoder", "predictions.bias"),
    optional=("pooler",),
)
