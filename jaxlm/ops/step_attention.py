"""Attention of one new token over a cache that does not hold it yet. Read next: `layers/attention.py`.

The cache is read first and written afterwards. Written first and read then, XLA would make the new cache twice, once for the
result and once for the products, and copy it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.ops.attention import UNSEEN, Mask
from jaxlm.sharding import spec


def attend_step(
    query: Float[Array, "B 1 N H"],
    new: tuple[Float[Array, "B 1 K H"], Float[Array, "B 1 K H"]],
    cached: tuple[Float[Array, "B K S H"], Float[Array, "B K S H"]],
    mask: Mask,
    bias: Float[Array, "#B N 1 S"] | None = None,
    *,
    scale: float,
    softcap: float | None = None,
) -> Float[Array, "B 1 N H"]:
    """What `ops.attention.attend` gives once the key and value of `new` stand in slot `mask.offset` of the cache.

    Args:
      new: key and value of the token.
      cached: keys and values; what is in slot `mask.offset` does not matter, if it is finite.
    """
    B, _, N, H = query.shape
    keys, values = cached
    K, S = keys.shape[1:3]
    grouped = jnp.reshape(query, (B, K, N // K, H), out_sharding=spec("batch", "kv_heads", None, None))
    here = jnp.arange(S) == mask.offset
    dot = lambda spelling, *arrays: jnp.einsum(spelling, *arrays, preferred_element_type=jnp.float32)
    logits = jnp.where(here, dot("bkgh,btkh->bkgt", grouped, new[0]), dot("bkgh,bksh->bkgs", grouped, keys)) * scale
    logits = logits if softcap is None else softcap * jnp.tanh(logits / softcap)
    logits = logits if bias is None else logits + bias.astype(jnp.float32).reshape(bias.shape[0], K, N // K, S)
    weights = jax.nn.softmax(jnp.where(mask.dense(1, S), logits, UNSEEN), axis=-1)
    own = jnp.where(here, weights, 0.0).sum(-1, keepdims=True).astype(query.dtype)
    rest = jnp.where(here, 0.0, weights).astype(query.dtype)
    mixed = jnp.einsum("bkgs,bksh->bkgh", rest, values) + own * new[1].reshape(B, K, 1, H)
    return jnp.reshape(mixed, (B, 1, N, H), out_sharding=spec("batch", None, "heads", None))
