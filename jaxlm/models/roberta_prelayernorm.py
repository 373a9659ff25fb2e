"""RoBERTa-PreLayerNorm (Wettig et al. 2023): RoBERTa with the norms in front of attention and mlp, and one at the end."""

import dataclasses

from jaxlm.frozen import Frozen
from jaxlm.layers.block import Block
from jaxlm.models import bert, roberta
from jaxlm.models.names import LABELS, Names, classes, linear, norm
from jaxlm.models.roberta import Roberta, dims

__all__ = ["NAMES", "SIZES", "Config", "RobertaPreLayerNorm", "dims"]


@dataclasses.dataclass(frozen=True)
class Config(roberta.Config):
    """Hugging Face's config.json of RoBERTa-PreLayerNorm."""

    extra: Frozen = Frozen()
    model_type: str = "roberta-prelayernorm"


SIZES = {
    "efficient_mlm": Config(
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
    ),
}  # fmt: skip


class RobertaPreLayerNorm(Roberta):
    """RoBERTa of pre-norm blocks, whose sum is normed at the end."""

    final_norm = True

    def _block(self) -> Block:
        attn, ln_1, mlp, ln_2 = self._halves()
        return Block(ln_1, attn, ln_2, mlp, self.config.hidden_dropout_prob, parent=None)


NAMES = Names(
    classes("RobertaPreLayerNorm", "masked-lm", "features", *LABELS, "causal-lm"),
    base="roberta_prelayernorm",
    body=(
        *bert.EMBEDDINGS,
        *norm("encoder.layer.{i}.attention.LayerNorm", "layers/{i}/ln_1"),
        *linear("encoder.layer.{i}.attention.self.query", "layers/{i}/attn/q"),
        *linear("encoder.layer.{i}.attention.self.key", "layers/{i}/attn/k"),
        *linear("encoder.layer.{i}.attention.self.value", "layers/{i}/attn/v"),
        *linear("encoder.layer.{i}.attention.output.dense", "layers/{i}/attn/o", inputs=2),
        *norm("encoder.layer.{i}.intermediate.LayerNorm", "layers/{i}/ln_2"),
        *linear("encoder.layer.{i}.intermediate.dense", "layers/{i}/mlp/up"),
        *linear("encoder.layer.{i}.output.dense", "layers/{i}/mlp/down"),
        *norm("LayerNorm", "ln_f"),
        *linear("pooler.dense", "pooler/dense"),
    ),
    heads=roberta.HEADS,
    tied=roberta.NAMES.tied,
    optional=("pooler",),
)
