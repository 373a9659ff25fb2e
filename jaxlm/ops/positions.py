"""Positions of tokens, where padding, packing and caches move them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def from_mask(mask: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """0, 1, 2 ... over the real tokens; padding counts for nothing, on either side.

    >>> from_mask(jnp.array([[False, True, True]])).tolist()
    [[0, 0, 1]]
    """
    return jnp.maximum(jnp.cumsum(mask.astype(jnp.int32), axis=1) - 1, 0)


def from_segments(segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Positions that restart at 0 with each segment of a packed row.

    >>> from_segments(jnp.array([[1, 1, 2, 2, 2, 0]])).tolist()
    [[0, 1, 0, 1, 2, 0]]
    """
    index = jnp.arange(segments.shape[1])[None]
    before = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    starts = jnp.where(segments != before, index, 0)
    return index - jax.lax.cummax(starts, axis=1)
