"""A matrix with a bias, and the initializers of every layer.

A weight is one line: name, initializer, shape, dtype, axis names. The names say how it lies on the mesh (`sharding.AXES`).
Read next: `layers/attention.py`.
"""

import dataclasses
import functools
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.ops.product import affine
from jaxlm.ops.turned import Turned
from jaxlm.sharding import GATHERED, gather, spec

# Flax traces the initializer of a weight again at every use of the weight, to compare shapes: a tenth of all tracing, were it not kept.
_traced_once = functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))


@dataclasses.dataclass(frozen=True)
class Normal:
    """Initializer: normal values of mean 0."""

    stddev: float

    @_traced_once
    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any, axes: tuple[str | None, ...]) -> Array:
        return self.stddev * jax.random.normal(key, shape, dtype, out_sharding=spec(*axes))


@dataclasses.dataclass(frozen=True)
class Truncated:
    """Initializer: normal values of mean 0, none further from it than `cutoff` standard deviations."""

    stddev: float
    cutoff: float = 2.0

    @_traced_once
    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any, axes: tuple[str | None, ...]) -> Array:
        return self.stddev * jax.random.truncated_normal(key, -self.cutoff, self.cutoff, shape, dtype, out_sharding=spec(*axes))


@dataclasses.dataclass(frozen=True)
class Constant:
    """Initializer: the same value everywhere."""

    value: float

    @_traced_once
    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any, axes: tuple[str | None, ...]) -> Array:
        return jnp.full(shape, self.value, dtype, out_sharding=spec(*axes))


class Linear(nn.Module):
    """y = x W + b over the last axes of x.

    Attributes:
      outputs: sizes of the new axes, such as (N, H).
      axes: axis names of the weight, those of the inputs first, such as ("embed", "heads", None).
      dtype: of the product; the weights are kept in float32.
    """

    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]
    bias: bool = True
    init_kernel: Any = Normal(0.02)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        count = len(self.axes) - len(self.outputs)
        rows, inputs = x.shape[:-count], x.shape[-count:]
        kernel = self.param("kernel", self.init_kernel, (*inputs, *self.outputs), jnp.float32, self.axes)
        if not isinstance(kernel, Turned):
            kernel = gather(kernel.astype(self.dtype), *self.axes).reshape(prod(inputs), prod(self.outputs))
        # Two-dimensional products, forward and backward: the gradient of a [B, T, D] one contracts two axes, slowly on a CPU.
        flat = x.astype(self.dtype).reshape(*rows, prod(inputs)).reshape(prod(rows), prod(inputs))
        bias = self.param("bias", Constant(0.0), self.outputs, jnp.float32, self.axes[count:]) if self.bias else None
        if bias is not None:
            bias = gather(bias.astype(self.dtype), *self.axes[count:]).reshape(prod(self.outputs))
        y = affine(flat, kernel, bias, self._layout(1))
        # Left to itself, the reshape would lay a mesh axis along T where there is one row a device.
        y = jnp.reshape(y, (*rows, prod(self.outputs)), out_sharding=self._layout(len(rows)))
        return y.reshape(*rows, *self.outputs)

    def _layout(self, rows: int):
        first = self.axes[len(self.axes) - len(self.outputs)]
        return spec("batch", *[None] * (rows - 1), None if first in GATHERED else first)
