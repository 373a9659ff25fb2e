"""Fewer bits: numbers as small integers times a scale. Read next: `layers/attention.py` (caches), `inference/quantize.py` (weights)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MOST = {8: 127, 4: 7}  # bits -> the largest value; the range is symmetric, so that 0 is exact


def quantize(x: Float[Array, "..."], axis: int, bits: int = 8) -> tuple[Int[Array, "..."], Float[Array, "..."]]:
    """Integers, and the scale that they are multiplied with, one for all values along an axis (which keeps size 1)."""
    scale = jnp.maximum(jnp.abs(x).max(axis, keepdims=True), 1e-30).astype(jnp.float32) / MOST[bits]
    values = jnp.clip(jnp.round(x.astype(jnp.float32) / scale), -MOST[bits], MOST[bits])
    return values.astype(jnp.int8 if bits == 8 else jnp.int4), scale


@functools.partial(jax.tree_util.register_dataclass, data_fields=["values", "scale"], meta_fields=["inputs"])
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A weight of few bits.

    Attributes:
      values: int8 or int4, in the shape of the weight.
      scale: of groups of inputs, [groups, outputs]; of a table (`inputs` 0) of its rows, [V, 1].
      inputs: how many leading axes of the weight are inputs.
    """

    values: Int[Array, "..."]
    scale: Float[Array, "..."]
    inputs: int

    def dense(self) -> Float[Array, "..."]:
        """The weight in float32, rounded as it is."""
        if not self.inputs:
            return self.values.astype(jnp.float32) * self.scale
        grouped = self.values.reshape(len(self.scale), -1, self.scale.shape[1]).astype(jnp.float32)
        return (grouped * self.scale[:, None]).reshape(self.values.shape)


def quantize_matrix(kernel: Float[Array, "..."], inputs: int, bits: int, group: int) -> Quantized:
    """A weight whose first `inputs` axes are inputs, in groups of at most `group` of them with a scale each; inputs 0: a table."""
    if not inputs:
        return Quantized(*quantize(kernel, -1, bits), 0)
    size = math.prod(kernel.shape[:inputs])
    values, scale = quantize(kernel.reshape(size // math.gcd(size, group), math.gcd(size, group), -1), 1, bits)
    return Quantized(values.reshape(kernel.shape), scale[:, 0], inputs)
