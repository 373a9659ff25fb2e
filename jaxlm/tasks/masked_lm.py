"""Masked language modelling (Devlin et al. 2019): predict the tokens that noise has hidden from all others.

Read next: `sentence_pairs.py`, `replaced_tokens.py`.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config import Loss, Run
from jaxlm.ops.losses import plain_cross_entropy
from jaxlm.ops.noise import Vocabulary, mask_tokens
from jaxlm.sharding import replicate

RECORDS, ROWS = False, "own"
MEASURED = ("perplexity", "accuracy")  # beside the loss
Batch = dict[str, Array]


def features(rows: dict[str, np.ndarray], vocabulary: Vocabulary, draws: np.ndarray, options: Run) -> dict[str, np.ndarray]:
    """Rows of the store under noise: a function of the rows and their draws.

    Args:
      rows: arrays [..., T], as `data.batches` makes them.
      draws: uint64 [...], one a row.

    Returns the rows' own columns and, over "tokens", "targets" and "weights", those of `ops.noise.mask_tokens`: the head works
    at the "places" [..., P] alone.
    """
    tokens, lead = rows["tokens"], rows["tokens"].shape[:-1]
    flat = lambda array: array.reshape(-1, tokens.shape[-1])
    real = flat(rows.get("segments", rows["weights"] > 0).astype(np.int32))
    noised = mask_tokens(flat(tokens), real, vocabulary, draws.reshape(-1), options.masking)
    return {**rows, **{name: array.reshape(*lead, -1) for name, array in noised.items()}}


def loss(model: Any, params: Any, batch: Batch, key: Array | None, options: Loss = Loss()) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the cross-entropies of the hidden tokens, in nats, and their number. `key` is of dropout; None: none."""
    return cross_entropy(_logits(model, params, batch, key), batch, options)


def measure(model: Any, params: Any, batch: Batch, options: Loss = Loss()) -> tuple[Array, Array, dict[str, Array]]:
    """`loss` without dropout, and what else `metrics` counts, to be summed over batches."""
    logits = _logits(model, params, batch, None)
    return *cross_entropy(logits, batch, options), {"right": right(logits, batch)}


def predictions(model: Any, params: Any, batch: Batch) -> Int[Array, "B P"]:
    """The likeliest token at every place."""
    return replicate(_logits(model, params, batch, None)).argmax(-1)


def metrics(total: float, weight: float, units: dict[str, float]) -> dict[str, float]:
    """From a summed loss in nats: loss a hidden token, perplexity, and, where they were counted, the share that is predicted right."""
    mean = total / max(weight, 1.0)
    result = {"loss": mean, "perplexity": math.exp(min(mean, 700.0))}
    return result | ({"accuracy": units["right"] / max(weight, 1.0)} if "right" in units else {})


def cross_entropy(logits: Float[Array, "B P V"], batch: Batch, options: Loss) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over the places that count, and their number."""
    smooth = {"label_smoothing": options.label_smoothing, "z_loss": options.z_loss}
    return plain_cross_entropy(logits, batch["targets"], batch["weights"], **smooth)


def right(logits: Float[Array, "B P V"], batch: Batch) -> Float[Array, ""]:
    """How many hidden tokens have the highest logit."""
    hit = jnp.arange(logits.shape[-1]) == batch["targets"][..., None]
    return (batch["weights"] * (jnp.where(hit, logits, -jnp.inf).max(-1) == logits.max(-1))).sum()


def _logits(model, params, batch, key):
    return model.apply({"params": params}, batch["tokens"], segments=batch.get("segments"), places=batch["places"], key=key).logits
