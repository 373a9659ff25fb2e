"""Near duplicates: pairs that share a band, verified by the exact Jaccard similarity of their shingles, joined to groups.

Band by band on sorted arrays, so that memory is some 40 bytes a document. Groups are connected components: a document may
be in one with another that it resembles only through a third. Read first: `minhash.py`, `signatures.py`.
"""

import functools
import itertools
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
    roots = np.array([_root(parents, int(row)) for row in bucket])
    if np.all(roots == roots[0]):
        return
    for at, other in _alike(bucket, sets, threshold) if len(bucket) > FEW else _alike_few(bucket, roots, sets, threshold):
        low, high = sorted((_root(parents, int(bucket[at])), _root(parents, int(bucket[other]))))
        parents[high] = low


def _alike_few(bucket: np.ndarray, roots: np.ndarray, sets: _Sets, threshold: float) -> Iterator[tuple[int, int]]:
    """The places of alike pairs, one comparison after the other."""
    sizes = sets.sizes[bucket]
    for at, other in itertools.combinations(range(len(bucket)), 2):
        small, large = sorted((sizes[at], sizes[other]))
        if roots[at] != roots[other] and small >= threshold * large:
            if jaccard(sets[int(bucket[at])], sets[int(bucket[other])]) >= threshold:
                yield at, other


def _alike(bucket: np.ndarray, sets: _Sets, threshold: float) -> Iterator[tuple[int, int]]:
    """The same of many: pages of one template share a band with all others. Tile against tile, by matrix products."""
    starts = range(0, len(bucket), TILE)
    for one, two in itertools.combinations_with_replacement(starts, 2):
        rows = np.unique(np.concatenate([np.arange(at, min(at + TILE, len(bucket))) for at in (one, two)]))
        both = _common([sets[int(row)] for row in bucket[rows]])
        sizes = sets.sizes[bucket[rows]].astype(np.float64)
        alike = both / (sizes[:, None] + sizes - both) >= threshold
        yield from rows[np.argwhere(np.triu(alike, 1))].tolist()


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
