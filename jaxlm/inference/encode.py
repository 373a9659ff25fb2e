"""Hidden states of many texts of unequal lengths: packed side by side into full rows, so that no time goes to padding.

Every row of a batch holds whole texts as segments that do not see each other; one program serves all batches.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxlm.data.rows import best_fit
from jaxlm.errors import ConfigError
from jaxlm.models import dims


def encode_tokens(
    model: Any, params: Any, rows: Sequence[Sequence[int]], *, length: int | None = None, batch_tokens: int = 1024
) -> list[Float[np.ndarray, "T D"]]:
    """The hidden states of each text, in the order given.

    Args:
      rows: the ids of each text.
      length: tokens of a packed row; None: 128, or the longest text.
      batch_tokens: how many tokens one call computes at most: more on an accelerator.

    Raises:
      ConfigError: an empty text, or one longer than the model.
    """
    counts = np.array([len(row) for row in rows], np.int64)
    length = _length(model, counts, length)
    packed = best_fit(counts, 0, length)
    calls = -(-len(packed) // max(1, batch_tokens // length))
    size = -(-len(packed) // max(1, calls))  # as even as can be: a last batch of a few rows would cost as much as a full one
    pending = []
    for at in range(0, len(packed), max(1, size)):
        group = packed[at : at + size]
        tokens, segments = _fill(rows, group, size, length)
        pending.append((group, _hidden(model, params, tokens, segments)))  # the device works on while the next batch is filled
    states: dict[int, np.ndarray] = {}
    for group, hidden in pending:
        for line, numbers in zip(np.asarray(hidden), group, strict=False):
            ends = np.cumsum(counts[numbers])
            states |= {text: line[end - counts[text] : end] for text, end in zip(numbers, ends, strict=True)}
    return [states[text] for text in range(len(rows))]


def _length(model: Any, counts: np.ndarray, length: int | None) -> int:
    limit = dims(model.config).context or 2**30
    if not counts.all():
        raise ConfigError(f"text {int(counts.argmin())} is empty: it has no hidden states")
    longest = int(counts.max(initial=1))
    length = min(limit, max(128, -(-longest // 8) * 8)) if length is None else length
    if longest > min(length, limit):
        text = int(counts.argmax())
        raise ConfigError(f"text {text} has {longest} tokens and a row takes {min(length, limit)}: cut it, or raise length up to {limit}")
    return length


def _fill(rows, group, size, length):
    tokens, segments = np.zeros((size, length), np.int32), np.zeros((size, length), np.int32)
    for line, numbers in enumerate(group):
        at = 0
        for segment, text in enumerate(numbers, 1):
            stop = at + len(rows[text])
            tokens[line, at:stop], segments[line, at:stop] = rows[text], segment
            at = stop
    return tokens, segments


@functools.partial(jax.jit, static_argnums=0)
def _hidden(model, params, tokens, segments):
    return model.apply({"params": params}, tokens, segments=segments).hidden


def encode_texts(
    model: Any, params: Any, tokenizer: Any, texts: Sequence[str], *, pool: str = "mean", **arguments: Any
) -> Float[np.ndarray, "texts D"]:
    """One vector a text: the mean of its hidden states, or the first one ("first"); `arguments` are those of `encode_tokens`."""
    if pool not in ("mean", "first"):
        raise ConfigError(f"pool={pool!r} is neither 'mean' nor 'first'")
    states = encode_tokens(model, params, tokenizer.encode_batch(list(texts)), **arguments)
    return np.stack([state.mean(0) if pool == "mean" else state[0] for state in states])
