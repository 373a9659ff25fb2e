"""Gopher's rules against text that repeats itself (Rae et al. 2021, appendix A.1.1, table A1). Read first: `shingles.py`.

An occurrence is a duplicate if the same line, paragraph or run of words came before. Characters are those of the words,
white space not counted, in both parts of a fraction; none counts twice where runs overlap.
"""

from collections.abc import Iterator

import numpy as np

from jaxlm.text.cleaning.shingles import Words, numbers
from jaxlm.text.cleaning.shingles import words as find_words

TOP = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def repetition(
    text: str,
    lines: tuple[float, float] = (0.30, 0.20),
    paragraphs: tuple[float, float] = (0.30, 0.20),
    top: dict | None = None,
    duplicate: dict | None = None,
) -> str | None:
    """Drop a text that repeats itself; the reason names the rule.

    Args:
      lines: greatest share of duplicate lines, and of the characters in them.
      paragraphs: the same of paragraphs.
      top: n -> greatest share of characters in the most frequent run of n words; the paper's 2: .20, 3: .18, 4: .16.
      duplicate: n -> greatest share of characters in duplicate runs of n words; the paper's 5: .15 to 10: .10.
    """
    for name, pieces, limits in (("lines", text.split("\n"), lines), ("paragraphs", text.split("\n\n"), paragraphs)):
        count, characters = repeated_pieces(pieces)
        if count > limits[0]:
            return f"duplicate_{name}"
        if characters > limits[1]:
            return f"duplicate_{name}_characters"
    tops = TOP if top is None else {int(n): limit for n, limit in top.items()}
    duplicates = DUPLICATE if duplicate is None else {int(n): limit for n, limit in duplicate.items()}
    found = find_words([text], exact=True)
    for n, share in top_runs(found, sorted(tops)).items():
        if share > tops[n]:
            return f"top_{n}gram"
    for n, share in duplicate_runs(found, sorted(duplicates)).items():
        if share > duplicates[n]:
            return f"duplicate_{n}grams"
    return None


def repeated_pieces(pieces: list[str]) -> tuple[float, float]:
    """(share of pieces that came before, share of the characters in them); empty pieces are none.

    >>> repeated_pieces(["ab", "cdef", "gh", "ab", ""])
    (0.25, 0.2)
    """
    stripped = [bare for piece in pieces if (bare := piece.strip())]
    distinct = set(stripped)
    total = sum(map(len, stripped))
    if not total:
        return 0.0, 0.0
    return (len(stripped) - len(distinct)) / len(stripped), (total - sum(map(len, distinct))) / total


def _runs(found: Words, sizes: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """For each n (rising) a number for every run of n words: sums that grow by a word at a time."""
    factors = numbers(5, max(sizes, default=0)) | np.uint64(1)
    sums, size = np.zeros(len(found.hashes), np.uint64), 0
    for n in sizes:
        while size < n and len(sums):
            kept = len(found.hashes) - size
            sums = sums[:kept] + found.hashes[size:] * factors[size]
            size += 1
        yield n, sums if size == n else sums[:0]


def top_runs(found: Words, sizes: list[int]) -> dict[int, float]:
    """For each n (rising) the share of characters in the most frequent run of n words; of several, the longest. 0 if none repeats."""
    sums = np.concatenate([[0], np.cumsum(found.lengths)])
    shares = dict.fromkeys(sizes, 0.0)
    for n, runs in _runs(found, sizes):
        ranked = np.sort(runs)
        edges = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1], [True]])) if len(runs) else np.zeros(1, np.int64)
        counts = np.diff(edges)
        most = int(counts.max(initial=0))
        if most > 1:
            first = np.flatnonzero(np.isin(runs, ranked[edges[:-1][counts == most]]))
            shares[n] = min(1.0, most * int((sums[first + n] - sums[first]).max()) / int(sums[-1]))
    return shares


def duplicate_runs(found: Words, sizes: list[int]) -> dict[int, float]:
    """For each n (rising) the share of characters in runs of n words that came before."""
    total = max(int(found.lengths.sum()), 1)
    alive: np.ndarray | slice = slice(None)  # a longer run repeats only where the shorter one there does
    shares = {}
    for n, runs in _runs(found, sizes):
        at = np.arange(len(runs)) if isinstance(alive, slice) else alive[alive < len(runs)]
        order, first, counts = _groups(runs[at])
        twice = np.repeat(counts > 1, counts)
        later = order[twice & (order != np.repeat(first, counts))]
        shares[n] = int(found.lengths[_covered(at[later], n, len(found.lengths))].sum()) / total
        alive = at[np.sort(order[twice])]
    return shares


def _groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions brought together by value: (positions, the first of each group, the size of each group)."""
    order = np.argsort(values)
    ranked = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(values)])
    first = np.minimum.reduceat(order, starts) if len(starts) else order
    return order, first, np.diff(np.append(starts, len(values)))


def _covered(at: np.ndarray, n: int, count: int) -> np.ndarray:
    """bool [words]: the words of the runs that begin there."""
    steps = np.bincount(at, minlength=count + 1) - np.bincount(at + n, minlength=count + 1)
    return np.cumsum(steps[:-1]) > 0
