"""Weights of 8 or 4 bits for models that only write: a quarter or some sixth of float32's memory.

Products are as before: each weight is rounded once, here, and multiplied out by `dense` inside the compiled step that uses it. On a CPU
that costs time; it saves memory. Norms and biases stay as they are.
"""

import dataclasses
from typing import Any

import jax

from jaxlm.errors import ConfigError
from jaxlm.layers.block import unstack
from jaxlm.ops.quantize import Quantized, quantize_matrix

GROUP = {8: 2**30, 4: 32}  # bits -> inputs that share a scale: with 8 all of them
TABLES = {"word", "wte", "embed", "shared", "source", "target", "lm_head"}


def quantize_params(params: dict, bits: int = 8, group: int | None = None) -> dict:
    """Parameters whose matrices have 8 or 4 bits a number, for `generate_tokens` and its like; they cannot be trained.

    Tables of embeddings have 8 in either case: coarser ones harm most. A number of 4 bits has a scale and a least value beside 31
    others, 5 bits in all.

    Args:
      group: inputs that share a scale; None: all with 8 bits, 32 with 4.

    Raises ConfigError for another number of bits, and for parameters in the stacked layout.
    """
    if bits not in GROUP:
        raise ConfigError(f"bits={bits}: weights have 8 or 4 bits")
    change = lambda path, leaf: _changed([entry.key for entry in path], leaf, bits, group or GROUP[bits])
    return jax.tree_util.tree_map_with_path(change, params)


def with_few_bits(model: Any, params: dict, bits: int) -> tuple[Any, dict]:
    """A model and its parameters for weights of 8 or 4 bits: one in the stacked layout is unrolled first."""
    compute = dataclasses.replace(model.compute, layout="unrolled")
    return model.clone(compute=compute), quantize_params(unstack(params), bits)


def dense(params: Any) -> Any:
    """Parameters as a model takes them; those of few bits multiplied out, to be called inside jit, where each lives while it is used."""
    few = lambda leaf: isinstance(leaf, Quantized)
    return jax.tree.map(lambda leaf: leaf.dense() if few(leaf) else leaf, params, is_leaf=few)


def _changed(names: list[str], leaf: Any, bits: int, group: int) -> Any:
    if "stacked" in names:
        raise ConfigError("weights of few bits are for the unrolled layout: load the model with compute.layout=unrolled")
    if names[-1] == "kernel" and leaf.ndim > 1:
        return quantize_matrix(leaf, 2 if names[-2] == "o" else 1, bits, group)
    return quantize_matrix(leaf, 0, bits, group) if names[0] in TABLES and len(names) == 1 else leaf


def size(params: Any) -> int:
    """Bytes of parameters: of 4 bits two numbers a byte."""
    return sum(leaf.size * 4 // 8 if leaf.dtype == "uint4" else leaf.nbytes for leaf in jax.tree.leaves(params))
