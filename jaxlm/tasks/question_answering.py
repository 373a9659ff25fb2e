"""Extractive question answering: the span of a context that answers a question, or none (Devlin et al. 2019, sections 4.2 and 4.3).

A long context is read in windows that share some tokens; the first token stands for "no answer here". Read next:
`squad_scores.py`, `template.py`.
"""

import itertools
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxlm.config import Loss, Records
from jaxlm.errors import ConfigError, DataError
from jaxlm.ops.losses import group_cross_entropy
from jaxlm.tasks import squad_scores
from jaxlm.tasks.inputs import logits_of
from jaxlm.tasks.template import join, read_template

RECORDS = True
ROLES = ("id", "question", "context", "answers")
REQUIRED, LABELLED = ("question", "context"), ("question", "context", "answers")
CUT_BY = "records.question"  # the context is read in windows
COLUMNS = {"start": np.float32, "end": np.float32, "candidates": np.float32}


def features(record: dict[str, Any], tokenizer: Any, options: Records, length: int) -> list[dict[str, Any]]:
    """The windows of a record, neighbours sharing `options.stride` tokens of the context; only the question is ever cut.

    A window that does not hold the whole first answer has the first token as its target. "answers" is as in SQuAD,
    {"text": [...], "answer_start": [...]}, or a string or strings, each meant where it first stands; nothing in it: no answer.

    Raises DataError for an empty text, an answer that is not in its context, or none where `options.unanswerable` is off;
    ConfigError where question and stride leave a window no room.
    """
    question, context = (_text(record, role) for role in REQUIRED)
    answers = _answers(record, context, options)
    template = read_template(tokenizer, question, 2)
    read = tokenizer.encode(context, add_special_tokens=False)
    asked = tokenizer.encode(question, add_special_tokens=False)
    if not len(read):
        raise DataError("the tokenizer leaves nothing of the context: mend or remove the record")
    kept = asked[: options.question]
    _check_room(length - template.size - options.question, options)
    room = length - template.size - len(kept)
    target = None if not answers else _token_span(read.offsets, *answers[0])
    examples = []
    for first in _window_starts(len(read), room, room - options.stride):
        tokens, types, places = join(template, [kept, read[first : first + room]])
        spans = [list(span) for span in read.offsets[first : first + room]]
        columns = _candidates(len(tokens), places[1], len(spans))
        if answers is not None:
            _mark(columns, places[1], len(spans), target and [place - first for place in target])
        about = {"first": places[1], "offsets": spans}
        examples.append({"tokens": tokens, "token_types": types, **columns, "cut": 0, "about": about})
    gold = None if answers is None else [context[start:stop] for start, stop in answers]
    examples[0]["about"] |= {"id": record.get("id"), "context": context, "answers": gold}
    examples[0]["cut"] = len(asked) - len(kept)
    return examples


def _text(record: dict[str, Any], role: str) -> str:
    text = record.get(role)
    if not isinstance(text, str) or not text.strip():
        what = "empty" if text is None or isinstance(text, str) else f"{text!r:.40}, no text"
        raise DataError(f"the {role} is {what}: mend or remove the record")
    return text


def _answers(record: dict[str, Any], context: str, options: Records) -> list[tuple[int, int]] | None:
    """(start, stop) of every answer in the characters of the context; None without a label."""
    given = record.get("answers")
    if given is None:
        return None
    pairs = _places(given, context)
    for text, start in pairs:
        if start is None or start < 0 or not context.startswith(text, start):
            where = "in its context" if start is None else f"at character {start} of its context"
            raise DataError(f"the answer {text[:40]!r} is not {where}: mend the answer or where it starts")
    if not pairs and not options.unanswerable:
        raise DataError("the question has no answer in its context: set records.unanswerable=true, or remove the record")
    return [(start, start + len(text)) for text, start in pairs]


