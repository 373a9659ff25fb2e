"""Row plans: which tokens of a store make row r of epoch e. Pure functions of (lengths, seed, sequence length).

A plan answers `gather(epochs, rows)` with positions in the store's stream, so that causal windows, packed documents and
evaluation are one thing to `batches.py`, which is to be read next.
"""

import bisect
import dataclasses
from typing import NamedTuple

import numpy as np

from jaxlm.data.permutation import make_key, permute
from jaxlm.errors import DataError

EOS = -1  # the position of the end-of-document token that stands before the first token of a store
WINDOW = 8192  # pieces that are packed together: bounds the time and keeps neighbours near each other
ORDER, PHASE, ROWS = 0, 1, 2  # what a key is for


class Gather(NamedTuple):
    """Where the tokens of b rows lie; `EOS` is a position too."""

    inputs: np.ndarray  # int64 [b, T]
    targets: np.ndarray  # int64 [b, T]
    segments: np.ndarray  # int32 [b, T]: 0 is padding, 1, 2, ... the documents of a row


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Rows of T tokens cut from one circular stream of all documents, whose order the seed has permuted.

    Epoch e starts at a phase in [0, T), so that a corpus of one document is cut elsewhere each time.
    """

    ends: np.ndarray  # int64 [documents]: where each ends in the permuted stream
    shifts: np.ndarray  # int64 [documents]: from a position in the permuted stream to one in the store
    seed: int
    length: int  # T
    rows: int

    def gather(self, epochs: np.ndarray, rows: np.ndarray) -> Gather:
        """Positions of the rows; `epochs` and `rows` are int64 [b], 0 <= rows < self.rows."""
        total = int(self.ends[-1])
        phases = np.array([make_key(self.seed, PHASE, epoch) % self.length for epoch in epochs], np.int64)
        first = phases + _shuffled(self.seed, epochs, rows, self.rows) * self.length
        stream = (first[:, None] + np.arange(self.length + 1)) % total
        positions = stream + self.shifts[np.searchsorted(self.ends, stream, "right")]
        return Gather(positions[:, :-1], positions[:, 1:], np.ones((len(stream), self.length), np.int32))


def windows(lengths: np.ndarray, seed: int, length: int) -> Windows:
    """The plan of windows of `length` tokens; one epoch leaves out less than one row.

    Raises DataError where the store is shorter than one row and its last target.
    """
    total = int(lengths.sum())
    if total < length + 1:
        raise DataError(
            f"the documents hold {total} tokens and a row of data.sequence_length={length} needs {length + 1}: "
            f"set data.sequence_length={max(1, total - 1)} or less, or add text"
        )
    order = permute(np.arange(len(lengths)), len(lengths), make_key(seed, ORDER))
    starts, ends = (np.cumsum(lengths) - lengths)[order], np.cumsum(lengths[order])
    return Windows(ends, starts - (ends - lengths[order]), seed, length, max(1, total // length))


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Rows of whole documents side by side; row r holds the pieces `first[r]` to `first[r + 1]`."""

    starts: np.ndarray  # int64 [pieces]: position of a piece's first token
    counts: np.ndarray  # int64 [pieces]: its predictions, one less than its tokens
    first: np.ndarray  # int64 [rows + 1]
    seed: int | None  # None: rows in their own order, for evaluation
    length: int  # T

    @property
    def rows(self) -> int:
        return len(self.first) - 1

    def gather(self, epochs: np.ndarray, rows: np.ndarray) -> Gather:
        """Positions of the rows; targets never leave their document."""
        if self.seed is not None:
            rows = _shuffled(self.seed, epochs, rows, self.rows)
        inputs = np.zeros((len(rows), self.length), np.int64)
        segments = np.zeros((len(rows), self.length), np.int32)
        for i, row in enumerate(rows):
            at = 0
            for number, piece in enumerate(range(self.first[row], self.first[row + 1]), 1):
                stop = at + self.counts[piece]
                inputs[i, at:stop] = np.arange(self.starts[piece], self.starts[piece] + self.counts[piece])
                segments[i, at:stop] = number
                at = stop
        return Gather(inputs, inputs + (segments > 0), segments)


def packed(lengths: np.ndarray, seed: int | None, length: int) -> Packed:
    """The plan that packs documents into rows by best fit, longest first, in windows of neighbours.

    A document of more than length + 1 tokens is cut into pieces that share one token, so that every token but a
    document's first is predicted exactly once an epoch. Raises DataError where nothing can be predicted.
    """
    starts, counts = pieces(lengths, length)
    if not len(starts):
        raise DataError("every document holds fewer than two tokens: there is nothing to predict; use data.packing=windows or longer texts")
    bins = [row for at in range(0, len(counts), WINDOW) for row in best_fit(counts[at : at + WINDOW], at, length)]
    order = np.array([piece for row in bins for piece in row], np.int64)
    return Packed(starts[order], counts[order], np.cumsum([0] + [len(row) for row in bins]), seed, length)


def pieces(lengths: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Position of the first token, and number of predictions (at most `length`), of every piece of every document."""
    predictions = np.maximum(lengths - 1, 0)
    number = -(-predictions // length)
    document = np.repeat(np.arange(len(lengths)), number)
    offset = (np.arange(len(document)) - (np.cumsum(number) - number)[document]) * length
    starts = np.cumsum(lengths) - lengths
    return starts[document] + offset, np.minimum(predictions[document] - offset, length)


def best_fit(counts: np.ndarray, offset: int, length: int) -> list[list[int]]:
    """Best-fit decreasing (Johnson 1974): the numbers of the pieces, from `offset` on, in each row of `length` tokens."""
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # (free, row), sorted
    for piece in np.argsort(-counts, kind="stable"):
        count = int(counts[piece])
        at = bisect.bisect_left(spaces, (count, -1))
        free, row = spaces.pop(at) if at < len(spaces) else (length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(offset + int(piece))
        if free > count:
            bisect.insort(spaces, (free - count, row))
    return rows


@dataclasses.dataclass(frozen=True)
class InOrder:
    """Evaluation windows: every target once, in order, the last row padded."""

    total: int  # tokens of the store
    skip: int  # 0: the first token is predicted from the end-of-document token; 1: it is not predicted
    length: int  # T

    @property
    def rows(self) -> int:
        return -(-(self.total - self.skip) // self.length)

    def gather(self, epochs: np.ndarray, rows: np.ndarray) -> Gather:
        """Positions of the rows; `epochs` is ignored."""
        targets = self.skip + np.asarray(rows)[:, None] * self.length + np.arange(self.length)
        segments = (targets < self.total).astype(np.int32)
        return Gather(np.where(segments, targets - 1, 0), np.where(segments, targets, 0), segments)


def _shuffled(seed: int, epochs: np.ndarray, rows: np.ndarray, total: int) -> np.ndarray:
    """Rows under the permutation of their epoch; a batch spans few epochs."""
    found = np.empty(len(rows), np.int64)
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        found[mine] = permute(rows[mine], total, make_key(seed, ROWS, epoch))
    return found
