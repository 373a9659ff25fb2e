"""The feed-forward half of a block."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.linear import Linear, Normal

# Hugging Face's names of activations -> the function.
ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


class Mlp(nn.Module):
    """down(activation(up(x)))."""

    width: int
    activation: str = "gelu_new"
    init_up: Any = Normal(0.02)
    init_down: Any = Normal(0.02)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        up = Linear((self.width,), ("embed", "mlp"), init_kernel=self.init_up, dtype=self.dtype, name="up")
        down = Linear((x.shape[-1],), ("mlp", "embed"), init_kernel=self.init_down, dtype=self.dtype, name="down")
        return down(ACTIVATIONS[self.activation](up(x)))