def _places(given: Any, context: str) -> list[tuple[str, int | None]]:
    """(text, first character) of answers; None where a text without a place is nowhere."""
    if isinstance(given, dict):
        texts, starts = given.get("text"), given.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return [_place(text, start) for text, start in zip(texts, starts, strict=True)]
    elif isinstance(given, str) or (isinstance(given, list) and all(isinstance(text, str) for text in given)):
        texts = [text for text in ([given] if isinstance(given, str) else given) if text.strip()]
        return [(text, context.find(text) if text in context else None) for text in texts]
    raise DataError(f'answers are {given!r:.60}: give {{"text": [...], "answer_start": [...]}}, a text, or a list of texts')


def _place(text: Any, start: Any) -> tuple[str, int]:
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"the answer {text!r:.40} is no text: mend it; of a question without an answer the lists are empty")
    if not isinstance(start, int) or isinstance(start, bool):
        raise DataError(f"the answer {text[:40]!r} starts at {start!r:.40}: answer_start is a character's number in the context, from 0")
    return text, start


def _token_span(offsets: list[tuple[int, int]], start: int, stop: int) -> tuple[int, int] | None:
    """First and last token that hold a character of [start, stop); None where no token does."""
    touching = [i for i, span in enumerate(offsets) if span[0] < stop and span[1] > start]
    return (touching[0], touching[-1]) if touching else None


def _window_starts(tokens: int, room: int, step: int) -> range:
    """Where windows begin: `step` tokens apart, the last one the first that reaches the end."""
    return range(0, max(tokens - room + step, 1), step)


def _candidates(size: int, first: int, read: int) -> dict[str, list[float]]:
    candidates = [1.0] + [0.0] * (first - 1) + [1.0] * read + [0.0] * (size - first - read)
    return {"start": [0.0] * size, "end": [0.0] * size, "candidates": candidates}


def _mark(columns: dict[str, list[float]], first: int, read: int, span: list[int] | None) -> None:
    """Set the targets: the span, counted from the window's first context token, if all of it is there, else the first token."""
    inside = span is not None and span[0] >= 0 and span[1] < read
    for name, place in zip(("start", "end"), span if inside else (-first, -first), strict=True):
        columns[name][first + place] = 1.0


def _check_room(least: int, options: Records) -> None:
    if least <= options.stride:
        mend = "lower it or records.question, or raise data.sequence_length"
        raise ConfigError(f"records.stride={options.stride}: beside a whole question a window holds only {least} tokens of context: {mend}")


def loss(model: Any, params: Any, batch: dict[str, Array], key: Array | None, options: Loss = Loss()) -> tuple[Float[Array, ""], Array]:
    """Sum over the windows of the mean cross-entropy of first and last token, in nats, and the number of windows."""
    if options.label_smoothing or options.z_loss or options.r_drop:
        raise ConfigError("loss.label_smoothing, loss.z_loss and loss.r_drop are not for task=question-answering: set them to 0")
    logits = logits_of(model, params, batch, key)
    ends = [(logits[..., i], batch["groups"], batch["candidates"], batch[name]) for i, name in enumerate(("start", "end"))]
    (first, windows), (last, _) = (group_cross_entropy(*end) for end in ends)
    return (first + last) / 2, windows


def predictions(outputs: list[np.ndarray], examples: list[dict[str, Any]], options: Records) -> list[dict[str, Any]]:
    """{"id", "text", "score", "null_difference", "n_best"} of each record, over all its windows.

    A span's score is the sum of its two logits, no answer's is the lowest of the windows' first tokens; "null_difference" is
    no answer's less the best span's. The text is "" where questions may be unanswerable and that passes the threshold.
    """
    rows = list(zip(outputs, (example["about"] for example in examples), strict=True))
    return [_prediction(list(windows), options) for _, windows in itertools.groupby(rows, lambda row: row[1]["record"])]


