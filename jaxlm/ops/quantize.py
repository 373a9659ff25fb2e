"""Fewer bits: numbers as small integers times a scale. Read next: `layers/attention.py` (caches), `inference/quantize.py` (weights)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MOST = 127  # of 8 bits; the range is symmetric, so that 0 is exact
STEPS = 15  # of 4 bits, from the least value of a group to its largest


def quantize(x: Float[Array, "..."], axis: int) -> tuple[Int[Array, "..."], Float[Array, "..."]]:
    """Integers of 8 bits, and the scale that they are multiplied with, one for all values along an axis (which keeps size 1)."""
    scale = jnp.maximum(jnp.abs(x).max(axis, keepdims=True), 1e-30).astype(jnp.float32) / MOST
    return jnp.clip(jnp.round(x.astype(jnp.float32) / scale), -MOST, MOST).astype(jnp.int8), scale


def quantize_between(x: Float[Array, "..."], axis: int) -> tuple[Int[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """Integers of 4 bits, scale and least value along an axis: x is about integers * scale + least. These two are kept in bfloat16."""
    x = x.astype(jnp.float32)
    least = x.min(axis, keepdims=True).astype(jnp.bfloat16)
    scale = (jnp.maximum(x.max(axis, keepdims=True) - least, 1e-30) / STEPS).astype(jnp.bfloat16)
    values = jnp.round((x - least.astype(jnp.float32)) / scale.astype(jnp.float32))
    return jnp.clip(values, 0, STEPS).astype(jnp.uint4), scale, least


@functools.partial(jax.tree_util.register_dataclass, data_fields=["values", "scale", "least"], meta_fields=["inputs"])
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A weight of few bits.

    Attributes:
      values: int8 or uint4, in the shape of the weight.
      scale: of groups of inputs, [groups, outputs]; of a table (`inputs` 0) of its rows, [V, 1].
      least: what is added after, in the same shape; None with 8 bits.
      inputs: how many leading axes of the weight are inputs.
    """

    values: Int[Array, "..."]
    scale: Float[Array, "..."]
    least: Float[Array, "..."] | None
    inputs: int

    def dense(self) -> Float[Array, "..."]:
        """The weight in float32, rounded as it is."""
        if not self.inputs:
            return self.values.astype(jnp.float32) * self.scale
        grouped = self.values.reshape(len(self.scale), -1, self.scale.shape[1]).astype(jnp.float32) * self.scale[:, None]
        return (grouped if self.least is None else grouped + self.least[:, None]).reshape(self.values.shape)


def quantize_matrix(kernel: Float[Array, "..."], inputs: int, bits: int, group: int) -> Quantized:
    """A weight whose first `inputs` axes are inputs, in groups of at most `group` with a scale each; inputs 0: a table, of 8 bits."""
    if not inputs:
        return Quantized(*quantize(kernel, -1), None, 0)
    size = math.prod(kernel.shape[:inputs])
    grouped = kernel.reshape(size // math.gcd(size, group), math.gcd(size, group), -1)
    values, *rest = quantize(grouped, 1) if bits == 8 else quantize_between(grouped, 1)
    scale, least = (*(part[:, 0] for part in rest), None)[:2]
    return Quantized(values.reshape(kernel.shape), scale, least, inputs)
