"""Replaced-token detection (ELECTRA, Clark et al. 2020): a small masked LM fills the gaps, and the model finds what it has replaced.

The model is `models/electra_pair.py`: a generator and a discriminator over the same embeddings.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config import Loss, Run
from jaxlm.ops.dropout import split
from jaxlm.ops.noise import Vocabulary
from jaxlm.sharding import spec
from jaxlm.tasks import masked_lm

RECORDS, ROWS = False, "own"
MEASURED = ("perplexity", "accuracy", "detection_accuracy")  # beside the loss
Batch = dict[str, Array]


def features(rows: dict[str, np.ndarray], vocabulary: Vocabulary, draws: np.ndarray, options: Run) -> dict[str, np.ndarray]:
    """Those of `masked_lm`: what the generator reads and is to predict."""
    return masked_lm.features(rows, vocabulary, draws, options)


def loss(model: Any, params: Any, batch: Batch, key: Array | None, options: Loss = Loss()) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over the hidden tokens of the generator's loss and `model.detection` times their row's mean detection loss, and their number.

    No gradient flows through the tokens that the generator draws (section 2). Without a key they are drawn by a fixed one.
    """
    return measure(model, params, batch, options, key)[:2]


def measure(
    model: Any, params: Any, batch: Batch, options: Loss = Loss(), key: Array | None = None
) -> tuple[Array, Array, dict[str, Array]]:
    """`loss`, without dropout where there is no key, and what else `metrics` counts, to be summed over batches."""
    keys = split(key, 3)
    logits = model.generate(params, batch, keys[0])
    hidden, weight = masked_lm.cross_entropy(logits, batch, options)
    tokens, replaced = corrupt(batch, sample(logits, jax.random.key(0) if key is None else keys[2]))
    found = model.discriminate(params, tokens, batch.get("segments"), keys[1])
    real = jnp.ones_like(found) if batch.get("segments") is None else (batch["segments"] > 0).astype(found.dtype)
    detection = ((jax.nn.softplus(found) - replaced * found) * real).sum(1) / jnp.maximum(real.sum(1), 1)
    total = hidden + model.detection * (detection * batch["weights"].sum(1)).sum()
    agree = ((found > 0) == replaced) * real
    return total, weight, {"hidden": hidden, "right": masked_lm.right(logits, batch), "real": real.sum(), "detected": agree.sum()}


def predictions(model: Any, params: Any, batch: Batch) -> Array:
    """The discriminator's logits for the tokens as they are, [B, T]: above 0 it takes a token for a replaced one."""
    return model.discriminate(params, batch["tokens"], batch.get("segments"), None)


def metrics(total: float, weight: float, units: dict[str, float]) -> dict[str, float]:
    """Both losses together and, where they were counted, the generator's perplexity and accuracy and the share of tokens judged right."""
    tokens = max(weight, 1.0)
    result = {"loss": total / tokens}
    if "hidden" not in units:
        return result
    result["perplexity"] = math.exp(min(units["hidden"] / tokens, 700.0))
    return result | {"accuracy": units["right"] / tokens, "detection_accuracy": units["detected"] / max(units["real"], 1.0)}


def sample(logits: Float[Array, "B P V"], key: Array) -> Int[Array, "B P"]:
    """A token from each distribution, by its cumulative sum: one uniform number a place, not one a logit. No gradient flows."""
    rows = jax.lax.stop_gradient(logits)
    rows = rows if (layout := spec("batch", None, None)) is None else jax.reshard(rows, layout)
    reached = jnp.cumsum(jax.nn.softmax(rows), axis=-1)
    drawn = jax.random.uniform(key, logits.shape[:2], out_sharding=spec("batch", None)) * reached[..., -1]
    return jnp.minimum((reached <= drawn[..., None]).sum(-1), logits.shape[-1] - 1)


def corrupt(batch: Batch, drawn: Int[Array, "B P"]) -> tuple[Int[Array, "B T"], Array]:
    """The rows with the drawn tokens in the hidden ones' places, and where these are others than the true ones: bool [B, T]."""
    tokens = batch["tokens"]
    here = (batch["places"][..., None] == jnp.arange(tokens.shape[1])) & (batch["weights"] > 0)[..., None]
    filled = jnp.where(here.any(1), jnp.where(here, drawn[..., None], 0).sum(1), tokens)
    return filled, (here & (drawn != batch["targets"])[..., None]).any(1)
