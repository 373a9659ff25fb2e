"""A stream of texts in lists of a bounded size: what is cleaned, counted or tokenized at once."""

from collections.abc import Iterable, Iterator


def chunks(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """The texts in runs of at least so many characters, the last one aside.

    >>> list(chunks(["ab", "cd", "e"], 3))
    [['ab', 'cd'], ['e']]
    """
    waiting: list[str] = []
    filled = 0
    for text in texts:
        waiting.append(text)
        filled += len(text)
        if filled >= characters:
            yield waiting
            waiting, filled = [], 0
    if waiting:
        yield waiting
