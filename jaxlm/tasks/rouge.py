"""ROUGE (Lin 2004): how many words, pairs of words, or words in order a summary shares with its reference. As Google's rouge-score has it.

Words are runs of a-z and 0-9 of the lower-cased text: letters beyond these separate words, umlauts among them. Read next:
`text_scores.py`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

Words = list[str]
Stem = Callable[[str], str]
NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
STEMMED = 4  # letters of the shortest word that is stemmed


def rouge(hypothesis: str, reference: str, stem: Stem | None = None) -> dict[str, float]:
    """F-measures, 0 to 1, of one pair of texts, by NAMES.

    rougeLsum looks at each line as a sentence (section 3.2 of the paper); rougeL at the text as one.

    Args:
      stem: what takes a word's ending off; None: nothing does. rouge-score's `use_stemmer=True` is `nltk.stem.PorterStemmer().stem`.

    >>> found = rouge("the cat sat", "the cat is here")
    >>> [round(found[name], 3) for name in NAMES]
    [0.571, 0.4, 0.571, 0.571]
    """
    ours, theirs = words(hypothesis, stem), words(reference, stem)
    lines = [[words(line, stem) for line in text.split("\n") if line] for text in (hypothesis, reference)]
    found = {f"rouge{n}": f_measure(*shared(ngrams(ours, n), ngrams(theirs, n))) for n in (1, 2)}
    found["rougeL"] = f_measure(common_length(ours, theirs), len(ours), len(theirs))
    return found | {"rougeLsum": f_measure(union_hits(*lines), *(sum(map(len, side)) for side in lines))}


def words(text: str, stem: Stem | None = None) -> Words:
    """The words of a text; those of more than three letters are stemmed.

    >>> words("It's 3.5 Bäume")
    ['it', 's', '3', '5', 'b', 'ume']
    """
    found = re.findall("[a-z0-9]+", text.lower())
    return found if stem is None else [stem(word) if len(word) >= STEMMED else word for word in found]


def ngrams(found: Words, n: int) -> Counter:
    """How often each run of n words is there."""
    return Counter(zip(*(found[i:] for i in range(n)), strict=False))


def shared(ours: Counter, theirs: Counter) -> tuple[int, int, int]:
    """What both sides have, each as often as the side with less of it, and what each side has."""
    return (ours & theirs).total(), ours.total(), theirs.total()


def f_measure(hits: int, ours: int, theirs: int) -> float:
    """The harmonic mean of hits / ours and hits / theirs; 0 of nothing."""
    return 2 * hits / (ours + theirs) if hits else 0.0


def common_length(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    >>> common_length("a b c d".split(), "b x d".split())
    2
    """
    return (~_columns(theirs, ours)[-1] & ((1 << len(theirs)) - 1)).bit_count()


def common_places(ours: Sequence[str], theirs: Sequence[str]) -> list[int]:
    """The places in `theirs` of one longest common subsequence: of several the one that rouge-score finds."""
    columns, found, i, j = _columns(theirs, ours), [], len(theirs), len(ours)
    length = lambda i, j: (~columns[j] & ((1 << i) - 1)).bit_count()  # of the first i of theirs and the first j of ours
    while i and j:
        if theirs[i - 1] == ours[j - 1]:
            i, j = i - 1, j - 1
            found.append(i)
        elif length(i, j - 1) > length(i - 1, j):
            j -= 1
        else:
            i -= 1
    return found


def _columns(down: Sequence[str], across: Sequence[str]) -> list[int]:
    """The table of common lengths, a column of it one integer whose bit i is 0 where a step down from i adds one (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(down):
        places[word] = places.get(word, 0) | 1 << i
    every = (1 << len(down)) - 1
    columns = [every]
    for word in across:
        hit = columns[-1] & places.get(word, 0)
        columns.append((columns[-1] + hit | columns[-1] - hit) & every)
    return columns


def union_hits(ours: Iterable[Words], theirs: Iterable[Words]) -> int:
    """The words of the reference's sentences that are in order in some sentence of ours, each counted as often as both sides have it."""
    left = Counter(word for line in ours for word in line) & Counter(word for line in theirs for word in line)
    hits = 0
    for line in theirs:
        for place in sorted({place for one in ours for place in common_places(one, line)}):
            hits += left[line[place]] > 0
            left[line[place]] -= 1
    return hits
