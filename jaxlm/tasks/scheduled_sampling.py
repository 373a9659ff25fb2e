"""Scheduled sampling: a decoder trained on some of its own predictions (Bengio et al. 2015).

For Transformers, whose positions are computed at once, in two passes (Mihaylova & Martins 2019, section 3): the first predicts,
the second is trained on inputs in which some of the true tokens are replaced by those predictions.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxlm.sharding import spec


def sampled_inputs(
    model: Any, params: Any, inputs: dict[str, Any], rate: float | Array, key: Array, drop_key: Array | None = None
) -> Int[Array, "B T"]:
    """The decoder's inputs of the second pass.

    Args:
      inputs: the arguments of the model's call; `targets` are the true inputs of the decoder, already shifted.
      rate: share of the inputs that become predictions, 0 (teacher forcing, exactly) to 1; it may grow with the step.
      key: which of them. drop_key: of dropout in the first pass.

    The first token of a row, or of a packed segment, stays: nothing predicts it. No gradient flows through the predictions.
    """
    targets = inputs["targets"]
    logits = model.apply({"params": params}, **inputs, key=drop_key).logits
    predicted = jnp.argmax(jax.lax.stop_gradient(logits), axis=-1).astype(targets.dtype)
    before = lambda x: jnp.pad(x[:, :-1], ((0, 0), (1, 0)))
    segments = inputs.get("target_segments", inputs.get("target_mask"))
    real = jnp.ones_like(targets) if segments is None else segments.astype(targets.dtype)
    follows = (real == before(real)) & (real > 0)
    chosen = jax.random.uniform(key, targets.shape, out_sharding=spec("batch", None)) < rate
    return jnp.where(follows & chosen, before(predicted), targets)
