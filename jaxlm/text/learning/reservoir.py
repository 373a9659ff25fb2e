"""A sample of a stream, each item equally likely, in the memory of the sample. Read next: `unigram.py`, which learns from one."""

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def sample(items: Iterable[Item], size: int, seed: int) -> list[Item]:
    """`size` of the items (all, if there are no more), by Li's algorithm L (1994): random numbers only for those that are taken.

    >>> sample("abc", 5, seed=0)
    ['a', 'b', 'c']
    """
    items, draw = iter(items), random.Random(seed)
    kept = list(itertools.islice(items, size))
    log_weight = 0.0
    while len(kept) == size:
        log_weight += math.log(draw.random() or 0.5) / size
        skip = math.floor(math.log(1 - draw.random()) / math.log1p(-math.exp(log_weight)))
        taken = list(itertools.islice(items, skip, skip + 1))
        if not taken:
            break
        kept[draw.randrange(size)] = taken[0]
    return kept


def pieces(text: str, most: int) -> Iterator[str]:
    """A text in pieces of up to `most` characters, cut at blanks where there are any, without those that are blank.

    >>> list(pieces("to be or not", 7))
    ['to be', 'or not']
    """
    start = 0
    while start < len(text):
        stop = start + most
        if stop < len(text) and not text[stop].isspace():
            blank = max(text.rfind(" ", start, stop), text.rfind("\n", start, stop))
            stop = blank if blank > start else stop
        if piece := text[start:stop].strip():
            yield piece
        start = stop
