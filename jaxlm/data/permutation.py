"""A stateless permutation of range(n): where index i goes, without a table and without a history.

A balanced Feistel network (Luby and Rackoff 1988) over the next power of four, with cycle walking (Black and Rogaway
2002) back into range(n). Read next: `rows.py`, which orders documents and rows by it.
"""

import hashlib

import numpy as np

ROUNDS = 6
_WORD = (1 << 64) - 1


def make_key(*numbers: int) -> int:
    """A 64-bit key from integers such as (seed, epoch): nearby ones give unrelated keys."""
    return int.from_bytes(hashlib.blake2b(repr(tuple(map(int, numbers))).encode(), digest_size=8).digest(), "little")


def permute(index: np.ndarray, n: int, key: int) -> np.ndarray:
    """The image of each index under the key's permutation of range(n).

    Args:
      index: integers in [0, n), any shape.
      n: 1 <= n <= 2**62.

    Returns int64, the shape of `index`.

    >>> sorted(permute(np.arange(5), 5, key=1).tolist())
    [0, 1, 2, 3, 4]
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    x = _feistel(np.asarray(index).ravel().astype(np.uint64), half, key)
    outside = np.flatnonzero(x >= n)
    while outside.size:  # at most 3 of 4 fall outside: the walk is short
        x[outside] = _feistel(x[outside], half, key)
        outside = outside[x[outside] >= n]
    return x.astype(np.int64).reshape(np.shape(index))


def _feistel(x: np.ndarray, half: int, key: int) -> np.ndarray:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = x >> shift, x & mask
    for i in range(ROUNDS):
        left, right = right, left ^ (_mix(right + np.uint64((key + i * 0x9E3779B97F4A7C15) & _WORD)) & mask)
    return (left << shift) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
