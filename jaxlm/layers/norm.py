"""Normalizations over the model axis, computed in float32."""

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

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = self.param("scale", Constant(1.0), (x.shape[-1],), jnp.float32, (None,))
        bias = self.param("bias", Constant(0.0), (x.shape[-1],), jnp.float32, (None,))
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.epsilon) * gather(scale, None) + gather(bias, None)
        return y.astype(self.dtype)
