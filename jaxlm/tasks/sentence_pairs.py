"""Pre-training on pairs of texts: masked language modelling, and does the second text follow the first?

Next sentence (BERT, Devlin et al. 2019, section 3.1: half of the second texts come from elsewhere) and sentence order (ALBERT,
Lan et al. 2020, section 3.1: half of the pairs are turned round) differ in their rows alone, which `data/rows.py` makes.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config import Loss, Run
from jaxlm.ops.losses import plain_cross_entropy
from jaxlm.ops.noise import Vocabulary
from jaxlm.sharding import replicate
from jaxlm.tasks import masked_lm

RECORDS, HEAD = False, "pretraining"
MEASURED = ("perplexity", "accuracy", "relation_accuracy")  # beside the loss
Batch = dict[str, Array]


def features(rows: dict[str, np.ndarray], vocabulary: Vocabulary, draws: np.ndarray, options: Run) -> dict[str, np.ndarray]:
    """`masked_lm.features` of pairs: "token_types" [..., T] and "labels" [...] (0: it follows, 1: it does not) stay as they are."""
    return masked_lm.features(rows, vocabulary, draws, options)


def loss(model: Any, params: Any, batch: Batch, key: Array | None, options: Loss = Loss()) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over the hidden tokens of their cross-entropy and that of their pair's relation, in nats, and the tokens' number.

    So the mean is that of the two losses added, and stays right over micro-batches and hosts.
    """
    out = _apply(model, params, batch, key)
    hidden, weight = masked_lm.cross_entropy(out.logits, batch, options)
    return hidden + _relation(out, batch), weight


def measure(model: Any, params: Any, batch: Batch, options: Loss = Loss()) -> tuple[Array, Array, dict[str, Array]]:
    """`loss` without dropout, and what else `metrics` counts, to be summed over batches."""
    out = _apply(model, params, batch, None)
    hidden, weight = masked_lm.cross_entropy(out.logits, batch, options)
    pairs = batch["weights"].max(1)
    found = (replicate(out.relation).argmax(-1) == replicate(batch["labels"])) * replicate(pairs)
    counted = {"hidden": hidden, "right": masked_lm.right(out.logits, batch), "pairs": pairs.sum(), "related": found.sum()}
    return hidden + _relation(out, batch), weight, counted


def predictions(model: Any, params: Any, batch: Batch) -> Int[Array, "B"]:
    """0 where the second text seems to follow the first, 1 where it does not."""
    return replicate(_apply(model, params, batch, None).relation).argmax(-1)


def metrics(total: float, weight: float, units: dict[str, float]) -> dict[str, float]:
    """Both losses together and, where they were counted, the perplexity and accuracy of hidden tokens, and the relation's accuracy."""
    tokens = max(weight, 1.0)
    result = {"loss": total / tokens}
    if "hidden" not in units:
        return result
    result["perplexity"] = math.exp(min(units["hidden"] / tokens, 700.0))
    return result | {"accuracy": units["right"] / tokens, "relation_accuracy": units["related"] / max(units["pairs"], 1.0)}


def _apply(model, params, batch, key):
    names = {"token_types": batch["token_types"], "mask": batch["segments"] > 0, "places": batch["places"]}
    return model.apply({"params": params}, batch["tokens"], **names, key=key)


def _relation(out, batch):
    return plain_cross_entropy(out.relation, batch["labels"], batch["weights"].sum(1))[0]
