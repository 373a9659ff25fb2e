"""The feed-forward half of a block."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.linear import Linear, Normal
from jaxlm.ops.dropout import dropout
from jaxlm.overrides import choose

# Hugging Face's names of activations -> the function.
ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_fast": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}
WIDE = ("batch", None, "mlp")


def activation(name: str) -> Callable[[Array], Array]:
    """The function of Hugging Face's name. Raises ConfigError for one that is not known."""
    return ACTIVATIONS[choose("activation", name, ACTIVATIONS)]


class Mlp(nn.Module):
    """down(activation(up(x))) (Vaswani et al. 2017, equation 2); dropout, if any, on what `down` reads."""

    width: int
    activation: str = "gelu_new"
    init_up: Any = Normal(0.02)
    init_down: Any = None
    dtype: Any = jnp.float32
    bias: bool = True
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], key: Array | None = None) -> Float[Array, "B T D"]:
        free = {"bias": self.bias, "dtype": self.dtype}
        up = Linear((self.width,), ("embed", "mlp"), init_kernel=self.init_up, name="up", **free)
        down = Linear((x.shape[-1],), ("mlp", "embed"), init_kernel=self.init_down or self.init_up, name="down", **free)
        return down(dropout(activation(self.activation)(up(x)), self.dropout, key, WIDE))


class GatedMlp(nn.Module):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020, equation 6)."""

    width: int
    activation: str = "silu"
    init_up: Any = Normal(0.02)
    init_down: Any = None
    dtype: Any = jnp.float32
    bias: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], key: Array | None = None) -> Float[Array, "B T D"]:
        free = {"bias": self.bias, "dtype": self.dtype}
        gate = Linear((self.width,), ("embed", "mlp"), init_kernel=self.init_up, name="gate", **free)
        up = Linear((self.width,), ("embed", "mlp"), init_kernel=self.init_up, name="up", **free)
        down = Linear((x.shape[-1],), ("mlp", "embed"), init_kernel=self.init_down or self.init_up, name="down", **free)
        return down(dropout(activation(self.activation)(gate(x)) * up(x), self.dropout, key, WIDE))
