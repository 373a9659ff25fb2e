"""Token classification: a tag for every word, for parts of speech or named entities. Read next: `entities.py`, `scores.py`.

A word's label stands at its first subword (Devlin et al. 2019, section 5.3); its other subwords and special tokens weigh nothing.
"""

import bisect
import difflib
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxlm.config import Loss, Records
from jaxlm.errors import ConfigError, DataError
from jaxlm.ops.losses import plain_cross_entropy
from jaxlm.overrides import choose
from jaxlm.tasks.entities import SCHEMES, entity_scores, parts, spans
from jaxlm.tasks.inputs import logits_of
from jaxlm.tasks.scores import ratio

RECORDS = True
# Words as a list or a string split at blanks, with their tags likewise; or both in one line, "word/tag word/tag ...".
ROLES = ("tokens", "tags", "tagged")
REQUIRED = ()  # tokens or tagged: `features` asks for one of them
COLUMNS = {"labels": np.int32, "weights": np.float32}


def is_labelled(record: dict[str, Any]) -> bool:
    """Whether a record has tags."""
    return record.get("tags") is not None or record.get("tagged") is not None


def texts(record: dict[str, Any]) -> list[str]:
    """The words of a record as one text."""
    return [" ".join(_read(record, Records())[0])]


def label_names(record: dict[str, Any], options: Records) -> list[str]:
    """The tags of a record's words. Raises DataError for a tag that is not of options.scheme."""
    return _read(record, options)[1] or []


def features(record: dict[str, Any], tokenizer: Any, options: Records, length: int) -> list[dict[str, Any]]:
    """One example: the words, joined by blanks, as subwords within the tokenizer's own special tokens.

    What is over `length` is cut off at the end: "cut" counts its tokens, about["lost"] the words that have no token left (or never had
    one: to BERT, a lone control character is nothing). about["places"] holds where each word begins, None for a lost one.

    Raises DataError for a sentence without words, as many words as tags not, a tag that is not known or not of the scheme.
    """
    words, tags = _read(record, options)
    found = tokenizer.encode(" ".join(words))
    offsets, kept = found.offsets, _kept(found.offsets, length)
    places = _first_subwords(words, [offsets[i] for i in kept])
    labels, weights = [0] * len(kept), [0.0] * len(kept)
    ids = [] if tags is None else _ids(words, tags, options)
    for place, label in zip(places, ids, strict=False):
        if place is not None:
            labels[place], weights[place] = label, 1.0
    about = {"words": words, "tags": tags, "places": places, "lost": places.count(None)}
    types = [found.token_types[i] for i in kept]
    columns = {"tokens": [found[i] for i in kept], "token_types": types, "labels": labels, "weights": weights}
    return [{**columns, "cut": len(found) - len(kept), "about": about}]


def loss(model: Any, params: Any, batch: dict[str, Array], key: Array | None, options: Loss) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the cross-entropies of the words' tags, in nats, and the number of words.

    Args:
      batch: tokens, labels [B, T] int32, weights [B, T]; segments and token_types [B, T], if any.
      key: of dropout; None: no dropout.
    """
    if options.r_drop:
        raise ConfigError(f"loss.r_drop={options.r_drop} is of whole texts: leave it out, or use task=sequence-classification")
    logits = logits_of(model, params, batch, key)
    smooth = {"label_smoothing": options.label_smoothing, "z_loss": options.z_loss}
    return plain_cross_entropy(logits, batch["labels"], batch["weights"], **smooth)


def predictions(outputs: Sequence[np.ndarray], examples: Sequence[dict[str, Any]], options: Records) -> list[dict[str, Any]]:
    """The words of each record with their likeliest tags (None: a lost word), and in BIO and BILOU the entities that these spell.

    Args:
      outputs: logits float32 [n, labels] of each example's tokens.
    """
    found = []
    for output, example in zip(outputs, examples, strict=True):
        words, tags = example["about"]["words"], _tags(output, example, options)
        found.append({"tokens": words, "tags": tags})
        if options.scheme in SCHEMES:
            rows = spans(tags, options.scheme)
            found[-1]["entities"] = [{"type": t, "first": a, "last": b, "text": " ".join(words[a : b + 1])} for t, a, b in rows]
    return found


def measured(options: Records) -> tuple[str, ...]:
    """The names of the metrics."""
    return ("accuracy", *(entity_scores([], []) if options.scheme in SCHEMES else ()))


def metrics(outputs: Sequence[np.ndarray], examples: Sequence[dict[str, Any]], options: Records) -> dict[str, float]:
    """Accuracy per word; in BIO and BILOU precision, recall, F1 and macro F1 of the entities too. Without any tags: nothing.

    A lost word counts as predicted wrong, so that a cut is never rewarded.
    """
    rows = [(e["about"]["tags"], _tags(output, e, options)) for output, e in zip(outputs, examples, strict=True) if e["about"]["tags"]]
    if not rows:
        return {}
    right = [true == guess for tags, guesses in rows for true, guess in zip(tags, guesses, strict=True)]
    entities = [[spans(tags, options.scheme) for tags in side] for side in zip(*rows, strict=True)] if options.scheme in SCHEMES else None
    return {"accuracy": ratio(sum(right), len(right)), **(entity_scores(*entities) if entities else {})}


def decisions(output: np.ndarray, example: dict[str, Any], options: Records) -> tuple[np.ndarray, np.ndarray]:
    """Logits [U, C] of every word that has a token, and its tag's id [U] (-1: not known)."""
    places = [place for place in example["about"]["places"] if place is not None]
    return output[places].astype(np.float64), np.where(example["weights"][places] > 0, example["labels"][places], -1)


