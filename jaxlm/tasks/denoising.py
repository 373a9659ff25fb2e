"""Denoising of running text, BART's pre-training: from a noised row to the row as it was (Lewis et al. 2020, section 2.2).

Rows are cut out of one stream, or hold whole documents side by side (data.packing=documents), which do not see each other. Loss and
metrics are those of `text_to_text.py`. Read first: `ops/infilling.py`.
"""

import numpy as np

from jaxlm.config import Run
from jaxlm.errors import ConfigError
from jaxlm.ops.infilling import infill
from jaxlm.ops.noise import Vocabulary, with_density
from jaxlm.tasks.pair_sides import target_length
from jaxlm.tasks.text_to_text import loss, measure, metrics, predictions

__all__ = ["features", "loss", "measure", "metrics", "predictions", "row_length", "target_length", "needs"]

RECORDS, ROWS, HEAD = False, "own", "seq2seq-lm"
MEASURED = ("perplexity", "accuracy")  # beside the loss
TOKENIZER = {"mask": True}  # what a tokenizer that is trained for this task has beside its vocabulary
DENSITY = 0.3  # the share that is taken out (Lewis et al. 2020, section 5.1)


def needs(run: Run) -> tuple[str, ...]:
    """What the tokenizer must have: see `ops.noise.make_vocabulary`."""
    return ("eos", "mask")


def row_length(run: Run) -> int:
    """Tokens of the store that make a row: one less than those of a row on both sides, which end with the end-of-text token.

    Raises ConfigError for shares that are none, spans shorter than the masks in their places, or lengths without room.
    """
    noise, length = with_density(run.denoising, DENSITY), min(run.data.sequence_length, target_length(run))
    if noise.prefix:
        raise ConfigError("denoising.prefix=true is of task=span-corruption: leave it out")
    if noise.span < 1:
        raise ConfigError(f"denoising.span={noise.span}: it is at least 1")
    for name in ("density", "masked", "random", "permute"):
        if not 0 <= getattr(noise, name) <= 1:
            raise ConfigError(f"denoising.{name}={getattr(noise, name)}: it is from 0 to 1")
    if length < 2:
        raise ConfigError(f"data.sequence_length and data.target_length are at least 2, a token and the end, and one is {length}")
    return length - 1


def features(rows: dict[str, np.ndarray], vocabulary: Vocabulary, draws: np.ndarray, options: Run) -> dict[str, np.ndarray]:
    """Rows of the store under noise: a function of the rows and their draws.

    Args:
      rows: arrays [..., L], as `data.batches` makes them; L is at most `row_length`.
      draws: uint64 [...], one a row.

    Returns "tokens", "segments" [..., S], "targets", "target_segments" and "weights" [..., T].
    """
    tokens, lead = rows["tokens"], rows["tokens"].shape[:-1]
    flat = lambda array: array.reshape(-1, tokens.shape[-1])
    segments = flat(rows.get("segments", rows["weights"] > 0).astype(np.int32))
    sizes = options.data.sequence_length, target_length(options)
    made = infill(flat(tokens), segments, vocabulary, draws.reshape(-1), with_density(options.denoising, DENSITY), sizes)
    return {name: array.reshape(*lead, -1) for name, array in made.items()}
