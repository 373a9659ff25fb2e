"""Sequence classification: one label of several, several at once, or a number, for a text or a pair of texts.

Sentiment is its showcase. Four plain functions over labelled records; a row of a batch may hold several short texts, and each
text's label stands at its first token. Read next: `inputs.py`, `scores.py`.
"""

import difflib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.config import Loss, Records
from jaxlm.errors import ConfigError, DataError
from jaxlm.ops.losses import plain_cross_entropy
from jaxlm.overrides import choose
from jaxlm.tasks import scores
from jaxlm.tasks.inputs import logits_of, twice
from jaxlm.tasks.texts import fit_texts

RECORDS = True
ROLES, REQUIRED, LABELLED = ("text", "pair", "label"), ("text",), ("text", "label")
KINDS = ("one", "several", "regression")


def label_names(record: dict[str, Any], options: Records) -> list[str]:
    """The names of a record's labels: of a list, or of a text with commas between them where there may be several."""
    label = record.get("label")
    if label is None or options.kind == "regression":
        return []
    if options.kind == "one" and isinstance(label, list | tuple):
        raise DataError(f"{label!r} are several labels: set records.kind=several, or leave one")
    if options.kind == "one":
        return [str(label)]
    return [str(name).strip() for name in (label.split(",") if isinstance(label, str) else label) if str(name).strip()]


def columns(options: Records) -> dict[str, tuple[tuple[int, ...], type]]:
    """What a batch holds beside tokens: name -> shape after [B, T], type."""
    labels = {"one": ((), np.int32), "several": ((len(options.labels),), np.float32), "regression": ((), np.float32)}
    return {"labels": labels[choose("records.kind", options.kind, KINDS)], "weights": ((), np.float32)}


def stratum(record: dict[str, Any], options: Records) -> str:
    """What parts of the data, held out or not, should hold evenly: the label, where it is one."""
    return label_names(record, options)[0] if options.kind == "one" and record.get("label") is not None else ""


def features(record: dict[str, Any], tokenizer: Any, options: Records, length: int) -> list[dict[str, Any]]:
    """A text, or a pair, as one example. Raises DataError for an empty text, an unknown label, or a number that is none."""
    tokens, types, cut = fit_texts(tokenizer, record.get("text"), record.get("pair"), length)
    labelled = record.get("label") is not None
    whole = {"labels": _target(record, options), "weights": float(labelled)}
    return [{"tokens": tokens, "token_types": types, "whole": whole, "cut": cut, "about": {}}]


def _target(record: dict[str, Any], options: Records) -> int | float | list[float]:
    if options.kind == "regression":
        return _number(record.get("label", 0.0))
    ids = [_label_id(name, options) for name in label_names(record, options)]
    if options.kind == "one":
        return ids[0] if ids else 0
    return [float(i in ids) for i in range(len(options.labels))]


def _number(label: Any) -> float:
    try:
        value = float(0.0 if label is None else label)
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"the label {label!r} is no number: mend it, or set records.kind=one")
    return value


def _label_id(name: str, options: Records) -> int:
    if name in options.labels:
        return options.labels.index(name)
    near = difflib.get_close_matches(name, options.labels, n=1)
    mend = f"did you mean {near[0]!r}?" if near else f"the labels are {', '.join(map(repr, options.labels[:20]))}"
    raise DataError(f"the label {name!r} was never seen in training: {mend}")


def loss(model: Any, params: Any, batch: dict[str, Array], key: Array | None, options: Loss = Loss()) -> tuple[Array, Array]:
    """Sum of the examples' losses and their number: cross-entropy over the labels, over each label, or the squared error.

    Under R-Drop every example is seen twice, under two dropouts: the mean of both losses, and `options.r_drop` times half the
    symmetric divergence of the two distributions (Liang et al. 2021, equation 3).
    """
    weights = batch["weights"]
    check_loss(batch["labels"], options)
    if not options.r_drop or key is None:
        return _loss(logits_of(model, params, batch, key), batch, options), jnp.sum(weights)
    one, two = jnp.split(logits_of(model, params, twice(batch), key), 2)
    apart = jnp.sum(_divergence(one, two, batch) * weights)
    return (_loss(one, batch, options) + _loss(two, batch, options)) / 2 + options.r_drop * apart, jnp.sum(weights)


def check_loss(labels: Array, options: Loss) -> None:
    """Refuse options that would do nothing."""
    if labels.ndim == 3 or labels.dtype == jnp.float32:
        if options.z_loss:
            raise ConfigError(f"loss.z_loss={options.z_loss} is of records.kind=one: leave it out")
        if options.label_smoothing and labels.ndim < 3:
            raise ConfigError(
                f"loss.label_smoothing={options.label_smoothing} is of labels, and records.kind=regression has none: leave it out"
            )