def _prediction(windows: list[tuple[np.ndarray, dict[str, Any]]], options: Records) -> dict[str, Any]:
    about, best = windows[0][1], {}
    for logits, window in windows:
        for score, start, stop in _best_spans(np.float64(logits), window, options):
            best[start, stop] = max(score, best.get((start, stop), -np.inf))
    ranked = sorted(best.items(), key=lambda item: -item[1])[: options.n_best]
    null = min(float(logits[0].sum(dtype=np.float64)) for logits, _ in windows)
    scores = [score for _, score in ranked]
    difference = null - scores[0]
    shares = np.exp(np.array([*scores, *([null] if options.unanswerable else [])]) - max(scores[0], null))
    n_best = [
        {"text": about["context"][start:stop].strip(), "start": start, "score": score, "probability": float(share / shares.sum())}
        for ((start, stop), score), share in zip(ranked, shares, strict=False)
    ]
    silent = options.unanswerable and options.null_threshold is not None and difference > options.null_threshold
    text = "" if silent else n_best[0]["text"]
    return {"id": about["id"], "text": text, "score": scores[0], "null_difference": difference, "n_best": n_best}


def _best_spans(logits: np.ndarray, window: dict[str, Any], options: Records) -> list[tuple[float, int, int]]:
    """(score, first character, end) of the best spans of a window, of `options.answer` tokens at most."""
    offsets = window["offsets"]
    start, end = logits[window["first"] :][: len(offsets)].T
    reach = np.append(end, np.full(options.answer - 1, -np.inf))
    scores = start[:, None] + np.lib.stride_tricks.sliding_window_view(reach, options.answer)  # [first token, tokens after it]
    order = np.argsort(-scores, axis=None, kind="stable")[: options.n_best]
    spans = [divmod(int(place), options.answer) for place in order if scores.flat[place] > -np.inf]
    return [(float(scores[i, more]), offsets[i][0], offsets[i + more][1]) for i, more in spans]


def measured(options: Records) -> tuple[str, ...]:
    """The names of the metrics."""
    names = [f"{side}{name}" for side in ("", "HasAns_", "NoAns_", "best_")[: 4 if options.unanswerable else 1] for name in ("exact", "f1")]
    return (*names, "best_exact_threshold", "best_f1_threshold") if options.unanswerable else tuple(names)


def metrics(outputs: list[np.ndarray], examples: list[dict[str, Any]], options: Records) -> dict[str, float]:
    """SQuAD's exact match and F1 in per cent over the records that have labels; without any: nothing.

    With `options.unanswerable` also those of the questions with (HasAns_) and without an answer (NoAns_), and the best exact
    match and F1 that a null threshold of hindsight would give, with the threshold.
    """
    abouts = (example["about"] for example in examples)
    golds = [next(windows).get("answers") for _, windows in itertools.groupby(abouts, lambda about: about["record"])]
    pairs = [(gold, found) for gold, found in zip(golds, predictions(outputs, examples, options), strict=True) if gold is not None]
    if not pairs:
        return {}
    scores = [squad_scores.answer_scores(gold, found["text"]) for gold, found in pairs]
    result = {}
    sides = {"": (True, False), "HasAns_": (True,), "NoAns_": (False,)} if options.unanswerable else {"": (True, False)}
    for prefix, side in sides.items():
        chosen = [score for score, (gold, _) in zip(scores, pairs, strict=True) if bool(gold) in side]
        result |= {f"{prefix}{name}": squad_scores.mean([score[i] for score in chosen]) for i, name in enumerate(("exact", "f1"))}
    return result | (_best(pairs) if options.unanswerable else {})


def fit_threshold(outputs: list[np.ndarray], examples: list[dict[str, Any]], options: Records) -> float:
    """The null threshold with the best F1 on these questions, which may be unanswerable. Raises DataError where none has a label."""
    found = metrics(outputs, examples, options)
    if not found:
        raise DataError("no question has answers: a null threshold is fitted to questions whose answers, or lack of one, are known")
    return found["best_f1_threshold"]


def _best(pairs: list[tuple[list[str], dict[str, Any]]]) -> dict[str, float]:
    scores = [squad_scores.answer_scores(gold, found["n_best"][0]["text"]) for gold, found in pairs]
    answerable, differences = [bool(gold) for gold, _ in pairs], [found["null_difference"] for _, found in pairs]
    result = {}
    for i, name in enumerate(("exact", "f1")):
        best, threshold = squad_scores.best_threshold([score[i] for score in scores], answerable, differences)
        result |= {f"best_{name}": best, f"best_{name}_threshold": threshold}
    return result
