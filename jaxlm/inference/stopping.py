"""Where rows end: at an id, or at a string, whatever tokens it is made of, which the host looks for in the texts so far."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxlm.errors import ConfigError
from jaxlm.inference.prompts import Prompts
from jaxlm.inference.settings import Settings

LOOK = 8  # tokens between two looks at all texts


@dataclasses.dataclass(frozen=True)
class Stops:
    """The strings, the tokenizer that spells tokens, the ids that end a row too, and the last tokens of each row's prompt."""

    strings: tuple[str, ...]
    tokenizer: Any
    ends: tuple[int, ...]
    before: tuple[tuple[int, ...], ...]

    def length(self, row: Int[np.ndarray, "N"], before: tuple[int, ...] = ()) -> int | None:
        """How many tokens of a row there are once one of the strings is whole, which may begin in the prompt; None: none is."""
        if not self._whole(row, before):
            return None
        low, high = 1, len(row)  # a longer text has what a shorter one has
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._whole(row[:middle], before) else (middle + 1, high)
        return low

    def _whole(self, row, before):
        """Whether one of the strings stands in the text and ends after the prompt's."""
        known = lambda ids: [i for i in ids if i < self.tokenizer.vocab_size]  # a padded table has more
        prompt, text = (self.tokenizer.decode(known([*before, *ids])) for ids in ((), row.tolist()))
        return any(text.find(string, max(0, len(prompt) - len(string) + 1)) >= 0 for string in self.strings)

    def all_met(self, rows: Int[np.ndarray, "R N"], new: int = 1) -> bool:
        """Whether every row has ended, by a string or by a token; looked at every few tokens, or where many are `new`."""
        if rows.shape[1] % LOOK and new < LOOK:
            return False
        both = zip(rows, self.before, strict=True)
        return all(np.isin(row, self.ends).any() or self.length(row, before) is not None for row, before in both)

    def lengths(self, rows: Int[np.ndarray, "R N"]) -> Int[np.ndarray, "R"]:
        """How many tokens each row has, with the one that completes a string or is an end."""
        kept = zip(rows, ends_at(rows, self.ends), self.before, strict=True)
        return np.array([self.length(row[:end], before) or end for row, end, before in kept], np.int32)


def ends_at(rows: Int[np.ndarray, "R N"], ends: tuple[int, ...]) -> Int[np.ndarray, "R"]:
    """How many tokens each row has up to its first end."""
    met = np.isin(rows, ends) if ends else np.zeros(rows.shape, bool)
    return np.where(met.any(1), met.argmax(1) + 1, rows.shape[1]) if rows.shape[1] else np.zeros(len(rows), np.int32)


def cut(
    rows: Int[np.ndarray, "R N"], settings: Settings, stops: Stops | None, most: Int[np.ndarray, "R"] | None = None
) -> tuple[Int[np.ndarray, "R M"], Int[np.ndarray, "R"]]:
    """Rows with padding after their ends, no longer than the longest; and how many tokens of each come before, at `most`."""
    lengths = stops.lengths(rows) if stops else ends_at(rows, settings.eos_token_id)
    lengths = lengths if most is None else np.minimum(lengths, most)
    rows = np.where(np.arange(rows.shape[1]) < lengths[:, None], rows, settings.pad)
    return rows[:, : lengths.max(initial=0)], lengths


def watch(settings: Settings, tokenizer: Any, prompts: Prompts, count: int) -> Stops | None:
    """What to look for after the first `count` prompts; None where no strings are given.

    As in transformers a string may begin in the prompt of a decoder. A control token, which has no text, is meant by its name.

    Raises ConfigError where nothing spells the tokens.
    """
    if not settings.stop_strings:
        return None
    if tokenizer is None:
        raise ConfigError("stop_strings are looked for in texts: give tokenizer= too")
    named = tuple(tokenizer.controls[string] for string in settings.stop_strings if string in tokenizer.controls)
    longest = max(len(string.encode()) for string in settings.stop_strings)  # as many tokens at most, but for the one that completes it
    rows = zip(prompts.tokens[:count], prompts.mask[:count], strict=True)
    tails = [tuple(row[real].tolist()[-longest:]) if prompts.source is None else () for row, real in rows]
    before = tuple(tail for tail in tails for _ in range(settings.num_return_sequences))
    return Stops(settings.stop_strings, tokenizer, (*settings.eos_token_id, *named), before)