def decided(output: np.ndarray, example: dict[str, Any], log_probabilities: np.ndarray, options: Records) -> np.ndarray:
    """The output that these log-probabilities [U, C] of `decisions` would have come from."""
    found = output.astype(np.float64)
    found[[place for place in example["about"]["places"] if place is not None]] = log_probabilities
    return found


def _tags(output: np.ndarray, example: dict[str, Any], options: Records) -> list[str | None]:
    ids = np.argmax(output, axis=-1)
    return [None if place is None else options.labels[ids[place]] for place in example["about"]["places"]]


def _read(record: dict[str, Any], options: Records) -> tuple[list[str], list[str] | None]:
    """The words of a record, and their tags where it has them."""
    choose("records.scheme", options.scheme, ("plain", *SCHEMES))
    if record.get("tokens") is not None:
        words, tags = _list(record["tokens"]), record.get("tags")
        tags = None if tags is None else _list(tags)
    elif record.get("tagged") is not None:
        words, tags = _tagged(record["tagged"])
    else:
        raise DataError('there are no words: name their column, as in records.columns=(("tokens","words"),), or ("tagged","line")')
    if not words or not all(word.strip() for word in words):
        raise DataError("the sentence is empty: leave it out" if not words else f"word {_first_blank(words)} is empty: leave it out")
    if tags is not None and len(tags) != len(words):
        raise DataError(f"there are {len(words)} words but {len(tags)} tags: give each word one")
    for tag in tags or () if options.scheme in SCHEMES else ():
        parts(tag, options.scheme)
    return words, tags


def _first_blank(words: list[str]) -> int:
    return next(n for n, word in enumerate(words, 1) if not word.strip())


def _list(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [str(item) for item in value]


def _tagged(line: str) -> tuple[list[str], list[str]]:
    """Words and tags of "word/tag word/tag ..."; the last slash parts them: a fraction such as 1/2/cd is one word."""
    rows = [item.rpartition("/") for item in line.split()]
    wrong = [(n, item) for n, (item, row) in enumerate(zip(line.split(), rows, strict=True), 1) if not row[0] or not row[2]]
    if wrong:
        raise DataError(f"item {wrong[0][0]}, {wrong[0][1]!r}, is not word/tag: give it a word and a tag, parted by a slash")
    return [word for word, _, _ in rows], [tag for _, _, tag in rows]


def _ids(words: list[str], tags: list[str], options: Records) -> list[int]:
    known = _numbered(options.labels)
    for n, (word, tag) in enumerate(zip(words, tags, strict=True), 1):
        if tag not in known:
            near = difflib.get_close_matches(tag, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(f"the tag {tag!r} of word {n}, {word!r}, is not known: {hint}Mend it, or name every tag in records.labels")
    return [known[tag] for tag in tags]


@functools.lru_cache(8)
def _numbered(labels: tuple[str, ...]) -> dict[str, int]:
    return {name: i for i, name in enumerate(labels)}


def _kept(offsets: Sequence[tuple[int, int]], length: int) -> list[int]:
    """Places of the tokens that stay: the last ones of the text go, what the template puts behind it stays."""
    real = [i for i, (start, stop) in enumerate(offsets) if stop > start]
    if not real:
        raise DataError("the tokenizer leaves nothing of the sentence: leave it out")
    stop = real[-1] + 1 - max(len(offsets) - length, 0)
    if stop <= real[0]:
        raise ConfigError(f"data.sequence_length={length} has no room for a word beside the special tokens: set it higher")
    return [*range(stop), *range(real[-1] + 1, len(offsets))]


def _first_subwords(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """The place of each word's first token, None where it has none.

    A token is of the first word that it touches: byte-level BPE counts the blank in front of a word to its first token.
    """
    ends = [end - 1 for end in itertools.accumulate(len(word) + 1 for word in words)]
    places: list[int | None] = [None] * len(words)
    for place, (start, stop) in enumerate(offsets):
        n = bisect.bisect_right(ends, start)
        if start < stop and n < len(words) and ends[n] - len(words[n]) < stop and places[n] is None:
            places[n] = place
    return places
