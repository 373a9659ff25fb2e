"""ELECTRA (Clark et al. 2020): BERT over narrow embeddings, pretrained to find replaced tokens; its generator is a masked LM.

Read next: `models/albert.py`, which shares layers.
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
from jaxlm.layers.encoder import chosen, either_sight, layer_parts, tied_or_own_table, vocabulary_logits
from jaxlm.layers.heads import Classifier, DeepClassifier, EncoderHeads, Transform, as_rows, first_token
from jaxlm.layers.linear import Linear, Normal
from jaxlm.layers.norm import LayerNorm
from jaxlm.models import bert
from jaxlm.models.bert import dims
from jaxlm.models.names import LABELS, Names, classes, linear, norm, vocabulary
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.ops.dropout import dropout, split
from jaxlm.overrides import choose

__all__ = ["NAMES", "SIZES", "Config", "Electra", "dims"]


@dataclasses.dataclass(frozen=True)
class Config(bert.Config):
    """Hugging Face's config.json of ELECTRA: BERT's keys, the width of the embeddings, and those of multiple choice's summary."""

    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    embedding_size: int = 128
    summary_type: str = "first"
    summary_activation: str | None = "gelu"
    summary_last_dropout: float = 0.1
    extra: Frozen = Frozen()
    model_type: str = "electra"


BASE = Config(hidden_size=768, num_attention_heads=12, intermediate_size=3072, embedding_size=768)
LARGE = Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, embedding_size=1024)
SIZES = {
    "electra-small-discriminator": Config(),
    "electra-base-discriminator": BASE,
    "electra-large-discriminator": LARGE,
    "electra-base-generator": dataclasses.replace(BASE, hidden_size=256, num_attention_heads=4, intermediate_size=1024),
    "electra-large-generator": dataclasses.replace(LARGE, hidden_size=256, num_attention_heads=4, intermediate_size=1024),
}


class Electra(nn.Module):
    """Tokens [B, T] (multiple choice: [B, C, T]) to hidden states [B, T, D] and the task's logits, drawn as in `bert.Bert`.

    Logits of "pretraining" are [B, T]: is this token a replaced one (above 0)?
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
        table = lambda name, rows, axis=None: self.param(name, init, (rows, config.embedding_size), jnp.float32, (axis, "embed"))
        choices, keys = tokens.shape[:-1], split(key, 3)
        tokens, mask, token_types, segments, positions = as_rows(tokens, mask, token_types, segments, positions)
        check_length(tokens, config.max_position_embeddings, "max_position_embeddings")
        sight, positions, cache = either_sight(config.is_decoder, tokens, mask, segments, positions, cache)

        word = table("word", config.vocab_size, "vocab")
        x = lookup(word, tokens) + lookup(table("position", config.max_position_embeddings), positions)
        x = x + lookup(table("type", config.type_vocab_size), jnp.zeros_like(tokens) if token_types is None else token_types)
        x = dropout(LayerNorm(config.layer_norm_eps, dtype, name="ln")(x), config.hidden_dropout_prob, keys[0], HIDDEN)
        if config.embedding_size != config.hidden_size:
            x = Linear((config.hidden_size,), ("embed", None), init_kernel=init, dtype=dtype, name="project")(x)
        parts = layer_parts(dims(config), config.hidden_act, config.layer_norm_eps, config.attention_probs_dropout_prob, init, self.compute)
        block = PostBlock(*parts, config.hidden_dropout_prob, parent=None)
        layers = Layers((block,) * config.num_hidden_layers, self.compute.layout, self.compute.remat)
        params = self.param("layers", layers.init, x)
        hidden, layer_caches = layers.apply(params, x, sight, layers_of(cache), keys[1])

        if self.task in ("masked-lm", "causal-lm"):
            ln = LayerNorm(config.layer_norm_eps, dtype, parent=None)
            x = Transform(config.embedding_size, "gelu", ln, init, dtype, name="transform")(chosen(hidden, places))
            logits = vocabulary_logits(x, word, config.tie_word_embeddings, init)
        else:
            logits = self._labels(hidden, segments, choices, {"init_kernel": init, "dtype": dtype}, keys[2])
        return Output(hidden, logits, cache=leave(cache, layer_caches, tokens.shape[1]))

    def _labels(self, hidden, segments, choices, free, key):
        """The logits of the tasks that are not over the vocabulary."""
        config = self.config
        match self.task:
            case "pretraining":
                return DeepClassifier(1, config.hidden_act, name="discriminator", **free)(hidden)[..., 0]
            case "sequence-classification":
                return DeepClassifier(config.num_labels, "gelu", config.head_dropout, name="sequence", **free)(
                    first_token(hidden, segments), key
                )
            case "multiple-choice":
                choose("summary_type", config.summary_type, ("first",))
                summary = Transform(config.hidden_size, config.summary_activation or "linear", name="summary", **free)
                x = summary(first_token(hidden, segments))
                x = dropout(x, config.summary_last_dropout, key, ("batch", *[None] * (x.ndim - 1)))
                return Classifier(1, name="classifier", **free)(x).reshape(choices if x.ndim == 2 else x.shape[:2])
        return EncoderHeads(config.num_labels, config.head_dropout, choices, free["init_kernel"]).logits(self.task, hidden, None, key)


NAMES = Names(
    classes("Electra", "masked-lm", "features", "pretraining", *LABELS, "causal-lm"),
    base="electra",
    body=(*bert.EMBEDDINGS, *linear("embeddings_project", "project"), *bert.LAYERS),
    heads=(
        *linear("generator_predictions.dense", "transform/dense"),
        *norm("generator_predictions.LayerNorm", "transform/norm"),
        *vocabulary("generator_lm_head"),
        *linear("discriminator_predictions.dense", "discriminator/dense"),
        *linear("discriminator_predictions.dense_prediction", "discriminator/out"),
        *linear("classifier.dense", "sequence/dense"),
        *linear("classifier.out_proj", "sequence/out"),
        *linear("sequence_summary.summary", "summary/dense"),
        *linear("classifier", "classifier/out"),
        *linear("qa_outputs", "span/out"),
    ),
    tied={"generator_lm_head.weight": "embeddings.word_embeddings.weight"},
)
