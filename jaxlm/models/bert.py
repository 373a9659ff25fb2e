"""BERT (Devlin et al. 2019): a post-norm encoder with learned positions and token types; with `is_decoder`, a decoder.

The assembly is in `models/encoder.py`. Read next: `models/roberta.py`, which changes positions and heads.
"""

import dataclasses

from jaxlm.frozen import Frozen
from jaxlm.models.encoder import Encoder, dims
from jaxlm.models.names import LABELS, Names, Row, classes, linear, norm, same

__all__ = ["EMBEDDINGS", "LAYERS", "NAMES", "SIZES", "Bert", "Config", "dims", "tied", "vocabulary"]


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


class Bert(Encoder):
    """The encoder as it is. The head of masked-lm is dense, hidden_act, norm, the output embedding and its bias."""


def vocabulary(decoder: str, bias: str | None = None) -> tuple[Row, ...]:
    """The end of a vocabulary's head: untied, a table and its bias; tied, the bias alone, which may have a name of its own."""
    own = *same(f"{decoder}.weight", "decoder/table"), *same(f"{decoder}.bias", "decoder/bias")
    rest = same(f"{decoder}.bias", "vocabulary/bias") if bias is None else (*same(bias, "vocabulary/bias"), *same(bias, "decoder/spare"))
    return *own, *rest


def tied(decoder: str, bias: str) -> dict[str, str]:
    """What a tied vocabulary's head may leave out or repeat."""
    return {f"{decoder}.weight": "embeddings.word_embeddings.weight", f"{decoder}.bias": bias}


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
    tied=tied("cls.predictions.decoder", "cls.predictions.bias"),
    optional=("pooler",),
)
