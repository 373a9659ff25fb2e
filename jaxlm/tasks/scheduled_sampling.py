"""Scheduled sampling: a decoder trained on some of its own predictions (Bengio et al. 2015).

For Transformers, whose positions are computed at once, in two passes (Mihaylova & Martins 2019, section 3): the first predicts,
the second is trained on inputs in which some of the true tokens are replaced by those predictions. `rate` says how many, step
by step. Read first: `text_to_text.py`, whose loss asks for both.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxlm.config import Loss
from jaxlm.overrides import choose
from jaxlm.sharding import spec

K = 100  # the paper's k; a run is so many of its steps that the curves reach 1 / K (exponential) and 1 / (K + 1) (sigmoid)
# Share of true inputs after the share t of a run: k - ci, k^i and k / (k + exp(i / k)) of section 2.4, where t = 1 is the last step.
KEPT = {"linear": lambda t: 1 - t, "exponential": lambda t: K**-t, "sigmoid": lambda t: K / (K + K ** (2 * t))}


def rate(step: int, steps: int, loss: Loss) -> float:
    """The share of predicted inputs at a step: 0 at the first, `loss.scheduled_sampling` at the end of the run's steps and after.

    Between them it follows the named curve of the paper (Bengio et al. 2015, section 2.4 and figure 2), stretched so that it
    begins and ends there exactly. Raises ConfigError for an unknown `loss.sampling_schedule`.

    >>> [round(rate(step, 100, Loss(scheduled_sampling=0.5, sampling_schedule="sigmoid")), 3) for step in (0, 25, 50, 75, 100)]
    [0.0, 0.041, 0.25, 0.459, 0.5]
    """
    kept = KEPT[choose("loss.sampling_schedule", loss.sampling_schedule, KEPT)]
    t = min(step / max(steps, 1), 1.0)
    return loss.scheduled_sampling * (kept(0) - kept(t)) / (kept(0) - kept(1))


def sampled_inputs(
    model: Any, params: Any, inputs: dict[str, Any], rate: float | Array, key: Array, drop_key: Array | None = None
) -> Int[Array, "B T"]:
    """The decoder's inputs of the second pass.

    Args:
      inputs: the arguments of the model's call; `targets` are the true inputs of the decoder, already shifted.
      rate: share of the inputs that become predictions, 0 (teacher forcing, exactly) to 1; one number, or one a row [B, 1].
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
