"""Caches of layers that see a window only: as many slots as the window is wide, the newest token in the place of the oldest.

A cache with such layers has "ring", which of their slots are real. It is made of a whole cache once that has more slots than the
window; tokens are then read one at a time. Read next: `layers/sight.py`, whose sights know the ring.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

Cache = dict[str, Any]
Windows = tuple[int | None, ...]  # a layer: how many tokens it sees, itself among them; None: all


def fold_windows(cache: Cache, windows: Windows) -> Cache:
    """The cache with the windowed layers folded, where it has more slots than their window and is not folded yet."""
    size = next(filter(None, windows), None)
    slots = cache["valid"].shape[1]
    if size is None or slots <= size or "ring" in cache or not isinstance(cache["layers"], tuple):
        return cache
    place = _newest(cache["index"], size)
    take = lambda leaf: jnp.take(leaf, jnp.maximum(place, 0), axis=-2)
    fold = lambda layer, window: {name: take(leaf) for name, leaf in layer.items()} if window else layer
    layers = tuple(map(fold, cache["layers"], windows))
    return {**cache, "layers": layers, "ring": jnp.take(cache["valid"], jnp.maximum(place, 0), axis=1) & (place >= 0)}


def _newest(filled: Int[Array, ""], size: int) -> Int[Array, "S"]:
    """Of every slot of the ring, the newest of the `filled` slots that belongs there; below 0 where there is none yet.

    >>> _newest(jnp.int32(6), 4).tolist(), _newest(jnp.int32(3), 4).tolist()
    ([4, 5, 2, 3], [0, 1, 2, -1])
    """
    return filled - 1 - (filled - 1 - jnp.arange(size)) % size
