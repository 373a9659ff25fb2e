"""The cache contract of decoders: what comes in with `cache=`, and what goes out as `out.cache`.

A cache is {"layers": keys and values, "index": slots filled, "valid": which slots hold real tokens}. All rows fill the
same slots, so that writing is one slice; rows of unequal length are padded on the left.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxlm.ops import positions as place
from jaxlm.ops.attention import Mask
from jaxlm.sharding import spec

Cache = dict[str, Any]


def make_cache(layers: int, shape: tuple[int, int, int, int], dtype: Any = jnp.float32, layout: str = "unrolled") -> Cache:
    """An empty cache.

    Args:
      shape: (B, S, K, H): rows, slots, key/value heads, head size.
      layout: of the model's parameters: a tuple of layers, or one array with a leading layer axis.
    """
    names = ("batch", None, "heads", None)
    leading = (layers,) if layout == "stacked" else ()
    sharding = spec(*(None,) * len(leading), *names)
    one = lambda: {name: jnp.zeros((*leading, *shape), dtype, out_sharding=sharding) for name in ("key", "value")}
    valid = jnp.zeros(shape[:2], bool, out_sharding=spec("batch", None))
    return {"layers": one() if leading else tuple(one() for _ in range(layers)), "index": jnp.zeros((), jnp.int32), "valid": valid}


def enter(
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"] | None,
    segments: Int[Array, "B T"] | None,
    positions: Int[Array, "B T"] | None,
    cache: Cache | None,
) -> tuple[Mask, Int[Array, "B T"], Cache | None]:
    """What a decoder's layers need to know of this call: who sees whom, where each token stands, and the cache."""
    if cache is None:
        if positions is None:
            positions = _positions(tokens, mask, segments)
        return Mask(causal=True, keys=mask, segments=segments), positions, None
    if segments is not None:
        raise ValueError("a cache holds one text a row: packed segments cannot be continued")
    real = jnp.ones_like(tokens, bool) if mask is None else mask
    if positions is None:
        positions = cache["valid"].sum(1, dtype=jnp.int32)[:, None] + place.from_mask(real)
    valid = jax.lax.dynamic_update_slice_in_dim(cache["valid"], real, cache["index"], axis=1)
    return Mask(causal=True, keys=valid, offset=cache["index"]), positions, {**cache, "valid": valid}


def _positions(tokens, mask, segments):
    if segments is not None:
        return place.from_segments(segments)
    if mask is not None:
        return place.from_mask(mask)
    return jnp.zeros_like(tokens) + jnp.arange(tokens.shape[1], dtype=tokens.dtype)


def layers_of(cache: Cache | None) -> Any:
    """The keys and values of a cache."""
    return None if cache is None else cache["layers"]


def leave(cache: Cache | None, layers: Any, count: int) -> Cache | None:
    """The cache that the next call continues, `count` slots on."""
    return None if cache is None else {**cache, "layers": layers, "index": cache["index"] + count}
