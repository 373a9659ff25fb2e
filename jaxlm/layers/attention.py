"""Multi-head attention: projections around `ops.attention.attend`, with an optional cache. Read next: `layers/block.py`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxlm.layers.linear import Linear, Normal
from jaxlm.layers.sight import Sight
from jaxlm.ops.attention import Mask, attend
from jaxlm.ops.rotary import rotate

LayerCache = dict[str, Array]  # "key" and "value", [B, S, K, H]


class Attention(nn.Module):
    """softmax(q k^T) v with N query heads and K key/value heads of size H (Vaswani et al. 2017, section 3.2.2).

    Attributes:
      bias: of q, k and v; out_bias: of o.
      init_out: of o, init_query: of q; None: as the others.
      scale: of q k^T; None: H ** -0.5.
      softcap: see `attend`.
      q_norm, k_norm: norms over the features of a head, before the rotation (Qwen 3, Gemma 3).
    """

    heads: int
    head_size: int
    kv_heads: int | None = None
    dropout: float = 0.0
    init_kernel: Any = Normal(0.02)
    init_out: Any = None
    implementation: str = "auto"
    dtype: Any = jnp.float32
    bias: bool = True
    out_bias: bool = True
    scale: float | None = None
    softcap: float | None = None
    q_norm: nn.Module | None = None
    k_norm: nn.Module | None = None
    init_query: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], sight: Sight, cache: LayerCache | None = None, key: Array | None = None
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """Returns the mixed values and the cache with the keys and values of x written at `mask.offset`."""
        q = self._project("q", self.heads)(x)
        k, v = self._keys_and_values(x)
        q, k = (q if self.q_norm is None else self.q_norm(q)), (k if self.k_norm is None else self.k_norm(k))
        if sight.rotation is not None:
            q, k = rotate(q, *sight.rotation), rotate(k, *sight.rotation)
        if cache is not None:
            cache = {"key": write(cache["key"], k, sight.mask.offset), "value": write(cache["value"], v, sight.mask.offset)}
            k, v = cache["key"].astype(self.dtype), cache["value"].astype(self.dtype)
        return self._mix(x.shape[-1], q, k, v, sight.mask, sight.bias, key), cache

    def _keys_and_values(self, x):
        kv_heads = self.kv_heads or self.heads
        return self._project("k", kv_heads)(x), self._project("v", kv_heads)(x)

    def _project(self, name: str, heads: int) -> Linear:
        axes = ("embed", "heads" if name == "q" else "kv_heads", None)
        init = self.init_query if name == "q" and self.init_query is not None else self.init_kernel
        return Linear((heads, self.head_size), axes, self.bias, init, self.dtype, name=name)

    def _mix(self, width, q, k, v, mask: Mask, bias, key):
        drop = (self.dropout, key) if self.dropout and key is not None else None
        more = {"scale": self.scale, "softcap": self.softcap, "drop": drop}
        mixed = checkpoint_name(attend(q, k, v, mask, bias, implementation=self.implementation, **more), "attention")
        return Linear((width,), ("heads", None, "embed"), self.out_bias, self.init_out or self.init_kernel, self.dtype, name="o")(mixed)


class CrossAttention(Attention):
    """Attention whose keys and values are those of the encoder's hidden states (Vaswani et al. 2017, section 3.2.3)."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], sight: Sight, cache: LayerCache | None = None, key: Array | None = None
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """With `sight.memory`, its keys and values are computed and, where there is a cache, kept; without, the cache has them."""
        q = self._project("q", self.heads)(x)
        k, v = (cache["key"], cache["value"]) if sight.memory is None else self._keys_and_values(sight.memory)
        kept = None if cache is None else {"key": k, "value": v}
        return self._mix(x.shape[-1], q, k.astype(self.dtype), v.astype(self.dtype), sight.memory_mask, None, key), kept


def write(cache: Float[Array, "B S K H"], new: Float[Array, "B T K H"], index: Array) -> Float[Array, "B S K H"]:
    """The cache with `new` at slots index, index + 1, ... of every row."""
    return jax.lax.dynamic_update_slice_in_dim(cache, new.astype(cache.dtype), index, axis=1)
