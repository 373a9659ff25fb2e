"""Greedy continuations of texts up to a stop string, by a decoder or by a decoder over an encoder. Read next: `generate.py`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxlm.inference.generate import generate_tokens
from jaxlm.inference.score import padded
from jaxlm.inference.texts import ends_of, spell


@dataclasses.dataclass(frozen=True)
class Greedy:
    """At most `new` tokens, and the text before the first of the strings `until`."""

    new: int
    until: tuple[str, ...] = ()


def continue_rows(model: Any, params: Any, tokenizer: Any, rows: Sequence[Sequence[int]], wanted: Greedy) -> list[str]:
    """The text that greedy decoding adds to each row of ids, or makes of it; it ends before the model's or tokenizer's end of text too."""
    tokens, mask = padded(rows, max(map(len, rows)))
    ends = ends_of(model, tokenizer, {})
    named = {"max_new_tokens": wanted.new, "stop_strings": wanted.until, "eos_token_id": ends}
    new = generate_tokens(model, params, tokens, mask=mask, tokenizer=tokenizer, **named)
    return [_before(spell(tokenizer, row, ends), wanted.until) for row in new]


def _before(text: str, until: Sequence[str]) -> str:
    """The text before the first place of any of the strings.

    >>> _before("four. Q: two", ["Q:", "."])
    'four'
    """
    return text[: min((place for place in map(text.find, until) if place >= 0), default=None)]
