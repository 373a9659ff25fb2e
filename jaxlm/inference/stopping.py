"""Strings that end a text, whatever tokens they are made of: looked for by the host in the texts so far."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxlm.errors import ConfigError
from jaxlm.inference.settings import Settings

LOOK = 8  # tokens between two looks at all texts


@dataclasses.dataclass(frozen=True)
class Stops:
    """The strings, and the tokenizer that spells tokens."""

    strings: tuple[str, ...]
    tokenizer: Any
    ends: tuple[int, ...]

    def length(self, row: Int[np.ndarray, "N"]) -> int | None:
        """How many tokens of a row there are once one of the strings is whole; None: none is."""
        text = self.tokenizer.decode(row.tolist())
        if not any(string in text for string in self.strings):
            return None
        low, high = 1, len(row)  # a longer text has what a shorter one has
        while low < high:
            middle = (low + high) // 2
            whole = any(string in self.tokenizer.decode(row[:middle].tolist()) for string in self.strings)
            low, high = (low, middle) if whole else (middle + 1, high)
        return low

    def all_met(self, rows: Int[np.ndarray, "R N"]) -> bool:
        """Whether every row has ended, by a string or by a token; looked at every few tokens only."""
        if rows.shape[1] % LOOK:
            return False
        return all(np.isin(row, self.ends).any() or self.length(row) is not None for row in rows)

    def cut(self, rows: Int[np.ndarray, "R N"], settings: Settings) -> Int[np.ndarray, "R M"]:
        """Rows with padding after the token that completes one of the strings."""
        rows = rows.copy()
        lengths = []
        for row in rows:
            found = np.flatnonzero(np.isin(row, self.ends))
            before = row[: found[0] + 1] if len(found) else row
            lengths.append(self.length(before) or len(before))
            row[lengths[-1] :] = settings.pad
        return rows[:, : max(lengths)]


def watch(settings: Settings, tokenizer: Any) -> Stops | None:
    """What to look for; None where no strings are given. Raises ConfigError where nothing spells the tokens."""
    if not settings.stop_strings:
        return None
    if tokenizer is None:
        raise ConfigError("stop_strings are looked for in texts: give tokenizer= too")
    return Stops(settings.stop_strings, tokenizer, settings.eos_token_id)
