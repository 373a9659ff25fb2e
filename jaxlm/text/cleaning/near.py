"""Near duplicates: pairs that share a band, verified by the exact Jaccard similarity of their shingles, joined to groups.

Band by band on sorted arrays, so that memory is some 40 bytes a document. Groups are connected components: a document may
be in one with another that it resembles only through a third. Read first: `minhash.py`, `signatures.py`.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from jaxlm.text.cleaning.signatures import Duplicates, Signatures


def near_groups(shards: Sequence[Signatures], rows: np.ndarray, duplicates: Duplicates) -> np.ndarray:
    """int64 [rows]: for each of some rows (rising, counted over all shards) the first row of its group.

    A document without words is like no other.
    """
    sets = _Sets(shards)
    rows = np.asarray(rows, np.int64)
    candidates = rows[sets.sizes[rows] > 0]
    parents = np.arange(len(sets.sizes))
    for number in range(duplicates.bands):
        keys = np.concatenate([np.zeros(0, np.uint64), *(shard.band(number) for shard in shards)])[candidates]
        for bucket in _buckets(keys):
            _join(candidates[bucket], sets, parents, duplicates.threshold)
        parents = flat(parents)
    return parents[rows]


OPEN = 128  # files of shingles mapped at once: an operating system allows a process some 1,000


class _Sets:
    """The shingles of any row of the shards."""

    def __init__(self, shards: Sequence[Signatures]):
        self.shards = shards
        self.firsts = np.cumsum([0, *(len(shard.ids) for shard in shards)])
        self.sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(shard.offsets) for shard in shards)])
        self.mapped = functools.lru_cache(OPEN)(lambda number: shards[number].shingles())

    def __getitem__(self, row: int) -> np.ndarray:
        number = int(np.searchsorted(self.firsts, row, "right")) - 1
        offsets, at = self.shards[number].offsets, row - self.firsts[number]
        return self.mapped(number)[offsets[at] : offsets[at + 1]]


def _buckets(keys: np.ndarray) -> Iterator[np.ndarray]:
    """For every key that occurs more than once, the rising positions of it."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    edges = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1], [True]])) if len(keys) else np.zeros(1, np.int64)
    for at in np.flatnonzero(np.diff(edges) > 1):
        yield order[edges[at] : edges[at + 1]]


def _join(bucket: np.ndarray, sets: _Sets, parents: np.ndarray, threshold: float) -> None:
    """Verify each pair of a bucket that is not in one group yet, and join what is alike; quadratic only in what is not."""
    roots = np.array([_root(parents, int(row)) for row in bucket])
    sizes = sets.sizes[bucket]
    for at, row in enumerate(bucket[:-1].tolist()):
        smaller, larger = np.minimum(sizes[at], sizes[at + 1 :]), np.maximum(sizes[at], sizes[at + 1 :])
        others = at + 1 + np.flatnonzero((roots[at + 1 :] != roots[at]) & (smaller >= threshold * larger))
        if len(others):
            mine = sets[row]
            for other in others.tolist():
                if roots[other] != roots[at] and jaccard(mine, sets[int(bucket[other])]) >= threshold:
                    low, high = sorted((int(roots[at]), int(roots[other])))
                    parents[high] = low
                    roots[roots == high] = low
        elif np.all(roots == roots[0]):
            return


def _root(parents: np.ndarray, row: int) -> int:
    while (parent := int(parents[row])) != row:
        row = parent
    return row


def flat(parents: np.ndarray) -> np.ndarray:
    """Every row's root at once: parents of parents until nothing changes."""
    while not np.array_equal(above := parents[parents], parents):
        parents = above
    return parents


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """|A and B| / |A or B| of two sets, uint64, rising and distinct, not both empty."""
    if len(first) > len(second):
        first, second = second, first
    at = np.searchsorted(second, first)
    both = np.count_nonzero(second[np.minimum(at, len(second) - 1)] == first)
    return both / (len(first) + len(second) - both)
