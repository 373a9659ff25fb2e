"""Which documents are held out for validation: a rule made from the first few, then applied to each on its own.

Read next: `prepare.py`.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable

from jaxlm.errors import ConfigError, DataError

FEW = 20  # a corpus of fewer documents is split by position


@dataclasses.dataclass(frozen=True)
class ByHash:
    """A document's side depends on a hash of its text alone, so that copies stay together."""

    validation: float
    lowest: float  # hashes of the first documents: the lowest is held out and the highest trained on, so that no side is empty
    highest: float

    def pieces(self, number: int, text: str) -> list[tuple[str, bool]]:
        """(text, held out) of a document: itself."""
        share = _share(text)
        return [(text, self.validation > 0 and (share < self.validation or share == self.lowest) and share != self.highest)]


@dataclasses.dataclass(frozen=True)
class ByPosition:
    """The last share of the characters is held out, through the middle of a document if need be."""

    cut: int  # characters that are trained on
    starts: tuple[tuple[int, int], ...]  # (number of a document, position of its first character)

    def pieces(self, number: int, text: str) -> list[tuple[str, bool]]:
        """(text, held out) of a document: itself, or its two parts."""
        cut = max(self.cut - dict(self.starts)[number], 0)
        return [(piece, held) for piece, held in ((text[:cut], False), (text[cut:], True)) if piece]


Rule = ByHash | ByPosition


def make_rule(documents: Iterable[tuple[int, str]], validation: float) -> Rule:
    """The rule for a corpus, from the (number, text) of its first 20 documents; no more are read.

    Raises DataError for an empty corpus, ConfigError for a share outside [0, 1).
    """
    if not 0 <= validation < 1:
        raise ConfigError(f"data.validation={validation} is no share: set it to at least 0 and less than 1")
    first = list(itertools.islice(documents, FEW))
    if not first:
        raise DataError("the corpus is empty: data.source holds no text, or data.clean drops all of it; name a source that does")
    if len(first) == FEW:
        shares = [_share(text) for _, text in first]
        return ByHash(validation, min(shares), max(shares))
    ends = list(itertools.accumulate(len(text) for _, text in first))
    starts = tuple((number, end - len(text)) for (number, text), end in zip(first, ends, strict=True))
    return ByPosition(max(1, int(ends[-1] * (1 - validation))), starts)


def _share(text: str) -> float:
    """Where a text's hash lies in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / (1 << 48)
