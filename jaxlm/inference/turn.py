"""Weights for many steps of decoding on a CPU: their matrices laid by their outputs (`ops/turned.py`), once for all steps."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxlm.ops.turned import pays, turn

STEPS = 32  # at least: to turn the matrices takes as long as a few steps
BYTES = 2**31  # at most, as the turned matrices stand beside the others while it writes


def turn_for(model: Any, params: Any, rows: int, steps: int) -> Any:
    """Parameters for `steps` steps over so many rows: with matrices turned where that is faster, as they are where not."""
    if steps < STEPS or not pays(rows, model.compute.dtype):
        return params
    size = sum(leaf.nbytes for path, leaf in jax.tree_util.tree_leaves_with_path(params) if _is_product(path, leaf))
    return _turn_all(params) if 0 < size <= BYTES else params


@jax.jit
def _turn_all(params: Any) -> Any:
    change = lambda path, leaf: turn(leaf, 2 if path[-2].key == "o" else 1) if _is_product(path, leaf) else leaf
    return jax.tree_util.tree_map_with_path(change, params)


def _is_product(path: tuple, leaf: Array) -> bool:
    """Whether a leaf is a matrix in float32 of a layer that writes."""
    names = [getattr(entry, "key", None) for entry in path]
    return names[-1] == "kernel" and leaf.ndim > 1 and leaf.dtype == jnp.float32 and not {"encoder", "stacked"} & {*names}
