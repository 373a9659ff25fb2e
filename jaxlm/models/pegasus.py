"""Pegasus (Zhang et al. 2020): BART's parts with norms in front, a last norm on either side, and sinusoidal positions."""

import dataclasses

import numpy as np

from jaxlm.models import bart
from jaxlm.models.encoder_decoder import SETTINGS, EncoderDecoder, Style, dims  # noqa: F401 (a family has SETTINGS and dims)
from jaxlm.models.names import classes
from jaxlm.ops.positions import sinusoids


@dataclasses.dataclass(frozen=True)
class Config(bart.Config):
    """Hugging Face's config.json of Pegasus."""

    eos_token_id: int | None = 1
    decoder_start_token_id: int | None = 0
    num_labels: int = 2
    model_type: str = "pegasus"


LARGE = {"vocab_size": 96103, "encoder_layers": 16, "decoder_layers": 16, "activation_function": "relu", "scale_embedding": True}
SIZES = {"pegasus-large": Config(attention_dropout=0.1, activation_dropout=0.1, **LARGE)}


class Pegasus(EncoderDecoder):
    """As BART, in another style, with sinusoidal positions."""

    style: Style = Style(pre_norm=True, ln_out=True)


def positions_of(config: bart.Config) -> np.ndarray:
    """The fixed positions that a checkpoint of Pegasus or Marian may hold."""
    return sinusoids(config.max_position_embeddings, config.d_model, interleaved=False)


NAMES = dataclasses.replace(
    bart.NAMES,
    architectures=classes("Pegasus", "seq2seq-lm", "features"),
    computed={f"{side}.embed_positions.weight": positions_of for side in ("encoder", "decoder")},
)
