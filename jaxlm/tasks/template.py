"""What a tokenizer puts around one text or two, so that texts can be cut as ids and joined again. Read next: `question_answering.py`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxlm.errors import DataError


@dataclasses.dataclass(frozen=True)
class Template:
    """Tokens before, between and after the texts, with token types for these and for the texts."""

    fixed: tuple[tuple[int, ...], ...]  # one more than there are texts
    fixed_types: tuple[tuple[int, ...], ...]
    text_types: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many tokens it adds."""
        return sum(map(len, self.fixed))


def read_template(tokenizer: Any, text: str, texts: int) -> Template:
    """The template of a tokenizer for one text or two, seen around `text`; raises DataError for a text without tokens."""
    alone = list(tokenizer.encode(text, add_special_tokens=False))
    if not alone:
        raise DataError(f"{text[:40]!r} is an empty text, or one without a token: mend or remove the record")
    whole = tokenizer.encode(*[text] * texts)
    types, place = whole.token_types, 0
    fixed, fixed_types, text_types = [], [], []
    for _ in range(texts):
        found = _find(whole, alone, place)
        fixed.append(tuple(whole[place:found]))
        fixed_types.append(tuple(types[place:found]))
        text_types.append(types[found])
        place = found + len(alone)
    return Template((*fixed, tuple(whole[place:])), (*fixed_types, tuple(types[place:])), tuple(text_types))


def join(template: Template, texts: Sequence[Sequence[int]]) -> tuple[list[int], list[int], list[int]]:
    """(tokens, token types, where each text begins) of texts in a template.

    >>> join(Template(((8,), (9,), (9,)), ((0,), (0,), (1,)), (0, 1)), [[1, 2], [3]])
    ([8, 1, 2, 9, 3, 9], [0, 0, 0, 0, 1, 1], [1, 4])
    """
    tokens, types, places = list(template.fixed[0]), list(template.fixed_types[0]), []
    for i, text in enumerate(texts):
        places.append(len(tokens))
        tokens += [*text, *template.fixed[i + 1]]
        types += [template.text_types[i]] * len(text) + list(template.fixed_types[i + 1])
    return tokens, types, places


def _find(whole: list[int], part: list[int], start: int) -> int:
    for place in range(start, len(whole) - len(part) + 1):
        if whole[place : place + len(part)] == part:
            return place
    raise DataError("the tokenizer changes a text where its template puts others beside it: use one that does not")
