"""Positions of tokens, where padding, packing and caches move them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
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


def shift_right(targets: Int[Array, "B T"], start_id: int, segments: Int[Array, "B T"] | None = None) -> Int[Array, "B T"]:
    """What a decoder reads to predict `targets`: each token one place later, and `start_id` first.

    Args:
      segments: packed targets, or a mask of them: `start_id` comes first in each segment.

    >>> shift_right(jnp.array([[5, 6, 7, 8]]), 0, jnp.array([[1, 1, 2, 2]])).tolist()
    [[0, 5, 0, 7]]
    """
    before = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=start_id)
    if segments is None:
        return before
    return jnp.where(from_segments(segments) == 0, start_id, before)


@functools.cache
def sinusoids(count: int, width: int, interleaved: bool = True) -> np.ndarray:
    """The table [count, width] of fixed positions (Vaswani et al. 2017, section 3.5), in float32.

    Sine and cosine of each frequency are neighbours, as in the paper, or, not interleaved, all sines come first (Marian).

    >>> sinusoids(2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    angles = np.arange(count)[:, None] / np.power(10000, np.arange(0, width, 2) / width)  # in float64: 1000 radians are many
    sines, cosines = np.sin(angles), np.cos(angles[:, : width // 2])
    table = np.empty((count, width), np.float32)
    at = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(None, sines.shape[1]), slice(sines.shape[1], None))
    table[:, at[0]], table[:, at[1]] = sines, cosines
    return table
