"""RoBERTa (Liu et al. 2019): BERT whose positions start behind that of padding, with heads of its own.

Read next: `models/roberta_prelayernorm.py`.
"""

import dataclasses

import jax.numpy as jnp

from jaxlm.frozen import Frozen
from jaxlm.layers.embed import check_length
from jaxlm.layers.heads import VOCABULARY, DeepClassifier, EncoderHeads
from jaxlm.models import bert, encoder
from jaxlm.models.encoder import Encoder
from jaxlm.models.names import LABELS, Names, classes, linear, norm
from jaxlm.models.output import Dims
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


class Roberta(Encoder):
    """The encoder whose tokens read row pad_token_id + 1 + position of the table of positions; padding reads row pad_token_id.

    `positions` count from 0 as in every family. Without a mask, tokens that are pad_token_id count for nothing, but are seen.
    """

    pooling = ("features", "multiple-choice")

    def _see(self, tokens, mask, segments, positions, cache):
        check_length(tokens, dims(self.config).context, "max_position_embeddings - pad_token_id - 1")
        real = tokens != self.config.pad_token_id if mask is None else mask
        if all(given is None for given in (mask, segments, positions, cache)):
            positions = from_mask(real)
        sight, positions, cache = super()._see(tokens, mask, segments, positions, cache)
        return sight, jnp.where(real, positions, -1) + self.config.pad_token_id + 1, cache

    def _heads(self, hidden, pooled, word, choices, key):
        config = self.config
        if self.task in VOCABULARY:
            return self._vocabulary(hidden, word, "gelu"), None
        if self.task == "sequence-classification":
            return DeepClassifier(config.num_labels, "tanh", self._rate, name="sequence", **self._free)(hidden[:, 0], key), None
        rate = config.hidden_dropout_prob if self.task == "multiple-choice" else self._rate
        return EncoderHeads(config.num_labels, rate, choices, self._normal).logits(self.task, hidden, pooled, key), None


def dims(config: Config) -> Dims:
    """The sizes of the model; its context is the rows of the table of positions that tokens can have."""
    return dataclasses.replace(encoder.dims(config), context=config.max_position_embeddings - config.pad_token_id - 1)


HEADS = (
    *linear("lm_head.dense", "transform/dense"),
    *norm("lm_head.layer_norm", "transform/norm"),
    *bert.vocabulary("lm_head.decoder", "lm_head.bias"),
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
    tied=bert.tied("lm_head.decoder", "lm_head.bias"),
    optional=("pooler",),
)
