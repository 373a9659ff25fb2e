"""How well a tokenizer fits texts: tokens a word, bytes a token, how much it does not know; by group of texts and by script.

Read next: `tokenizer.py`.
"""

import collections
import dataclasses
import functools
import itertools
import unicodedata
from collections.abc import Iterable, Iterator

from jaxlm.text.tokenizer import Tokenizer
from jaxlm.text.tokenizers.characters import Characters
from jaxlm.text.unicode import well_formed

BATCH = 256


@dataclasses.dataclass
class Counts:
    """Sums over texts; the ratios are 0 where there is nothing to divide by."""

    texts: int = 0
    words: int = 0  # as blanks cut them
    known: int = 0  # words without an unknown token
    bytes: int = 0  # of UTF-8
    tokens: int = 0
    unknown: int = 0  # tokens

    @property
    def tokens_per_word(self) -> float:
        """Also called fertility."""
        return self.tokens / max(self.words, 1)

    @property
    def bytes_per_token(self) -> float:
        """How much one token stands for."""
        return self.bytes / max(self.tokens, 1)

    @property
    def unknown_rate(self) -> float:
        """Share of the tokens that are unknown."""
        return self.unknown / max(self.tokens, 1)

    @property
    def coverage(self) -> float:
        """Share of the words that are known whole."""
        return self.known / max(self.words, 1)


def measure(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> tuple[dict[str, Counts], dict[str, Counts]]:
    """Counts by group and by script, of (group, text) pairs; nothing that a template adds is counted.

    A word belongs to the script of its first letter, and is encoded on its own, after a blank.
    """
    groups, scripts = collections.defaultdict(Counts), collections.defaultdict(Counts)
    texts, before = iter(texts), "" if isinstance(tokenizer, Characters) else " "
    while batch := list(itertools.islice(texts, BATCH)):
        for (group, text), (tokens, unknown) in zip(batch, _tokens(tokenizer, [text for _, text in batch]), strict=True):
            _add(groups[group], text, tokens, unknown)
            groups[group].texts += 1
        words = collections.Counter((group, word) for group, text in batch for word in text.split())
        distinct = sorted({word for _, word in words})
        found = dict(zip(distinct, _tokens(tokenizer, [before + word for word in distinct]), strict=True))
        for (group, word), number in words.items():
            row = scripts[script(word)]
            _add(row, word, *found[word], number)
            for counts in (groups[group], row):
                counts.words += number
                counts.known += 0 if found[word][1] else number
    return dict(groups), dict(scripts)


def _add(counts: Counts, text: str, tokens: int, unknown: int, number: int = 1) -> None:
    counts.bytes += number * len(well_formed(text).encode())
    counts.tokens += number * tokens
    counts.unknown += number * unknown


def _tokens(tokenizer: Tokenizer, texts: list[str]) -> list[tuple[int, int]]:
    """Of each text how many tokens, and how many of them are unknown."""
    if isinstance(tokenizer, Characters):  # which refuses what it does not know
        known = set(tokenizer.characters)
        return [(len(text), sum(letter not in known for letter in text)) for text in map(well_formed, texts)]
    rows = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [(len(ids), 0 if tokenizer.unk_id is None else ids.count(tokenizer.unk_id)) for ids in rows]


def script(word: str) -> str:
    """The writing system of a word's first letter, by its Unicode name.

    >>> script("мир"), script("«Welt»"), script("42")
    ('cyrillic', 'latin', 'signs')
    """
    return next((_script(letter) for letter in word if letter.isalpha()), "signs")


@functools.lru_cache(1 << 14)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "other").split()[0].lower()


def table(title: str, rows: dict[str, Counts]) -> Iterator[str]:
    """Lines for people: a row a group, the largest first."""
    width = max(map(len, [title, *rows]))
    yield f"{title:<{width}}  {'words':>10}  {'tokens':>10}  tokens/word  bytes/token  unknown  coverage"
    for name, row in sorted(rows.items(), key=lambda item: (-item[1].bytes, item[0])):
        numbers = f"{row.words:>10,}  {row.tokens:>10,}  {row.tokens_per_word:>11.3f}  {row.bytes_per_token:>11.3f}"
        yield f"{name:<{width}}  {numbers}  {row.unknown_rate:>7.2%}  {row.coverage:>8.2%}"
