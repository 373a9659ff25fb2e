"""Entities in tagged sentences: tags in BIO or BILOU to spans and back, and precision, recall and F1 over whole entities.

A span is (type, first word, last word). Tags are "O", or a prefix and a type, as in "B-PER": B begins an entity, I is inside; BILOU
has L for the last word and U for an entity of one (Ratinov & Roth 2009). A prefix alone, "B", is of the type "_".
Read next: `token_classification.py`.
"""

from collections.abc import Iterable, Sequence

from jaxlm.errors import DataError
from jaxlm.overrides import choose
from jaxlm.tasks.scores import ratio

Span = tuple[str, int, int]

# Scheme -> the prefixes of words in an entity.
SCHEMES = {"bio": "BI", "bilou": "BILU"}


def parts(tag: str | None, scheme: str = "bio") -> tuple[str, str]:
    """Prefix and type of a tag; None, a word that has no tag, counts as outside. Raises DataError for what is no tag of the scheme.

    >>> parts("B-PER"), parts("O")
    (('B', 'PER'), ('O', ''))
    """
    if tag is None or tag == "O":
        return "O", ""
    prefix, dash, kind = tag.partition("-")
    known = SCHEMES[choose("records.scheme", scheme, SCHEMES)]
    if len(prefix) != 1 or prefix not in known or (dash and not kind):
        names = ", ".join(f"{p}-TYPE" for p in known)
        raise DataError(f"the tag {tag!r} is not of the scheme {scheme} (O, {names}): mend it, or set records.scheme")
    return prefix, kind or "_"


def spans(tags: Sequence[str | None], scheme: str = "bio") -> list[Span]:
    """The entities of a sentence's tags, in order.

    What a scheme forbids is read kindly, for models predict it: where nothing of its type is open, I or L begins an entity too, and
    another type, B, U or O ends one that is open. This is how seqeval and CoNLL's conlleval read.

    >>> spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [('PER', 0, 1), ('LOC', 3, 3), ('LOC', 4, 4)]
    """
    found, kind, first = [], None, 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, own = parts(tag, scheme)
        if kind is not None and (prefix in "OBU" or own != kind):
            found.append((kind, first, i - 1))
            kind = None
        if prefix != "O" and kind is None:
            kind, first = own, i
        if prefix in "LU":
            found.append((kind, first, i))
            kind = None
    return found


def tags_of(entities: Iterable[Span], length: int, scheme: str = "bio") -> list[str]:
    """The inverse of `spans`: the tags of a sentence of so many words. Raises DataError where spans overlap or leave the sentence.

    >>> tags_of([("PER", 0, 2), ("LOC", 3, 3)], 5, "bilou")
    ['B-PER', 'I-PER', 'L-PER', 'U-LOC', 'O']
    """
    choose("records.scheme", scheme, SCHEMES)
    tags = ["O"] * length
    for kind, first, last in entities:
        if not 0 <= first <= last < length or any(tag != "O" for tag in tags[first : last + 1]):
            raise DataError(
                f"the entity {kind} of words {first} to {last} overlaps another, or is not within {length} words: mend its places"
            )
        prefixes = ["B", *"I" * (last - first)]
        if scheme == "bilou":
            prefixes[-1] = "U" if first == last else "L"
        tags[first : last + 1] = [prefix if kind == "_" else f"{prefix}-{kind}" for prefix in prefixes]
    return tags


def entity_scores(true: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]) -> dict[str, float]:
    """Precision, recall and F1 over all entities, and the mean F1 of the types (Tjong Kim Sang & De Meulder 2003).

    An entity is right where type, first and last word are. 0 / 0 is 0.0.

    Args:
      true, predicted: the entities of each sentence.
    """
    both = tuple({(n, *span) for n, row in enumerate(rows) for span in row} for rows in (true, predicted))
    hits, count, found = _counts(*both)
    kinds = {span[1] for side in both for span in side}
    of_kind = [_counts(*({span for span in side if span[1] == kind} for side in both)) for kind in kinds]
    return {
        "precision": ratio(hits, found),
        "recall": ratio(hits, count),
        "f1": ratio(2 * hits, count + found),
        "macro_f1": ratio(sum(ratio(2 * h, c + f) for h, c, f in of_kind), len(kinds)),
    }


def _counts(true: set, predicted: set) -> tuple[int, int, int]:
    return len(true & predicted), len(true), len(predicted)
