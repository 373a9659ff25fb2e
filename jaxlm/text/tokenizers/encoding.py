"""What `encode` gives: ids that are a plain list, and where they came from for those who ask. Read next: `../tokenizer.py`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

Span = tuple[int, int]
Details = tuple[list[int], list[Span]]


class Encoding(list):
    """The ids of a text; `token_types` and `offsets` are worked out when they are first asked for.

    >>> found = Encoding([5, 7], lambda: ([0, 0], [(0, 1), (1, 3)]))
    >>> found == [5, 7], found.offsets
    (True, [(0, 1), (1, 3)])
    """

    def __init__(self, ids: Sequence[int], details: Callable[[], Details]):
        super().__init__(ids)
        self._work_out = details

    @functools.cached_property
    def _details(self) -> Details:
        return self._work_out()

    @property
    def token_types(self) -> list[int]:
        """0 for the first text and 1 for the second, as the model was trained (T5, GPT-2, RoBERTa: 0 throughout)."""
        return self._details[0]

    @property
    def offsets(self) -> list[Span]:
        """(start, stop) of each id, in characters of the text that was given; (0, 0) for what a template added."""
        return self._details[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (list(self), self._details)


def _again(ids: list[int], details: Details) -> Encoding:
    return Encoding(ids, lambda: details)


def in_given(spans: Sequence[Span], places: Sequence[int] | None) -> list[Span]:
    """Spans in a changed text as spans in the given one: character i of the changed text began at `places[i]` (None: unchanged)."""
    return list(spans) if places is None else [(places[start], places[stop]) for start, stop in spans]
