"""ELECTRA (Clark et al. 2020): BERT over narrow embeddings, pretrained to find replaced tokens; its generator is a masked LM.

Read next: `models/albert.py`, which shares layers.
"""

import dataclasses

from jaxlm.config import choose
from jaxlm.frozen import Frozen
from jaxlm.layers.heads import Classifier, DeepClassifier, EncoderHeads, Transform
from jaxlm.layers.linear import Linear
from jaxlm.models import bert
from jaxlm.models.encoder import Encoder, dims
from jaxlm.models.names import LABELS, Names, classes, linear, norm
from jaxlm.ops.dropout import dropout

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


class Electra(Encoder):
    """The encoder over projected embeddings. Logits of "pretraining" are [B, T]: is this token a replaced one (above 0)?"""

    pooling, spare = (), False

    def _embed(self, tokens, token_types, positions, key):
        config = self.config
        word, x = super()._embed(tokens, token_types, positions, key)
        if config.embedding_size == config.hidden_size:
            return word, x
        return word, Linear((config.hidden_size,), ("embed", None), name="project", **self._free)(x)

    def _heads(self, hidden, pooled, word, choices, key):
        config = self.config
        match self.task:
            case "pretraining":
                return DeepClassifier(1, config.hidden_act, name="discriminator", **self._free)(hidden)[..., 0], None
            case "masked-lm" | "causal-lm":
                return self._vocabulary(hidden, word, "gelu"), None
            case "sequence-classification":
                return DeepClassifier(config.num_labels, "gelu", self._rate, name="sequence", **self._free)(hidden[:, 0], key), None
            case "multiple-choice":
                return Classifier(1, name="classifier", **self._free)(self._summary(hidden[:, 0], key)).reshape(choices), None
        return EncoderHeads(config.num_labels, self._rate, choices, self._normal).logits(self.task, hidden, None, key), None

    def _summary(self, first, key):
        config = self.config
        choose("summary_type", config.summary_type, ("first",))
        activation = config.summary_activation or "linear"
        x = Transform(first.shape[-1], activation, None, self._normal, self._dtype, name="summary")(first)
        return dropout(x, config.summary_last_dropout, key, ("batch", None))


NAMES = Names(
    classes("Electra", "masked-lm", "features", "pretraining", *LABELS, "causal-lm"),
    base="electra",
    body=(*bert.EMBEDDINGS, *linear("embeddings_project", "project"), *bert.LAYERS),
    heads=(
        *linear("generator_predictions.dense", "transform/dense"),
        *norm("generator_predictions.LayerNorm", "transform/norm"),
        *bert.vocabulary("generator_lm_head"),
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
