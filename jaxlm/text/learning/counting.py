"""How often each word occurs in texts, within a bounded memory, and words handed to a trainer that many times.

The `tokenizers` library counts words itself, but keeps all distinct ones: of a large corpus gigabytes. Here its counter is given a
portion of the texts at a time, and the rarest words are dropped whenever there are too many. Read next: `../training.py`.
"""

import collections
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxlm.text.chunks import chunks
from jaxlm.text.unicode import well_formed

PORTION = 1 << 22  # characters that the library counts at a time
LETTERS = 32  # characters a word that may be kept, on average
OCCURRENCES = 1 << 25  # words that a trainer is handed at most: above, counts are lowered in proportion


def count_words(texts: Iterable[str], engine: Any, most: int, report: Callable[[str], None] = lambda line: None) -> dict[str, int]:
    """Words, as the engine's normalizer and pre-tokenizer cut them, and their counts.

    Exact for up to `most` distinct words (and 32 * `most` characters in them). Beyond, the rarest half is dropped and counting goes on
    (Manku and Motwani 2002): a count is then too small by at most the sum of the reported limits.
    """
    counts: dict[str, int] = {}
    letters, count = 0, _counter(engine)
    for portion in chunks(map(well_formed, texts), PORTION):
        for word, number in count(portion).items():
            letters += 0 if word in counts else len(word)
            counts[word] = counts.get(word, 0) + number
        if len(counts) > most or letters > LETTERS * most:
            before, (counts, limit) = len(counts), _without_rare(counts, most // 2)
            letters = sum(map(len, counts))
            report(f"{before:,} distinct words: those seen at most {limit:,} times so far are dropped, {len(counts):,} stay")
    return counts


def _counter(engine: Any) -> Callable[[list[str]], dict[str, int]]:
    """The library's own way of cutting and counting: its trainer of whole words, read out."""
    from tokenizers import Tokenizer, models, trainers

    counter = Tokenizer(models.WordLevel())
    if engine.normalizer is not None:
        counter.normalizer = engine.normalizer
    counter.pre_tokenizer = engine.pre_tokenizer

    def count(texts: list[str]) -> dict[str, int]:
        trainer = trainers.WordLevelTrainer(vocab_size=1, show_progress=False)
        counter.train_from_iterator(texts, trainer)
        return json.loads(trainer.__getstate__())["WordLevelTrainer"]["words"]

    return count


def _without_rare(counts: dict[str, int], most: int) -> tuple[dict[str, int], int]:
    words, letters = collections.Counter(counts.values()), collections.Counter()
    for word, number in counts.items():
        letters[number] += len(word)
    left, size, limit = len(counts), letters.total(), 0
    for number in sorted(words):
        if left <= most and size <= LETTERS * most:
            break
        left, size, limit = left - words[number], size - letters[number], number
    return {word: number for word, number in counts.items() if number > limit}, limit


def repeated(counts: dict[str, int], most: int = OCCURRENCES) -> Iterator[str]:
    """Each word as often as it is counted, in lines with a blank between the words: trainers of the library take no counts.

    Beyond `most` words in all, counts are lowered in proportion, none below one.

    >>> list(repeated({"a": 2, "b": 1}))
    ['a a b']
    """
    total = sum(counts.values())
    lowered = lambda number: number if total <= most else max(1, number * most // total)
    words = itertools.chain.from_iterable(itertools.repeat(word, lowered(number)) for word, number in counts.items())
    while line := " ".join(itertools.islice(words, 64)):
        yield line
