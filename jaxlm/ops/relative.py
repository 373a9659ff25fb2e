"""Relative positions in buckets: near distances one by one, far ones together (Raffel et al. 2020, section 2.1)."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


def buckets(
    queries: int, keys: int, offset: int | Int[Array, ""], *, count: int, max_distance: int, bidirectional: bool
) -> Int[Array, "T S"]:
    """The bucket, in [0, count), of every pair of a query and a key.

    Args:
      queries, keys: T and S.
      offset: position of the first query among the keys.
      count: buckets; where bidirectional, half of them are for the keys behind the query.
      max_distance: tokens from which on all distances share the last bucket.

    >>> buckets(1, 5, 4, count=4, max_distance=4, bidirectional=False).tolist()
    [[3, 3, 2, 1, 0]]
    """
    behind = jnp.arange(keys)[None] - jnp.arange(queries)[:, None] - offset
    distance = jnp.abs(behind) if bidirectional else jnp.maximum(-behind, 0)
    side = count // 2 if bidirectional else count
    near = jnp.asarray(_bucket_of(side, max_distance))[jnp.minimum(distance, max_distance)]
    return near + jnp.where(behind > 0, side, 0) if bidirectional else near


@functools.cache
def _bucket_of(count: int, max_distance: int) -> np.ndarray:
    """Distance -> bucket: the first half exact, the rest growing with the logarithm.

    A table, because the logarithms of XLA and of torch differ in the last place, and edges of buckets are whole numbers.
    """
    exact = count // 2
    distance = np.arange(max_distance + 1)
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(max_distance / exact))
    far = exact + (growth * np.float32(count - exact)).astype(np.int32)
    return np.where(distance < exact, distance, np.minimum(far, count - 1)).astype(np.int32)
