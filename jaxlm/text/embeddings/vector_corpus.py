"""Texts to word ids for training word vectors: the vocabulary by a streamed count, then sentences as one stream of ids.

Both passes hold one document of text at a time; what stays is a count for each distinct word, then four bytes for each
word. Read next: `vector_training.py`.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jaxlm.errors import DataError

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
DISTINCT = 20_000_000  # words counted at once; beyond it the rarest are forgotten, as word2vec's tool does
EVERY = 5_000_000  # words between two reports


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words, the most frequent first, and their counts int64 [V]; `total` counts the rare ones too."""

    words: tuple[str, ...]
    counts: np.ndarray
    total: int


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """The ids int32 [N] of all words of the vocabulary, sentence after sentence, and where each ends, int64 [sentences]."""

    ids: np.ndarray
    ends: np.ndarray


def sentences(texts: Iterable[str], lower: bool = True) -> Iterator[list[str]]:
    """The words of each line that has some: runs of letters and digits, apostrophes inside them kept.

    >>> list(sentences(["Don't panic.\\nNow!"]))
    [["don't", 'panic'], ['now']]
    """
    for text in texts:
        for line in (text.lower() if lower else text).splitlines():
            if words := WORD.findall(line):
                yield words


def count_words(lines: Iterable[list[str]], min_count: int = 5, report: Callable[[str], None] = lambda line: None) -> Vocabulary:
    """Words that come at least `min_count` times, by falling count, equal counts by the alphabet.

    Raises DataError where no word comes so often.
    """
    counts: collections.Counter[str] = collections.Counter()
    total = told = 0
    floor = 1
    for words in lines:
        counts.update(words)
        total += len(words)
        if total - told >= EVERY:
            told = total
            report(f"counted {total:,} words, {len(counts):,} distinct")
        while len(counts) > DISTINCT:
            floor += 1
            counts = collections.Counter({word: count for word, count in counts.items() if count >= floor})
    kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
    if not kept:
        raise DataError(f"none of {len(counts)} distinct words comes {min_count} times: give more text, or a lower --min-count")
    report(f"counted {total:,} words; {len(kept):,} of {len(counts):,} distinct come at least {min_count} times")
    return Vocabulary(tuple(word for _, word in kept), np.array([-count for count, _ in kept]), total)


def encode(lines: Iterable[list[str]], vocabulary: Vocabulary) -> Corpus:
    """The stream of ids; words outside the vocabulary are left out, as if they had not been there."""
    index = {word: row for row, word in enumerate(vocabulary.words)}
    ids, ends, pending = [], [], []
    size = 0
    for words in lines:
        known = [index[word] for word in words if word in index]
        size += len(known)
        pending += known
        ends.append(size)
        if len(pending) >= 1 << 20:  # a Python list costs ten times the array
            ids.append(np.array(pending, np.int32))
            pending = []
    return Corpus(np.concatenate([*ids, np.array(pending, np.int32)]), np.array(ends, np.int64))
