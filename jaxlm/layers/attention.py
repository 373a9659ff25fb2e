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
from jaxlm.ops.quantize import quantize
from jaxlm.ops.rotary import rotate
from jaxlm.ops.step_attention import attend_step
from jaxlm.sharding import spec

# "key" and "value", [B, K, S, H]: as the products read them, so that a step copies none. Of int8, each has a "..._scale", [B, K, S, 1].
LayerCache = dict[str, Array]


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
        if cache is not None and x.shape[1] == 1:
            mixed, cache = self._step(q, k, v, sight, cache)
            return self._out(x.shape[-1], mixed), cache
        if cache is not None:
            cache = write(cache, k, v, sight.mask.offset)
            k, v = map(heads_last, read(cache, self.dtype))
        return self._mix(x.shape[-1], q, k, v, sight.mask, sight.bias, key), cache

    def _step(self, q, k, v, sight, cache):
        """One token more: the cache is read, then written where it lies."""
        free = {"scale": self.scale or self.head_size**-0.5, "softcap": self.softcap}
        mixed = attend_step(q, (k, v), read(cache, self.dtype), sight.mask, sight.bias, **free)
        # What is written depends on what was read, or XLA would copy the cache of a CPU to keep the one from the other.
        after = mixed[:, :, :1, :1] * 0.0 if spec("batch") is None else 0.0
        return mixed, write(cache, k + after, v + after, sight.mask.offset)

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
        return self._out(width, mixed)

    def _out(self, width, mixed):
        return Linear((width,), ("heads", None, "embed"), self.out_bias, self.init_out or self.init_kernel, self.dtype, name="o")(mixed)


class CrossAttention(Attention):
    """Attention whose keys and values are those of the encoder's hidden states (Vaswani et al. 2017, section 3.2.3)."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], sight: Sight, cache: LayerCache | None = None, key: Array | None = None
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """With `sight.memory`, its keys and values are computed and, where there is a cache, kept; without, the cache has them."""
        q = self._project("q", self.heads)(x)
        k, v = map(heads_last, (cache["key"], cache["value"])) if sight.memory is None else self._keys_and_values(sight.memory)
        kept = None if cache is None else {"key": heads_first(k), "value": heads_first(v)}
        return self._mix(x.shape[-1], q, k.astype(self.dtype), v.astype(self.dtype), sight.memory_mask, None, key), kept


def heads_first(x: Float[Array, "B S K H"]) -> Float[Array, "B K S H"]:
    """Keys or values as a cache has them."""
    return x.transpose(0, 2, 1, 3)


heads_last = heads_first  # and back


def read(cache: LayerCache, dtype: Any) -> tuple[Float[Array, "B K S H"], Float[Array, "B K S H"]]:
    """Keys and values of a cache."""
    if "key_scale" not in cache:
        return cache["key"].astype(dtype), cache["value"].astype(dtype)
    return tuple((cache[name].astype(jnp.float32) * cache[f"{name}_scale"]).astype(dtype) for name in ("key", "value"))


def write(cache: LayerCache, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], index: Array) -> LayerCache:
    """The cache with new keys and values at slots index, index + 1, ... of every row."""
    new = {"key": heads_first(k), "value": heads_first(v)}
    if "key_scale" in cache:
        for name in ("key", "value"):
            new[name], new[f"{name}_scale"] = quantize(new[name], -1)
    put = lambda old, part: jax.lax.dynamic_update_slice_in_dim(old, part.astype(old.dtype), index, axis=2)
    return {name: put(cache[name], part) for name, part in new.items()}
