"""mT5 (Xue et al. 2021): T5 1.1 with a vocabulary for 101 languages."""

import dataclasses

from jaxlm.models import t5
from jaxlm.models.names import classes
from jaxlm.models.t5 import NEWER, SETTINGS, T5, dims  # noqa: F401 (a family has a model, SETTINGS and dims)


@dataclasses.dataclass(frozen=True)
class Config(t5.Config):
    """Hugging Face's config.json of mT5."""

    vocab_size: int | None = 250112
    d_ff: int = 1024
    num_layers: int = 8
    num_heads: int = 6
    feed_forward_proj: str = "gated-gelu"
    tie_word_embeddings: bool = False
    model_type: str = "mt5"


SIZES = {f"mt5-{name}": Config(**size) for name, size in NEWER.items()}
NAMES = dataclasses.replace(t5.NAMES, architectures=classes("MT5", "seq2seq-lm", features="MT5EncoderModel"))
