"""Span corruption and prefix language modelling over running text, T5's pre-training (Raffel et al. 2020, section 3.1).

Rows are cut out of one stream of documents, as long as makes the noised ones fill the encoder. Loss and metrics are those of
`text_to_text.py`. Read first: `ops/spans.py`. Read next: `denoising.py`.
"""

import numpy as np

from jaxlm.config import Run
from jaxlm.errors import ConfigError
from jaxlm.ops import spans
from jaxlm.ops.noise import Vocabulary, with_density
from jaxlm.tasks import pair_sides
from jaxlm.tasks.text_to_text import loss, measure, metrics, predictions

__all__ = ["features", "loss", "measure", "metrics", "predictions", "row_length", "target_length", "needs"]

RECORDS, ROWS, HEAD = False, "own", "seq2seq-lm"
MEASURED = ("perplexity", "accuracy")  # beside the loss
TOKENIZER = {"sentinels": 100}  # what a tokenizer that is trained for this task has beside its vocabulary, as T5's
DENSITY = 0.15  # the share that is taken out (Raffel et al. 2020, section 3.1.4)


def needs(run: Run) -> tuple[str, ...]:
    """What the tokenizer must have: see `ops.noise.make_vocabulary`."""
    return ("eos",) if run.denoising.prefix else ("eos", "sentinels")


def row_length(run: Run) -> int:
    """Tokens of the store that make a row: as many as fit, noised, into data.sequence_length and data.target_length.

    Raises ConfigError for lengths without room, and for rows of several documents, which would be noised as one.
    """
    data = run.data
    if data.packing == "documents":
        raise ConfigError("data.packing=documents: task=span-corruption cuts its rows out of one stream of documents; leave it out")
    if run.denoising.prefix:
        return _prefix_length(data.sequence_length, target_length(run))
    raw, needed = _lengths(run)
    if target_length(run) < needed:
        raise ConfigError(
            f"data.target_length={data.target_length} is less than the {needed} tokens that are taken out of data.sequence_length="
            f"{data.sequence_length}: leave it out"
        )
    return raw


def target_length(run: Run) -> int:
    """Tokens of the decoder's rows: data.target_length, else exactly those that the noise takes out with their sentinels and the end."""
    if run.data.target_length is not None or run.denoising.prefix:
        return pair_sides.target_length(run)
    return _lengths(run)[1]


def features(rows: dict[str, np.ndarray], vocabulary: Vocabulary, draws: np.ndarray, options: Run) -> dict[str, np.ndarray]:
    """Rows of the store under noise: a function of the rows and their draws.

    Args:
      rows: arrays [..., L], as `data.batches` makes them; L is at most `row_length`.
      draws: uint64 [...], one a row.

    Returns "tokens", "segments" [..., S], "targets", "target_segments" and "weights" [..., T].
    """
    tokens, lead = rows["tokens"], rows["tokens"].shape[:-1]
    flat = lambda array: array.reshape(-1, tokens.shape[-1])
    given = (flat(tokens), flat(rows.get("segments", rows["weights"])) > 0, vocabulary, draws.reshape(-1))
    sizes = options.data.sequence_length, target_length(options)
    noise = with_density(options.denoising, DENSITY)
    made = spans.cut_prefix(*given, sizes) if noise.prefix else spans.corrupt_spans(*given, noise, sizes)
    return {name: array.reshape(*lead, -1) for name, array in made.items()}


def _lengths(run: Run) -> tuple[int, int]:
    """Tokens of a row before the noise that fill data.sequence_length after it, and how many the noise takes out of them."""
    noise = with_density(run.denoising, DENSITY)
    raw = spans.raw_length(run.data.sequence_length, noise)
    return raw, int(spans.lengths(np.array([raw]), noise)[1][0])


def _prefix_length(source: int, target: int) -> int:
    if min(source, target) < 2:
        raise ConfigError(f"data.sequence_length={source} and data.target_length={target}: both are at least 2, a token and the end")
    return min(source, target)
