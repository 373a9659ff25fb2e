"""How a batch of labelled examples is given to a model: the same for every task over records."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MODEL_INPUTS = ("token_types", "segments")


def logits_of(model: Any, params: Any, batch: dict[str, Array], key: Array | None = None) -> Float[Array, "..."]:
    """The logits of the model's head, per token of packed rows [B, T, ...].

    Args:
      key: of dropout; None: none.
    """
    inputs = {name: batch[name] for name in MODEL_INPUTS if name in batch}
    return model.apply({"params": params}, batch["tokens"], key=key, **inputs).logits


def twice(batch: dict[str, Array]) -> dict[str, Array]:
    """Every row of a batch two times, the copies after the rows."""
    return jax.tree.map(lambda rows: jnp.concatenate([rows, rows]), batch)
