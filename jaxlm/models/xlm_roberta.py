"""XLM-R (Conneau et al. 2020): RoBERTa of a hundred languages; only names and sizes are its own. See `models/roberta.py`."""

import dataclasses

from jaxlm.frozen import Frozen
from jaxlm.models import roberta
from jaxlm.models.names import LABELS, classes
from jaxlm.models.roberta import Roberta, dims

__all__ = ["NAMES", "SIZES", "Config", "XLMRoberta", "dims"]


@dataclasses.dataclass(frozen=True)
class Config(roberta.Config):
    """Hugging Face's config.json of XLM-R."""

    vocab_size: int | None = 30522  # what Hugging Face takes a config.json without the key for
    extra: Frozen = Frozen()
    model_type: str = "xlm-roberta"


BASE = Config(250002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
LARGE = dataclasses.replace(BASE, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
SIZES = {"xlm-roberta-base": BASE, "xlm-roberta-large": LARGE}


class XLMRoberta(Roberta):
    """RoBERTa as it is."""


NAMES = dataclasses.replace(roberta.NAMES, architectures=classes("XLMRoberta", "masked-lm", "features", *LABELS, "causal-lm"))
