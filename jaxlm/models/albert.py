"""ALBERT (Lan et al. 2020): BERT over narrow embeddings, whose layers share their parameters in groups.

Read next: `models/distilbert.py`.
"""

import dataclasses

import flax.linen as nn
from jaxtyping import Array, Float

from jaxlm.frozen import Frozen
from jaxlm.layers.block import Layers
from jaxlm.layers.blocks import PostBlock
from jaxlm.layers.heads import VOCABULARY, Classifier, EncoderHeads
from jaxlm.layers.linear import Linear
from jaxlm.layers.sight import Sight
from jaxlm.models import bert
from jaxlm.models.encoder import Encoder, dims
from jaxlm.models.names import LABELS, Names, classes, linear, norm
from jaxlm.ops.dropout import fold

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

    is_decoder = False  # no field: the assembly's question, answered

    @property
    def classifier_dropout(self) -> float | None:
        """BERT's name."""
        return self.classifier_dropout_prob


SIZES = {
    "albert-base-v2": Config(hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    "albert-large-v2": Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
    "albert-xlarge-v2": Config(hidden_size=2048, num_hidden_layers=24, num_attention_heads=16, intermediate_size=8192),
    "albert-xxlarge-v2": Config(),
}


class Group(nn.Module):
    """Blocks one after the other, as one layer."""

    blocks: tuple[nn.Module, ...]

    def __call__(self, x: Float[Array, "B T D"], sight: Sight, cache: None = None, key: Array | None = None):
        """Returns x [B, T, D] and no cache."""
        for i, block in enumerate(self.blocks):
            x, _ = block(x, sight, None, fold(key, i))
        return x, None


class Albert(Encoder):
    """The encoder over projected embeddings; layer i of L is that of group i G // L. "relation" says: are the texts in order?"""

    pooling = ("features", "pretraining", "sequence-classification", "multiple-choice")

    def _embed(self, tokens, token_types, positions, key):
        word, x = super()._embed(tokens, token_types, positions, key)
        return word, Linear((self.config.hidden_size,), ("embed", None), name="project", **self._free)(x)

    def _layers(self) -> Layers:
        config = self.config
        group = Group(tuple(self._block() for _ in range(config.inner_group_num)), parent=None)
        groups, count = config.num_hidden_groups, config.num_hidden_layers
        order = tuple(int(i / (count / groups)) for i in range(count))
        return Layers((group,) * groups, self.compute.layout, self.compute.remat, order=order)

    def _block(self) -> PostBlock:
        return PostBlock(*self._halves(), self.config.hidden_dropout_prob, mlp_dropout=0.0, parent=None)

    def _heads(self, hidden, pooled, word, choices, key):
        config = self.config
        if self.task not in VOCABULARY:
            return EncoderHeads(config.num_labels, self._rate, choices, self._normal).logits(self.task, hidden, pooled, key), None
        relation = None
        if self.task == "pretraining":
            relation = Classifier(config.num_labels, self._rate, name="relation", **self._free)(pooled, key)
        return self._vocabulary(hidden, word, config.hidden_act), relation


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
        *bert.vocabulary("predictions.decoder", "predictions.bias"),
        *linear("sop_classifier.classifier", "relation/out"),
        *linear("classifier", "classifier/out"),
        *linear("qa_outputs", "span/out"),
    ),
    tied=bert.tied("predictions.decoder", "predictions.bias"),
    optional=("pooler",),
)
