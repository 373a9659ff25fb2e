"""MinHash signatures cut into bands: documents that are alike share a band (Broder 1997; Leskovec, Rajaraman, Ullman, ch. 3).

A band is one number made of `rows` minima. Two documents of Jaccard similarity s share at least one of b bands with
probability 1 - (1 - s**r)**b. Read next: `signatures.py`.
"""

import functools
import math

import numpy as np

from jaxlm.errors import ConfigError
from jaxlm.text.cleaning.shingles import mix, numbers

MISS = 1e-4  # greatest chance that a pair exactly at the threshold shares no band


@functools.cache
def bands_and_rows(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands b, rows r): the most rows, so the fewest false candidates, with a miss (1 - threshold**r)**b below 1e-4.

    b * r is at most `permutations`. Raises ConfigError where they are too few for the threshold.

    >>> bands_and_rows(0.8, 128)
    (24, 5)
    """
    for rows in range(permutations, 0, -1):
        hit = threshold**rows
        bands = 1 if hit >= 1 else math.ceil(math.log(MISS) / math.log1p(-hit)) if hit > 0 else permutations + 1
        if bands * rows <= permutations:
            return bands, rows
    raise ConfigError(f"near_duplicates: threshold={threshold} needs more than permutations={permutations}: raise them")


@functools.cache
def _permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(odd factors, shifts), uint32 [count]: x -> factor * x + shift modulo 2**32, a permutation each."""
    random = numbers(3, 2 * count)
    return (random[:count] >> np.uint64(32)).astype(np.uint32) | np.uint32(1), (random[count:] >> np.uint64(32)).astype(np.uint32)


def minima(hashes: np.ndarray, offsets: np.ndarray, permutations: int) -> np.ndarray:
    """uint32 [permutations, texts]: the least value of every permutation of each text's shingles; all ones for an empty set.

    Args:
      hashes: uint64 [shingles], as `shingles.shingles` gives them.
      offsets: int64 [texts + 1].
    """
    signature = np.full((permutations, len(offsets) - 1), 0xFFFFFFFF, np.uint32)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        starts = offsets[filled]
        high = (hashes >> np.uint64(32)).astype(np.uint32)
        buffer = np.empty_like(high)
        for row, factor, shift in zip(signature, *_permutations(permutations), strict=True):
            np.multiply(high, factor, out=buffer)
            np.add(buffer, shift, out=buffer)
            row[filled] = np.minimum.reduceat(buffer, starts)
    return signature


def band_keys(signature: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [bands, texts]: one number for the rows of each band."""
    grouped = signature[: bands * rows].reshape(bands, rows, -1).astype(np.uint64)
    factors = numbers(4, rows) | np.uint64(1)
    return mix((mix(grouped + np.uint64(1)) * factors[None, :, None]).sum(axis=1, dtype=np.uint64))
