"""The cache contract of decoders: what comes in with `cache=`, and what goes out as `out.cache`.

A cache is {"layers": keys and values, "index": slots filled, "valid": which slots hold real tokens}. All rows fill the
same slots, so that writing is one slice; rows of unequal length are padded on the left. `layers.sight` marks the slots. A decoder
over an encoder has a layer's keys and values under "self"; the first call adds its "memory" (keys and values of the encoder's
states) and "memory_mask" (which of them are real), and later calls need nothing else.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxlm.sharding import spec

Cache = dict[str, Any]
BLOCK = 32  # slots that `reorder` moves at a time


def make_cache(
    layers: int, shape: tuple[int, int, int, int], dtype: Any = jnp.float32, layout: str = "unrolled", cross: bool = False
) -> Cache:
    """An empty cache.

    Args:
      shape: (B, S, K, H): rows, slots, key/value heads, head size.
      dtype: int8 keeps a scale, in float32, beside each key and value of a head.
      layout: of the model's parameters: a tuple of layers, or one array with a leading layer axis.
      cross: for a decoder over an encoder.
    """
    rows, slots, heads, size = shape
    names = ("batch", "kv_heads", None, None)
    leading = (layers,) if layout == "stacked" else ()
    sharding = spec(*(None,) * len(leading), *names)
    zeros = lambda size, dtype: jnp.zeros((*leading, rows, heads, slots, size), dtype, out_sharding=sharding)
    scales = {} if jnp.dtype(dtype) != jnp.int8 else {name: (1, jnp.float32) for name in ("key_scale", "value_scale")}
    own = lambda: {name: zeros(*of) for name, of in {"key": (size, dtype), "value": (size, dtype), **scales}.items()}
    one = lambda: {"self": own()} if cross else own()
    valid = jnp.zeros((rows, slots), bool, out_sharding=spec("batch", None))
    return {"layers": one() if leading else tuple(one() for _ in range(layers)), "index": jnp.zeros((), jnp.int32), "valid": valid}


def layers_of(cache: Cache | None) -> Any:
    """The keys and values of a cache."""
    return None if cache is None else cache["layers"]


def leave(cache: Cache | None, layers: Any, count: int) -> Cache | None:
    """The cache that the next call continues, `count` slots on."""
    return None if cache is None else {**cache, "layers": layers, "index": cache["index"] + count}


def extend(cache: Cache, slots: int) -> Cache:
    """The same cache with room for `slots`; the encoder's part stays as it is, and so do folded layers (`ring.py`)."""
    valid = cache["valid"]
    more = slots - valid.shape[1]
    folded = lambda leaf: leaf.shape[-2] < valid.shape[1]
    wide = lambda leaf: leaf if folded(leaf) else jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 2) + [(0, more), (0, 0)])
    layers = _own(wide, lambda leaf: leaf, cache["layers"])
    return {**cache, "layers": layers, "valid": jnp.pad(valid, ((0, 0), (0, more)))}


def repeat(cache: Cache, times: int) -> Cache:
    """Every row `times` times, one after the other."""
    return cache if times == 1 else pick(cache, jnp.repeat(jnp.arange(cache["valid"].shape[0]), times))


def pick(cache: Cache, rows: Int[Array, "R"]) -> Cache:
    """The cache of these rows."""
    layers = jax.tree.map(lambda leaf: _rows(leaf, rows, leaf.ndim - 4), cache["layers"])
    marks = {name: _rows(cache[name], rows, 0) for name in ("valid", "memory_mask") if name in cache}
    return {**cache, "layers": layers, **marks}


def reorder(cache: Cache, rows: Int[Array, "R"], start: Int[Array, ""], stop: Int[Array, ""]) -> Cache:
    """The cache of these rows, where only slots start ... stop - 1 of their own keys and values differ: beams of one prompt.

    It is done in place, block by block of the slots, and not at all where every row stays: `pick` would move every slot there is.
    """
    slots = cache["valid"].shape[1]
    size = math.gcd(BLOCK, slots)
    stop = jnp.where((rows == jnp.arange(len(rows))).all(), start // size, -(-stop // size))
    take = lambda leaf: _rows(leaf, rows, leaf.ndim - 4)
    some = lambda change: lambda leaf: change(leaf) if leaf.shape[-2] == slots else leaf
    keep = lambda leaf: leaf

    def move(block, layers):
        part = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, block * size, size, axis=leaf.ndim - 2)
        put = lambda leaf: jax.lax.dynamic_update_slice_in_dim(leaf, take(part(leaf)), block * size, axis=leaf.ndim - 2)
        return _own(some(put), keep, layers)

    layers = _own(lambda leaf: leaf if leaf.shape[-2] == slots else take(leaf), keep, cache["layers"])  # a folded window is short
    return {**cache, "layers": jax.lax.fori_loop(start // size, stop, move, layers)}


def _rows(leaf: Array, rows: Array, axis: int) -> Array:
    """Rows of an array whose axis `axis` is the batch."""
    heads = ["kv_heads", None, None] if leaf.ndim - axis == 4 else [None]
    sharding = spec(*[None] * axis, "batch", *heads)
    return leaf.at[(slice(None),) * axis + (rows,)].get(mode="clip", out_sharding=sharding)


def _own(change: Any, other: Any, layers: Any) -> Any:
    """Changes the decoder's own keys and values, and by `other` those of the encoder."""
    part = lambda path: next((entry.key for entry in path if getattr(entry, "key", None) in ("self", "memory")), "self")
    return jax.tree_util.tree_map_with_path(lambda path, leaf: (change if part(path) == "self" else other)(leaf), layers)
