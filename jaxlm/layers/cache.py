"""The cache contract of decoders: what comes in with `cache=`, and what goes out as `out.cache`.

A cache is {"layers": keys and values, "index": slots filled, "valid": which slots hold real tokens}. All rows fill the
same slots, so that writing is one slice; rows of unequal length are padded on the left. `layers.sight` marks the slots. A decoder
over an encoder has a layer's keys and values under "self"; the first call adds its "memory" (keys and values of the encoder's
states) and "memory_mask" (which of them are real), and later calls need nothing else.
"""

from typing import Any

import jax.numpy as jnp

from jaxlm.sharding import spec

Cache = dict[str, Any]


def make_cache(
    layers: int, shape: tuple[int, int, int, int], dtype: Any = jnp.float32, layout: str = "unrolled", cross: bool = False
) -> Cache:
    """An empty cache.

    Args:
      shape: (B, S, K, H): rows, slots, key/value heads, head size.
      layout: of the model's parameters: a tuple of layers, or one array with a leading layer axis.
      cross: for a decoder over an encoder.
    """
    names = ("batch", None, "kv_heads", None)
    leading = (layers,) if layout == "stacked" else ()
    sharding = spec(*(None,) * len(leading), *names)
    own = lambda: {name: jnp.zeros((*leading, *shape), dtype, out_sharding=sharding) for name in ("key", "value")}
    one = lambda: {"self": own()} if cross else own()
    valid = jnp.zeros(shape[:2], bool, out_sharding=spec("batch", None))
    return {"layers": one() if leading else tuple(one() for _ in range(layers)), "index": jnp.zeros((), jnp.int32), "valid": valid}


def layers_of(cache: Cache | None) -> Any:
    """The keys and values of a cache."""
    return None if cache is None else cache["layers"]


def leave(cache: Cache | None, layers: Any, count: int) -> Cache | None:
    """The cache that the next call continues, `count` slots on."""
    return None if cache is None else {**cache, "layers": layers, "index": cache["index"] + count}
