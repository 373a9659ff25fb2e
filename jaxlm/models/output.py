"""What every model returns."""

import dataclasses
import functools
from typing import Any

import jax
from jaxtyping import Array, Float


@functools.partial(jax.tree_util.register_dataclass, data_fields=["hidden", "logits", "pooled", "cache"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Output:
    """Under jit, what is not used is not computed: a training step that takes `hidden` never makes the logits."""

    hidden: Float[Array, "B T D"]
    logits: Float[Array, "..."] | None = None
    pooled: Float[Array, "B D"] | None = None
    cache: Any = None
