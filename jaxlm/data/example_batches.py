"""batch(step) of labelled examples: a pure function of (seed, step, batch size), as `batches.py` is of running text.

A row holds one example ("padded"), or several short ones side by side that do not see each other ("packed"); "buckets" are
padded rows of like lengths. What stands in which row is planned once; every epoch takes the rows in another order, each once.
Pairs, examples with "targets", have a second side of a length of its own. Read first: `examples.py`, `rows.py`, `pair_rows.py`.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxlm.data import pair_rows, rows
from jaxlm.data.examples import Examples
from jaxlm.data.pair_rows import PairShape
from jaxlm.data.permutation import make_key, permute
from jaxlm.errors import DataError
from jaxlm.overrides import choose

WITHIN, AMONG, NOISE, COMPOSED = 8, 9, 10, 11  # what a key is for, beside those of rows.py and batches.py
STEP = 2**0.5  # from one bucket to the next
SHORTEST = 16  # tokens of the first bucket
TARGET_SIDE = ("targets", "target_segments", "weights")  # columns of pairs that lie along the target tokens; the others along the source's
Row = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Rows of one shape."""

    length: int
    rows: tuple[Row, ...]  # the examples of each
    target_length: int | None = None  # of pairs
    rows_per_batch: int | None = None  # None: the run's batch size


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleBatches:
    """The batches of a run (`seed`), or of an evaluation (None), each of `rows_of(step)` rows over all hosts.

    These are `batch_size`, but where a batch holds a fixed number of tokens.
    """

    examples: Examples
    buckets: tuple[Bucket, ...]
    batch_size: int
    seed: int | None
    noise: "Noise | None" = None

    @functools.cached_property
    def _batches(self) -> np.ndarray:
        """[batches, 2]: bucket, and batch within it."""
        counts = [-(-len(bucket.rows) // self._size(bucket)) for bucket in self.buckets]
        return np.array([(k, i) for k, count in enumerate(counts) for i in range(count)], np.int64)

    @property
    def count(self) -> int:
        """Batches of an epoch."""
        return len(self._batches)

    @property
    def eos_id(self) -> None:
        return None

    def rows_of(self, step: int) -> int:
        """Rows of a batch over all hosts."""
        return self._size(self.buckets[self._place(step)[1]])

    def members(self, step: int) -> tuple[list[Row], Bucket]:
        """The examples of every row of a batch, empty where a last batch has no more, and the bucket they are of."""
        epoch, k, at = self._place(step)
        bucket, size = self.buckets[k], self._size(self.buckets[k])
        places = np.arange(at * size, min((at + 1) * size, len(bucket.rows)))
        if self.seed is not None:
            places = permute(places, len(bucket.rows), make_key(self.seed, WITHIN, epoch, k))
        found = [bucket.rows[place] for place in places]
        return found + [()] * (size - len(found)), bucket

    def _place(self, step: int) -> tuple[int, int, int]:
        """Epoch, bucket, and batch within the bucket."""
        epoch, number = divmod(step, self.count)
        if self.seed is not None:
            number = int(permute(np.array(number), self.count, make_key(self.seed, AMONG, epoch)))
        return epoch, *map(int, self._batches[number])

    def _size(self, bucket: Bucket) -> int:
        return bucket.rows_per_batch or self.batch_size

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows [start, stop) of a batch: every column [b, S] or [b, S, k], and "segments" and "groups" int32 [b, S].

        "groups" number the examples of a row from 1, "segments" its texts (an example may hold several); 0 is padding. Of pairs
        also "targets", "target_segments" int32 and "weights" float32 [b, T]: a target has the segment number of its source, and
        weights, where the examples have none of their own, are 1 on every target token.
        """
        members, bucket = self.members(step)
        made = self._blank(stop - start, bucket)
        for line, row in enumerate(members[start:stop]):
            self._fill(made, line, row)
        if self.noise is not None:
            lines = step * max(map(self._size, self.buckets)) + np.arange(start, stop)
            made["tokens"] = self.noise(made["tokens"], lines)
        return made

    def _blank(self, count: int, bucket: Bucket) -> dict[str, np.ndarray]:
        """All columns of so many rows of padding."""
        pairs = self.examples.target_lengths is not None
        made = {"segments": np.zeros((count, bucket.length), np.int32), "groups": np.zeros((count, bucket.length), np.int32)}
        if pairs:
            kinds = {"target_segments": np.int32, "weights": np.float32}
            made |= {name: np.zeros((count, bucket.target_length), kind) for name, kind in kinds.items()}
        for name in self.examples.columns:
            example = self.examples.column(name, 0)
            length = bucket.target_length if pairs and name in TARGET_SIDE else bucket.length
            made.setdefault(name, np.zeros((count, length, *example.shape[1:]), example.dtype))
        return made

    def _fill(self, made: dict[str, np.ndarray], line: int, row: Row) -> None:
        at = target_at = segment = 0
        for group, example in enumerate(row, 1):
            values = {name: self.examples.column(name, example) for name in self.examples.columns}
            count, targets = len(values["tokens"]), len(values.get("targets", ()))
            texts = values.pop("segments", np.ones(count, np.int32))
            values |= {"segments": texts + segment, "groups": np.full(count, group, np.int32)}
            if "targets" in values:
                values["target_segments"] = np.full(targets, segment + 1, np.int32)
                values.setdefault("weights", np.ones(targets, np.float32))
            for name, value in values.items():
                first = target_at if "targets" in values and name in TARGET_SIDE else at
                made[name][line, first : first + len(value)] = value
            at, target_at, segment = at + count, target_at + targets, segment + int(texts.max(initial=1))

    def epoch(self, step: int) -> float:
        """How many times the batches before `step` have gone through the examples."""
        return step / self.count

    def example_ids(self, step: int, start: int = 0, stop: int | None = None) -> list[str]:
        """What the rows of a batch are, for messages."""
        numbers = [tuple(int(self.examples.records[example]) for example in row) for row in self.members(step)[0][start:stop]]
        return [f"records {', '.join(map(str, row))}" if row else "padding" for row in numbers]


@dataclasses.dataclass(frozen=True)
class Noise:
    """Replaces a share of the tokens by one id: a small augmentation against overfitting (Xie et al. 2017, blank noising)."""

    rate: float
    token: int  # the mask token, or the unknown one
    spared: tuple[int, ...]  # ids that stay
    seed: int

    def __call__(self, tokens: np.ndarray, lines: np.ndarray) -> np.ndarray:
        """int32 [b, T] for rows with these numbers since the run's beginning: a function of the seed and the number alone."""
        draw = lambda line: np.random.Generator(np.random.Philox(make_key(self.seed, NOISE, line))).random(tokens.shape[1])
        chosen = np.stack([draw(line) for line in lines]) < self.rate
        return np.where(chosen & ~np.isin(tokens, self.spared), self.token, tokens).astype(np.int32)


def plan(examples: Examples, packing: str, length: int, seed: int | None, shape: PairShape = PairShape()) -> tuple[Bucket, ...]:
    """Which examples stand in which rows, of at most `length` tokens.

    Args:
      shape: of pairs, the target side of the rows and the tokens of a batch.

    Raises ConfigError for an unknown packing, DataError where there is no example, or a pair that is longer than a row.
    """
    choose("data.packing", packing, PLANS)
    if not len(examples):
        raise DataError("there is no example: every record was left out, or the source is empty")
    order = np.arange(len(examples))
    if seed is not None:
        order = permute(order, len(examples), make_key(seed, COMPOSED))
    if examples.target_lengths is None:
        longest = min(length, -(-int(examples.lengths.max()) // 8) * 8)
        return PLANS[packing](examples.lengths, order, length, longest)
    parts = pair_rows.plan_pairs(packing, np.stack([examples.lengths, examples.target_lengths], 1), order, length, shape)
    size = lambda part: int(pair_rows.rows_per_batch(part.length + part.target_length, shape)) if shape.batch_tokens else None
    return tuple(Bucket(part.length, part.rows, part.target_length, size(part)) for part in parts)


def _padded(lengths: np.ndarray, order: np.ndarray, length: int, longest: int) -> tuple[Bucket, ...]:
    return (Bucket(longest, tuple((int(i),) for i in order)),)


def _packed(lengths: np.ndarray, order: np.ndarray, length: int, longest: int) -> tuple[Bucket, ...]:
    """By best fit among some thousands of neighbours in a random order: rows are full, and not all alike."""
    parts = (order[at : at + rows.WINDOW] for at in range(0, len(order), rows.WINDOW))
    packs = [part[row] for part in parts for row in rows.best_fit(lengths[part], 0, length)]
    return (Bucket(length, tuple(tuple(map(int, row)) for row in packs)),)


def _bucketed(lengths: np.ndarray, order: np.ndarray, length: int, longest: int) -> tuple[Bucket, ...]:
    edges = bucket_lengths(longest)
    owner = np.searchsorted(edges, lengths[order])
    rows_of = lambda k: tuple((int(i),) for i in order[owner == k])
    return tuple(Bucket(edge, rows_of(k)) for k, edge in enumerate(edges) if (owner == k).any())


PACKED = "packed"
PLANS: dict[str, Any] = {PACKED: _packed, "padded": _padded, "buckets": _bucketed}


def bucket_lengths(longest: int) -> list[int]:
    """Lengths of the buckets, multiples of 8 but the last, each some 1.4 times the one before.

    >>> bucket_lengths(70)
    [16, 24, 32, 48, 64, 70]
    """
    edges, edge = [], float(SHORTEST)
    while (rounded := -(-int(edge) // 8) * 8) < longest:
        edges += [rounded] * (rounded not in edges)
        edge *= STEP
    return [*edges, longest]
