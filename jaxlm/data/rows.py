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

EOS, CLS, SEP = -1, -2, -3  # positions of tokens that no document holds: EOS stands before a store's first one, the others around pairs
WINDOW = 8192  # pieces that are packed together: bounds the time and keeps neighbours near each other
ORDER, PHASE, ROWS, PAIR = 0, 1, 2, 5  # what a key is for; 3 and 4 are of batches.py


class Gather(NamedTuple):
    """Where the tokens of b rows lie; `EOS`, `CLS` and `SEP` are positions too."""

    inputs: np.ndarray  # int64 [b, T]
    targets: np.ndarray  # int64 [b, T]: the inputs themselves where a row's own tokens are learnt from (shift 0), else what follows (1)
    segments: np.ndarray  # int32 [b, T]: 0 is padding, 1, 2, ... the documents of a row
    more: dict[str, np.ndarray] | None = None  # further columns, of pairs: "token_types" int32 [b, T], "labels" int32 [b]


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
    shift: int = 1

    def gather(self, epochs: np.ndarray, rows: np.ndarray) -> Gather:
        """Positions of the rows; `epochs` and `rows` are int64 [b], 0 <= rows < self.rows."""
        total = int(self.ends[-1])
        phases = np.array([make_key(self.seed, PHASE, epoch) % self.length for epoch in epochs], np.int64)
        first = phases + _shuffled(self.seed, epochs, rows, self.rows) * self.length
        stream = (first[:, None] + np.arange(self.length + self.shift)) % total
        positions = stream + self.shifts[np.searchsorted(self.ends, stream, "right")]
        return Gather(positions[:, : self.length], positions[:, self.shift :], np.ones((len(stream), self.length), np.int32))


