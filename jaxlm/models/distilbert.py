"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler, under other names.

Read next: `models/modernbert.py`.
"""

import dataclasses

from jaxlm.frozen import Frozen
from jaxlm.layers.heads import EncoderHeads, Transform
from jaxlm.models.bert import vocabulary
from jaxlm.models.encoder import Encoder, dims
from jaxlm.models.names import LABELS, Names, classes, linear, norm, same

__all__ = ["NAMES", "SETTINGS", "SIZES", "Config", "DistilBert", "dims"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of DistilBERT, with BERT's names as properties for the assembly."""

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

    # What the family leaves no choice about: no fields.
    layer_norm_eps = 1e-12
    type_vocab_size = 0
    is_decoder = False

    hidden_size = property(lambda self: self.dim)
    num_hidden_layers = property(lambda self: self.n_layers)
    num_attention_heads = property(lambda self: self.n_heads)
    intermediate_size = property(lambda self: self.hidden_dim)
    hidden_act = property(lambda self: self.activation)
    hidden_dropout_prob = property(lambda self: self.dropout)
    attention_probs_dropout_prob = property(lambda self: self.attention_dropout)


SIZES = {"distilbert-base": Config(), "distilbert-base-multilingual": Config(119547)}


class DistilBert(Encoder):
    """The encoder; classification of rows reads relu(first token W + b), which is `Output.pooled` there."""

    spare = False

    def _pool(self, hidden, mask):
        if self.task not in ("sequence-classification", "multiple-choice"):
            return None
        return Transform(hidden.shape[-1], "relu", None, self._normal, self._dtype, name="pooler")(hidden[:, 0])

    def _heads(self, hidden, pooled, word, choices, key):
        config = self.config
        if self.task == "masked-lm":
            return self._vocabulary(hidden, word, config.activation), None
        rate = config.dropout if pooled is None else config.seq_classif_dropout
        heads = EncoderHeads(config.num_labels, rate, choices, self._normal, config.qa_dropout)
        return heads.logits(self.task, hidden, pooled, key), None


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