def _loss(logits: Float[Array, "B T L"], batch: dict[str, Array], options: Loss) -> Float[Array, ""]:
    labels, weights, smoothing = batch["labels"], batch["weights"], options.label_smoothing
    if labels.ndim == 3:
        wanted = labels * (1 - smoothing) + smoothing / 2
        return jnp.sum(jnp.mean(jax.nn.softplus(logits) - wanted * logits, axis=-1) * weights)
    if labels.dtype == jnp.float32:
        return jnp.sum(jnp.square(logits[..., 0] - labels) * weights)
    return plain_cross_entropy(logits, labels, weights, label_smoothing=smoothing, z_loss=options.z_loss)[0]


def _divergence(one: Array, two: Array, batch: dict[str, Array]) -> Float[Array, "B T"]:
    """Half of KL(p, q) + KL(q, p); of several labels summed over them, of numbers the squared difference."""
    if batch["labels"].ndim == 3:
        return jnp.mean((jax.nn.sigmoid(one) - jax.nn.sigmoid(two)) * (one - two), axis=-1) / 2
    if batch["labels"].dtype == jnp.float32:
        return jnp.square(one - two)[..., 0] / 2
    p, q = jax.nn.log_softmax(one), jax.nn.log_softmax(two)
    return jnp.sum((jnp.exp(p) - jnp.exp(q)) * (p - q), axis=-1) / 2


def predictions(outputs: list[np.ndarray], examples: list[dict[str, Any]], options: Records) -> list[dict[str, Any]]:
    """{"label", "probabilities"}, {"labels", "probabilities"} of those at one half or more, or {"value"}, for every text."""
    return [_prediction(output[0].astype(np.float64), options) for output in outputs]


def _prediction(logits: np.ndarray, options: Records) -> dict[str, Any]:
    if options.kind == "regression":
        return {"value": float(logits[0])}
    shares = probabilities(logits, options)
    named = dict(zip(options.labels, map(float, shares), strict=True))
    if options.kind == "several":
        return {"labels": [name for name, share in named.items() if share >= 0.5], "probabilities": named}
    return {"label": options.labels[int(logits.argmax())], "probabilities": named}


def probabilities(logits: np.ndarray, options: Records) -> np.ndarray:
    """float64 [..., L]: a softmax, or a logistic function each where there may be several labels."""
    if options.kind == "several":
        return 0.5 * (1 + np.tanh(logits / 2))  # does not overflow
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def measured(options: Records) -> tuple[str, ...]:
    """The names of the metrics."""
    average = {0: ("binary_f1", "macro_f1"), 2: ("binary_f1",)}.get(len(options.labels), ("macro_f1",))  # 0: not read yet
    known = {"regression": ("pearson", "spearman", "squared_error"), "several": ("micro_f1", "macro_f1", "exact")}
    return known.get(options.kind, ("accuracy", *average, "matthews"))


def metrics(outputs: list[np.ndarray], examples: list[dict[str, Any]], options: Records) -> dict[str, float]:
    """One label: accuracy, F1 and Matthews' correlation; several: F1 and exact matches; numbers: Pearson and Spearman."""
    kept = [i for i, example in enumerate(examples) if example["weights"][0] > 0]
    if not kept:
        return {}
    logits = np.stack([outputs[i][0] for i in kept]).astype(np.float64)
    labels = np.stack([examples[i]["labels"][0] for i in kept])
    if options.kind == "regression":
        error = float(np.mean((logits[:, 0] - labels) ** 2))
        return {"pearson": scores.pearson(logits[:, 0], labels), "spearman": scores.spearman(logits[:, 0], labels), "squared_error": error}
    if options.kind == "several":
        wanted, found = labels > 0.5, probabilities(logits, options) >= 0.5
        return {f"{name}_f1": scores.f1(wanted, found, name) for name in ("micro", "macro")} | {"exact": scores.accuracy(wanted, found)}
    predicted = logits.argmax(1)
    average = "binary" if len(options.labels) == 2 else "macro"
    shares = {"accuracy": scores.accuracy(labels, predicted), f"{average}_f1": scores.f1(labels, predicted, average)}
    return {**shares, "matthews": scores.matthews(labels, predicted)}


def decisions(output: np.ndarray, example: dict[str, Any], options: Records) -> tuple[np.ndarray, np.ndarray] | None:
    """Logits [U, C] and right classes [U] (-1: not known) of what is decided: one class, or yes or no for each label; None of numbers."""
    if options.kind == "regression":
        return None
    logits, labelled = output[0].astype(np.float64), example["weights"][0] > 0
    if options.kind == "one":
        return logits[None], np.array([example["labels"][0] if labelled else -1])
    return np.stack([0 * logits, logits], -1), np.where(labelled, example["labels"][0] > 0.5, -1)


def decided(output: np.ndarray, example: dict[str, Any], log_probabilities: np.ndarray, options: Records) -> np.ndarray:
    """The output that these log-probabilities [U, C] of `decisions` would have come from."""
    logits = log_probabilities[0] if options.kind == "one" else log_probabilities[:, 1] - log_probabilities[:, 0]
    return np.concatenate([logits[None], output[1:]])
