"""Multi-head attention: projections around `ops.attention.attend`, with an optional cache. Read next: `layers/block.py`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxlm.layers.linear import Linear, Normal
from jaxlm.ops.attention import Mask, attend

LayerCache = dict[str, Array]  # "key" and "value", [B, S, K, H]


class Attention(nn.Module):
    """softmax(q k^T) v with N query heads and K key/value heads of size H (Vaswani et al. 2017, section 3.2.2)."""

    heads: int
    head_size: int
    kv_heads: int | None = None
    dropout: float = 0.0
    init_kernel: Any = Normal(0.02)
    init_out: Any = Normal(0.02)
    implementation: str = "auto"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], mask: Mask, cache: LayerCache | None = None, key: Array | None = None
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """Returns the mixed values and the cache with the keys and values of x written at `mask.offset`."""
        kv_heads = self.kv_heads or self.heads
        q = self._project("q", self.heads)(x)
        k = self._project("k", kv_heads)(x)
        v = self._project("v", kv_heads)(x)
        if cache is not None:
            cache = {"key": write(cache["key"], k, mask.offset), "value": write(cache["value"], v, mask.offset)}
            k, v = cache["key"].astype(self.dtype), cache["value"].astype(self.dtype)
        drop = (self.dropout, key) if self.dropout and key is not None else None
        mixed = attend(q, k, v, mask, implementation=self.implementation, drop=drop)
        out = Linear((x.shape[-1],), ("heads", None, "embed"), init_kernel=self.init_out, dtype=self.dtype, name="o")
        return out(checkpoint_name(mixed, "attention")), cache

    def _project(self, name: str, heads: int) -> Linear:
        axes = ("embed", "heads", None)
        return Linear((heads, self.head_size), axes, init_kernel=self.init_kernel, dtype=self.dtype, name=name)


def write(cache: Float[Array, "B S K H"], new: Float[Array, "B T K H"], index: Array) -> Float[Array, "B S K H"]:
    """The cache with `new` at slots index, index + 1, ... of every row."""
    return jax.lax.dynamic_update_slice_in_dim(cache, new.astype(cache.dtype), index, axis=1)
