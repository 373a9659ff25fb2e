"""x W for a matrix that lies by its outputs, in parts of them: what a CPU is quick at where x has few rows.

Decoding multiplies every matrix with a row or a few. XLA's CPU library does that on one core, and goes through a matrix that lies by
its inputs (as ours do, for training) against the order of its memory. Here each core has a part of the outputs, as a batch of products,
and reads it in order. Read next: `inference/turn.py`, `layers/linear.py`.
"""

import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FEW = range(4, 33)  # rows of x; one alone waits for the memory either way
MOST = 8  # parts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Turned:
    """A weight W [*inputs, *outputs] for products alone.

    Attributes:
      values: the numbers of W^T in their order, under W's own shape, which Flax compares.
    """

    values: Float[Array, "..."]

    def times(self, x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """x W, in the type of x."""
        return by_rows(x, self.values.astype(x.dtype).reshape(-1, x.shape[1]))


def turn(kernel: Float[Array, "..."], inputs: int) -> Turned:
    """A kernel whose first `inputs` axes are inputs, laid by its outputs."""
    rows = math.prod(kernel.shape[:inputs])
    return Turned(kernel.reshape(rows, -1).T.reshape(kernel.shape))


def by_rows(x: Float[Array, "n d"], table: Float[Array, "f d"]) -> Float[Array, "n f"]:
    """x table^T, each core with its part of the rows of the table."""
    parts = math.gcd(len(table), _cores())
    y = jnp.einsum("pnd,pfd->npf", jnp.broadcast_to(x, (parts, *x.shape)), table.reshape(parts, -1, x.shape[1]))
    return y.reshape(len(x), -1)


def pays(rows: int, dtype: Any) -> bool:
    """Whether so many rows, in this type, are multiplied faster so, here: on a CPU, without a mesh."""
    return rows in FEW and jnp.dtype(dtype) == jnp.float32 and jax.default_backend() == "cpu" and jax.sharding.get_abstract_mesh().empty


def _cores() -> int:
    """The cores of this process, as a power of two."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST, 2 ** (seen.bit_length() - 1))
