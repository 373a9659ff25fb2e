"""Normalizations over the last axis, computed in float32."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.linear import Constant
from jaxlm.sharding import gather


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias (Ba et al. 2016, equation 4)."""

    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = self.param("scale", Constant(1.0), (x.shape[-1],), jnp.float32, (None,))
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.epsilon) * gather(scale, None)
        if self.bias:
            y = y + gather(self.param("bias", Constant(0.0), (x.shape[-1],), jnp.float32, (None,)), None)
        return y.astype(self.dtype)


class Unchanged(nn.Module):
    """No norm, where a block asks for one."""

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        return x


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * (offset + scale) (Zhang & Sennrich 2019, equation 4).

    Gemma keeps scale - 1 (offset 1); the others keep the scale itself.
    """

    epsilon: float = 1e-6
    dtype: Any = jnp.float32
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = self.param("scale", Constant(1.0 - self.offset), (x.shape[-1],), jnp.float32, (None,))
        x = x.astype(jnp.float32)
        y = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
        return (y * (self.offset + gather(scale, None).astype(jnp.float32))).astype(self.dtype)
