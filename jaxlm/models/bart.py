"""BART (Lewis et al. 2020): a post-norm encoder-decoder with learned positions.

Read next: `models/mbart.py`, `models/marian.py`, `models/pegasus.py`, which change norms, positions and tables.
"""

import dataclasses

from jaxlm.frozen import Frozen
from jaxlm.models.encoder_decoder import SETTINGS, EncoderDecoder, Style, dims  # noqa: F401 (a family has SETTINGS and dims)
from jaxlm.models.names import Names, Row, classes, linear, norm, same


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of BART."""

    vocab_size: int | None = 50265
    max_position_embeddings: int = 1024
    d_model: int = 1024
    encoder_layers: int = 12
    decoder_layers: int = 12
    encoder_attention_heads: int = 16
    decoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_ffn_dim: int = 4096
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    classifier_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False
    tie_word_embeddings: bool = True
    eos_token_id: int | None = 2
    decoder_start_token_id: int | None = 2
    num_labels: int = 3
    extra: Frozen = Frozen()
    model_type: str = "bart"


BASE = {
    f"{side}_{key}": size for side in ("encoder", "decoder") for key, size in (("layers", 6), ("attention_heads", 12), ("ffn_dim", 3072))
}
SIZES = {"bart-base": Config(d_model=768, **BASE), "bart-large": Config()}


class Bart(EncoderDecoder):
    """In the style of 2017, with a norm of the embeddings."""

    style: Style = Style(pre_norm=False, ln_in=True)
    learned: bool = True


def rows_of(side: str) -> tuple[Row, ...]:
    """The name table of the "encoder" or "decoder" of BART and its relatives."""
    theirs, ours = f"{side}.layers.{{i}}", f"{side}/layers/{{i}}"
    attention = lambda name, part: (
        *(row for letter in "qkv" for row in linear(f"{theirs}.{name}.{letter}_proj", f"{ours}/{part}/{letter}")),
        *linear(f"{theirs}.{name}.out_proj", f"{ours}/{part}/o", inputs=2),
        *norm(f"{theirs}.{name}_layer_norm", f"{ours}/{'ln_1' if part == 'attn' else 'ln_cross'}"),
    )
    return (
        *same(f"{side}.embed_positions.weight", f"{side}_position"),
        *norm(f"{side}.layernorm_embedding", f"{side}/ln_in"),
        *attention("self_attn", "attn"),
        *attention("encoder_attn", "cross"),
        *linear(f"{theirs}.fc1", f"{ours}/mlp/up"),
        *linear(f"{theirs}.fc2", f"{ours}/mlp/down"),
        *norm(f"{theirs}.final_layer_norm", f"{ours}/ln_2"),
        *norm(f"{side}.layer_norm", f"{side}/ln_out"),
    )


EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
NAMES = Names(
    classes("Bart", "seq2seq-lm", "features", "sequence-classification", "question-answering"),
    base="model",
    body=(*same("shared.weight", "shared"), *rows_of("encoder"), *rows_of("decoder")),
    heads=(
        *same("lm_head.weight", "lm_head"),
        *same("final_logits_bias", "final_logits_bias", leading=1),
        *linear("classification_head.dense", "classifier/dense"),
        *linear("classification_head.out_proj", "classifier/out"),
        *linear("qa_outputs", "span/out"),
    ),
    tied=dict.fromkeys(("lm_head.weight", *EMBEDDINGS), "shared.weight"),
    copies=EMBEDDINGS,
    optional=("final_logits_bias",),
)
