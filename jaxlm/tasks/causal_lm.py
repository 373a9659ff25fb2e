"""Causal language modelling: predict each token from those before it. Four plain functions. Read next: `training/step.py`."""

import math
from typing import Any

from jaxtyping import Array, Float

from jaxlm.config import Loss
from jaxlm.ops.losses import plain_cross_entropy, token_cross_entropy
from jaxlm.ops.output_layer import output_layer
from jaxlm.sharding import gather

RECORDS, ROWS = False, "next"
MEASURED = ("perplexity", "bits_per_byte")  # beside the loss
Batch = dict[str, Array]


def features(rows: dict[str, Any], vocabulary: Any = None, draws: Any = None, options: Any = None) -> dict[str, Any]:
    """Rows of the store are examples as they are: tokens, targets, weights, and segments if packed; each [B, T]. No noise is drawn."""
    return rows


def loss(model: Any, params: Any, batch: Batch, key: Array | None, options: Loss = Loss()) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the cross-entropies of the targets, in nats, and the sum of their weights.

    Args:
      key: of dropout; None: no dropout.
    """
    out = model.apply({"params": params}, batch["tokens"], segments=batch.get("segments"), key=key)
    if not getattr(model, "plain_logits", True):
        return plain_cross_entropy(
            out.logits, batch["targets"], batch["weights"], label_smoothing=options.label_smoothing, z_loss=options.z_loss
        )
    layer = output_layer(model, params)
    table = gather(layer.pop("table").astype(out.hidden.dtype), "vocab", "embed")
    smooth = {"label_smoothing": options.label_smoothing, "z_loss": options.z_loss, "chunk": options.chunk}
    return token_cross_entropy(out.hidden, table, batch["targets"], batch["weights"], **layer, **smooth)


def predictions(model: Any, params: Any, batch: Batch) -> Array:
    """The likeliest next token at every place: int32 [B, T]."""
    return model.apply({"params": params}, batch["tokens"], segments=batch.get("segments")).logits.argmax(-1)


def metrics(total: float, weight: float, units: dict[str, float]) -> dict[str, float]:
    """From a summed loss in nats: loss a token, perplexity, and bits per byte where the number of bytes is known."""
    mean = total / max(weight, 1.0)
    result = {"loss": mean, "perplexity": math.exp(min(mean, 700.0))}
    if units.get("bytes"):
        result["bits_per_byte"] = total / math.log(2) / units["bytes"]
    return result
