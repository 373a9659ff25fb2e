"""mBART (Liu et al. 2020): BART with norms in front, a last norm on either side, and the language at the end of each text."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxlm.layers.sight import refuse
from jaxlm.models import bart
from jaxlm.models.encoder_decoder import SETTINGS, Style, dims  # noqa: F401 (a family has SETTINGS and dims)
from jaxlm.models.names import classes
from jaxlm.ops.positions import shift_right


@dataclasses.dataclass(frozen=True)
class Config(bart.Config):
    """Hugging Face's config.json of mBART."""

    decoder_start_token_id: int | None = None
    num_labels: int = 2
    model_type: str = "mbart"


SIZES = {
    "mbart-large-cc25": Config(vocab_size=250027, scale_embedding=True),
    "mbart-large-50": Config(vocab_size=250054, scale_embedding=True),
}


class MBart(bart.Bart):
    """As BART, in another style."""

    style: Style = Style(pre_norm=True, ln_in=True, ln_out=True)

    def shifted(self, tokens: Any, mask: Any, segments: Any) -> Any:
        """The text as targets: its last token, which names the language, comes first."""
        refuse("mbart without targets", segments=segments)
        places = jnp.arange(tokens.shape[1])[None]
        last = places.max(1) if mask is None else jnp.where(mask, places, -1).max(1)
        start = jnp.where(places == last[:, None], tokens, 0).sum(1, keepdims=True)
        return shift_right(tokens, start, jnp.ones_like(tokens) if mask is None else mask)


NAMES = dataclasses.replace(
    bart.NAMES, architectures=classes("MBart", "seq2seq-lm", "features", "sequence-classification", "question-answering")
)
