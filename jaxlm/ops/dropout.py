"""Dropout from raw random bytes, and keys that may be None.

`key=None` means deterministic everywhere in this library: there are no `train=` flags.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.sharding import spec


def dropout(x: Float[Array, "..."], rate: float, key: Array | None, axes: tuple[str | None, ...]) -> Float[Array, "..."]:
    """Zero a share of about `rate` of the elements and scale the rest by the inverse of what is kept (Srivastava et al. 2014).

    Four bytes are read from each 32-bit word and compared with a threshold, ten times cheaper than a uniform draw; the
    rate is rounded to k / 256, or to k / 65536 where that is off by more than 1 %, and the scale uses the rounded value.

    Args:
      axes: names of x's axes: the mask is drawn as x is sharded, a function of the global index, so that meshes agree.
    """
    if key is None or rate == 0.0:
        return x
    if rate >= 1.0:
        return jnp.zeros_like(x)
    width = 8 if round(rate * 256) and abs(round(rate * 256) / 256 - rate) <= 0.01 * rate else 16
    levels = 2**width
    threshold = min(max(round(rate * levels), 1), levels - 1)
    bits = _bits(key, x.shape, width, axes)
    return jnp.where(bits >= threshold, x * (levels / (levels - threshold)), 0).astype(x.dtype)


def _bits(key: Array, shape: tuple[int, ...], width: int, axes: tuple[str | None, ...]) -> Array:
    per_word = 32 // width
    *leading, last = shape
    words = jax.random.bits(key, (*leading, -(-last // per_word)), jnp.uint32, out_sharding=spec(*axes))
    small = jax.lax.bitcast_convert_type(words, jnp.uint8 if width == 8 else jnp.uint16)
    return small.reshape(*leading, -1)[..., :last]


def split(key: Array | None, count: int) -> list[Array | None]:
    """`count` keys out of one; None gives Nones."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def fold(key: Array | None, data: int | Array) -> Array | None:
    """The key of item `data`; None stays None."""
    return None if key is None else jax.random.fold_in(key, data)
