"""Near duplicates: pairs that share a band, verified by the exact Jaccard similarity of their shingles, joined to groups.

Band by band on sorted arrays, so that memory is some 40 bytes a document. Groups are connected components: a document may
be in one with another that it resembles only through a third. Read first: `minhash.py`, `signatures.py`.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components

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


FEW = 16  # documents that share a band: more are compared by matrix products
TILE, COLUMNS = 2048, 4096  # documents and shingles of one product: some 200 MB at most
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
    """Verify the pairs of a bucket that are not in one group yet, and join what is alike; quadratic only in what is not."""
    if len(bucket) <= FEW:
        _compare(itertools.combinations(bucket.tolist(), 2), sets, parents, threshold)
    else:
        _compare(((int(bucket[0]), other) for other in bucket[1:].tolist()), sets, parents, threshold)  # copies: no more is needed
        _compare_tiles(bucket, sets, parents, threshold)


def _compare(pairs: Iterable[tuple[int, int]], sets: _Sets, parents: np.ndarray, threshold: float) -> None:
    """One comparison after the other."""
    for pair in pairs:
        low, high = sorted(_root(parents, row) for row in pair)
        small, large = sorted(sets.sizes[list(pair)])
        if low != high and small >= threshold * large and jaccard(sets[pair[0]], sets[pair[1]]) >= threshold:
            parents[high] = low


def _compare_tiles(bucket: np.ndarray, sets: _Sets, parents: np.ndarray, threshold: float) -> None:
    """Pages of one template share a band with all others: tile against tile, by matrix products."""
    tiles = np.split(bucket, range(TILE, len(bucket), TILE))
    for one, two in itertools.combinations_with_replacement(range(len(tiles)), 2):
        rows = tiles[one] if one == two else np.concatenate([tiles[one], tiles[two]])
        if len({_root(parents, row) for row in rows.tolist()}) > 1:
            both, sizes = _common([sets[row] for row in rows.tolist()]), sets.sizes[rows].astype(np.float64)
            _, group = connected_components(both / (sizes[:, None] + sizes - both) >= threshold)
            _, first = np.unique(group, return_index=True)
            for row, other in zip(rows.tolist(), rows[first[group]].tolist(), strict=True):
                low, high = sorted((_root(parents, row), _root(parents, other)))
                parents[high] = low


def _common(parts: list[np.ndarray]) -> np.ndarray:
    """float64 [m, m]: how many shingles each two of m sets share; those that only one has need no column."""
    _, column, counts = np.unique(np.concatenate(parts), return_inverse=True, return_counts=True)
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    shared = counts[column] > 1
    owner, column = owner[shared], (np.cumsum(counts > 1) - 1)[column[shared]]
    order = np.argsort(column, kind="stable")
    owner, column = owner[order], column[order]
    both = np.zeros((len(parts), len(parts)), np.float32)
    for first in range(0, int((counts > 1).sum()), COLUMNS):
        here = slice(*np.searchsorted(column, [first, first + COLUMNS]))
        held = np.zeros((len(parts), COLUMNS), np.float32)
        held[owner[here], column[here] - first] = 1
        both += held @ held.T
    return both.astype(np.float64)


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