def windows(lengths: np.ndarray, seed: int, length: int, shift: int = 1) -> Windows:
    """The plan of windows of `length` tokens; one epoch leaves out less than one row.

    Raises DataError where the store is shorter than one row and its last target.
    """
    total = int(lengths.sum())
    if total < length + shift:
        raise DataError(
            f"the documents hold {total} tokens and a row of data.sequence_length={length} needs {length + shift}: "
            f"set data.sequence_length={max(1, total - shift)} or less, or add text"
        )
    order = permute(np.arange(len(lengths)), len(lengths), make_key(seed, ORDER))
    starts, ends = (np.cumsum(lengths) - lengths)[order], np.cumsum(lengths[order])
    return Windows(ends, starts - (ends - lengths[order]), seed, length, max(1, total // length), shift)


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Rows of whole documents side by side; row r holds the pieces `first[r]` to `first[r + 1]`."""

    starts: np.ndarray  # int64 [pieces]: position of a piece's first token
    counts: np.ndarray  # int64 [pieces]: its predictions, `shift` less than its tokens
    first: np.ndarray  # int64 [rows + 1]
    seed: int | None  # None: rows in their own order, for evaluation
    length: int  # T
    shift: int = 1

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
        return Gather(inputs, inputs + self.shift * (segments > 0), segments)


def packed(lengths: np.ndarray, seed: int | None, length: int, shift: int = 1) -> Packed:
    """The plan that packs documents into rows by best fit, longest first, in windows of neighbours.

    A document of more than length + shift tokens is cut into pieces that share `shift` tokens, so that every token but a
    document's first `shift` is a target exactly once an epoch. Raises DataError where nothing can be predicted.
    """
    starts, counts = pieces(lengths, length, shift)
    if not len(starts):
        raise DataError("every document holds fewer than two tokens: there is nothing to predict; use data.packing=windows or longer texts")
    bins = [row for at in range(0, len(counts), WINDOW) for row in best_fit(counts[at : at + WINDOW], at, length)]
    order = np.array([piece for row in bins for piece in row], np.int64)
    return Packed(starts[order], counts[order], np.cumsum([0] + [len(row) for row in bins]), seed, length, shift)


def pieces(lengths: np.ndarray, length: int, shift: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Position of the first token, and number of predictions (at most `length`), of every piece of every document."""
    predictions = np.maximum(lengths - shift, 0)
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
    shift: int = 1

    @property
    def rows(self) -> int:
        return -(-(self.total - self.skip) // self.length)

    def gather(self, epochs: np.ndarray, rows: np.ndarray) -> Gather:
        """Positions of the rows; `epochs` is ignored."""
        targets = self.skip + np.asarray(rows)[:, None] * self.length + np.arange(self.length)
        segments = (targets < self.total).astype(np.int32)
        return Gather(np.where(segments, targets - self.shift, 0), np.where(segments, targets, 0), segments)


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of two texts, [CLS] A [SEP] B [SEP]: a span of one document cut in two, or something else in B's place.

    All that is drawn, the cut and what replaces B, is a function of (seed, epoch, row).
    """

    starts: np.ndarray  # int64 [spans]: position of a span's first token
    counts: np.ndarray  # int64 [spans]: its tokens, 2 to T - 3
    documents: np.ndarray  # int64 [spans], in order
    seed: int | None  # None: rows in their own order, for evaluation
    length: int  # T
    change: tuple[float, bool]  # the share of pairs that are changed; B becomes another document's (True), or A and B turn round

    @property
    def rows(self) -> int:
        return len(self.starts)

    def gather(self, epochs: np.ndarray, rows: np.ndarray) -> Gather:
        """Positions of the rows; "labels" are 0 where B follows A, and 1 where it does not."""
        if self.seed is not None:
            rows = _shuffled(self.seed, epochs, rows, self.rows)
        inputs, segments, types = (np.zeros((len(rows), self.length), kind) for kind in (np.int64, np.int32, np.int32))
        labels = np.zeros(len(rows), np.int32)
        for i, (epoch, row) in enumerate(zip(epochs, rows, strict=True)):
            a, b, labels[i] = self._texts(int(epoch), int(row))
            line = np.concatenate([[CLS], a, [SEP], b, [SEP]])
            inputs[i, : len(line)], segments[i, : len(line)] = line, 1
            types[i, len(a) + 2 : len(line)] = 1
        return Gather(inputs, inputs, segments, {"token_types": types, "labels": labels})

    def _texts(self, epoch: int, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        chance = lambda k: (make_key(self.seed or 0, PAIR, epoch, row, k) >> 11) * 2.0**-53
        span, count = np.arange(self.starts[row], self.starts[row] + self.counts[row]), int(self.counts[row])
        a, b = np.split(span, [1 + int(chance(0) * (count - 1))])
        rate, elsewhere = self.change
        if chance(1) >= rate:
            return a, b, 0
        if not elsewhere:
            return b, a, 1
        low, high = np.searchsorted(self.documents, self.documents[row] + np.arange(2))  # the spans of this document
        other = int(chance(2) * (self.rows - (high - low)))
        other += (high - low) * (other >= low)
        size = min(len(b), int(self.counts[other]))
        first = self.starts[other] + int(chance(3) * (self.counts[other] - size + 1))
        return a, np.arange(first, first + size), 1


def pairs(lengths: np.ndarray, seed: int | None, length: int, edges: tuple[int, int], change: tuple[float, bool]) -> Pairs:
    """The plan of pairs; a document's spans are of like lengths, and one of fewer than two tokens is left out.

    Args:
      edges: special tokens that every document begins and ends with: they stay out of the texts.
      change: see `Pairs`.

    Raises DataError where no document can be cut in two, or where another one is asked for and there is none.
    """
    inner = np.maximum(lengths - sum(edges), 0)
    number = np.where(inner > 1, -(-inner // max(3, length - 3)), 0)
    documents = np.repeat(np.arange(len(lengths)), number)
    if not len(documents) or length < 6:
        raise DataError(
            f"no document gives a pair of texts in data.sequence_length={length}: it is at least 6, and a document 2 tokens long"
        )
    if change[1] and change[0] and documents[0] == documents[-1]:
        raise DataError(
            "task=next-sentence takes second texts from other documents and there is one alone: use task=sentence-order, or add text"
        )
    rank = np.arange(len(documents)) - (np.cumsum(number) - number)[documents]
    at = lambda i: i * inner[documents] // number[documents]
    starts = (np.cumsum(lengths) - lengths + edges[0])[documents] + at(rank)
    return Pairs(starts, at(rank + 1) - at(rank), documents, seed, length, change)


def _shuffled(seed: int, epochs: np.ndarray, rows: np.ndarray, total: int) -> np.ndarray:
    """Rows under the permutation of their epoch; a batch spans few epochs."""
    found = np.empty(len(rows), np.int64)
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        found[mine] = permute(rows[mine], total, make_key(seed, ROWS, epoch))
    return found
