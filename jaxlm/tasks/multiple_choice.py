"""Multiple choice: which of several endings, or answers, goes with a text (Zellers et al. 2018; Devlin et al. 2019, section 4.4).

All choices of a record are one example, side by side without seeing each other, each behind its own copy of the text. Read
next: `template.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxlm.config import Loss, Records
from jaxlm.errors import ConfigError, DataError
from jaxlm.ops.losses import group_cross_entropy
from jaxlm.tasks.inputs import logits_of
from jaxlm.tasks.template import Template, join, read_template

RECORDS = True
ROLES, REQUIRED, LABELLED = ("text", "choices", "label"), ("choices",), ("choices", "label")
COLUMNS = {"candidates": np.float32, "labels": np.float32}


def texts(record: dict[str, Any]) -> list[str]:
    """The text of a record, if it has one, and its choices."""
    return [text for text in (_text(record), *_choices(record)) if text.strip()]


def features(record: dict[str, Any], tokenizer: Any, options: Records, length: int) -> list[dict[str, Any]]:
    """One example of all choices: segments 1 to C, with candidates at their first tokens and the label at the right one's.

    Where they do not fit `length` together, the longest texts and choices are cut. The label is the number of the right
    choice, from 0. Raises DataError for fewer than two choices, an empty one, what is no text, or a label that is none of their
    numbers.
    """
    choices, text = _choices(record), _text(record)
    label = _label(record.get("label"), len(choices))
    around = [(text, choice) if text.strip() else (choice,) for choice in choices]
    template = read_template(tokenizer, choices[0], len(around[0]))
    parts = [[list(tokenizer.encode(part, add_special_tokens=False)) for part in texts] for texts in around]
    parts, cut = _fitted(parts, length - len(choices) * template.size)
    example, places = _side_by_side(template, parts)
    example["candidates"], example["labels"] = ([0.0] * len(example["tokens"]) for _ in range(2))
    for number, place in enumerate(places):
        example["candidates"][place] = 1.0
        example["labels"][place] = float(number == label)
    return [example | {"cut": cut, "about": {"places": places, "label": label}}]


def _text(record: dict[str, Any]) -> str:
    text = record.get("text")
    if not isinstance(text, str | None):
        raise DataError(f"the text is {text!r:.40}, no text: mend or remove the record")
    return text or ""


def _choices(record: dict[str, Any]) -> list[str]:
    choices = record.get("choices")
    if not isinstance(choices, list | tuple) or len(choices) < 2:
        raise DataError(f"choices are {choices!r:.40}: give a list of two texts at least")
    for number, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice.strip():
            what = "empty" if choice is None or isinstance(choice, str) else f"{choice!r:.40}, no text"
            raise DataError(f"choice {number} is {what}: mend or remove the record")
    return list(choices)


def _label(label: Any, choices: int) -> int | None:
    if label is None:
        return None
    if not str(label).isdecimal() or int(label) >= choices:
        raise DataError(f"the label {label!r} is no choice: give the number of the right one, 0 to {choices - 1}")
    return int(label)


def _fitted(parts: list[list[list[int]]], room: int) -> tuple[list[list[list[int]]], int]:
    """The parts, none longer than the most that lets all of them fit, and how many tokens that cuts off."""
    sizes = [len(part) for texts in parts for part in texts]
    most = max(sizes)
    while sum(min(size, most) for size in sizes) > room:
        most -= 1
    if most < 1:
        raise DataError(f"{len(parts)} choices do not fit: each needs a token of its own at least; raise data.sequence_length")
    return [[part[:most] for part in texts] for texts in parts], sum(max(size - most, 0) for size in sizes)


def _side_by_side(template: Template, parts: Sequence[Sequence[Sequence[int]]]) -> tuple[dict[str, Any], list[int]]:
    """The columns of the choices in a row, and where each begins."""
    columns: dict[str, Any] = {"tokens": [], "token_types": [], "segments": []}
    places = []
    for number, texts in enumerate(parts, 1):
        tokens, types, _ = join(template, texts)
        places.append(len(columns["tokens"]))
        columns["tokens"] += tokens
        columns["token_types"] += types
        columns["segments"] += [number] * len(tokens)
    return columns, places


def loss(model: Any, params: Any, batch: dict[str, Array], key: Array | None, options: Loss = Loss()) -> tuple[Float[Array, ""], Array]:
    """Sum over the examples of the cross-entropy of the right choice among all, in nats, and the number of labelled examples."""
    if options.label_smoothing or options.z_loss or options.r_drop:
        raise ConfigError("loss.label_smoothing, loss.z_loss and loss.r_drop are not for task=multiple-choice: set them to 0")
    logits = logits_of(model, params, batch, key)
    return group_cross_entropy(logits, batch["groups"], batch["candidates"], batch["labels"])


def predictions(outputs: list[np.ndarray], examples: list[dict[str, Any]], options: Records) -> list[dict[str, Any]]:
    """{"label": number of the likeliest choice, "probabilities": of each} of every record."""
    found = []
    for output, example in zip(outputs, examples, strict=True):
        scores = decisions(output, example, options)[0][0]
        shares = np.exp(scores - scores.max())
        found.append({"label": int(scores.argmax()), "probabilities": (shares / shares.sum()).tolist()})
    return found


def measured(options: Records) -> tuple[str, ...]:
    """The names of the metrics."""
    return ("accuracy",)


def metrics(outputs: list[np.ndarray], examples: list[dict[str, Any]], options: Records) -> dict[str, float]:
    """Accuracy, as a share, over the records that have labels; without any: nothing."""
    pairs = zip(examples, predictions(outputs, examples, options), strict=True)
    hits = [found["label"] == example["about"]["label"] for example, found in pairs if example["about"]["label"] is not None]
    return {"accuracy": sum(hits) / len(hits)} if hits else {}


def decisions(output: np.ndarray, example: dict[str, Any], options: Records) -> tuple[np.ndarray, np.ndarray]:
    """Logits [1, C] of the choices, and the number of the right one [1] (-1: not known)."""
    places, label = example["about"]["places"], example["about"]["label"]
    return output[places].astype(np.float64)[None], np.array([-1 if label is None else label])


def decided(output: np.ndarray, example: dict[str, Any], log_probabilities: np.ndarray, options: Records) -> np.ndarray:
    """The output that these log-probabilities [1, C] of `decisions` would have come from."""
    found = output.astype(np.float64)
    found[example["about"]["places"]] = log_probabilities[0]
    return found
