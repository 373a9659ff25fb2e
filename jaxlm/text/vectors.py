"""Word vectors: a vocabulary and its matrix; neighbours and analogies by cosine.

Read next, in `embeddings/`: `vector_files.py` (reading and writing), `vector_evaluation.py` (WordSim, analogies),
`vector_training.py` (word2vec and fastText in JAX), `glove.py`, `embedding_init.py` (a model's table out of vectors).
"""

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from jaxlm.errors import DataError
from jaxlm.text.embeddings.subwords import Subwords

ROWS = 64  # queries that are compared with the whole vocabulary at once: memory is ROWS x V floats


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
    """Words, the most frequent first, and a float32 [V, D] row for each; with `subwords` (fastText), any other word too."""

    words: tuple[str, ...]
    matrix: np.ndarray
    subwords: Subwords | None = None

    def __post_init__(self) -> None:
        """Raises DataError where words and rows are not of one number."""
        if self.matrix.ndim != 2 or len(self.words) != len(self.matrix):
            raise DataError(f"{len(self.words)} words for a matrix of shape {self.matrix.shape}: give one row a word")

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Word -> row; of a repeated word the first row."""
        return dict(zip(reversed(self.words), range(len(self.words) - 1, -1, -1), strict=True))

    @functools.cached_property
    def unit(self) -> np.ndarray:
        """The rows at length 1, float32 [V, D]; a row of zeros stays one."""
        return normalized(self.matrix)

    def __contains__(self, word: str) -> bool:
        """Whether the word is one of `words`; an unseen word with subwords is not."""
        return word in self.index

    def lookup(self, words: Iterable[str]) -> np.ndarray:
        """Vectors of words, float32 [words, D]; with subwords, an unseen word is the mean of its n-grams.

        Raises DataError for a word that has no vector, with the nearest that has one.
        """
        rows = [self._row(word) for word in words]
        return np.stack(rows) if rows else np.zeros((0, self.matrix.shape[1]), np.float32)

    def _row(self, word: str) -> np.ndarray:
        if word in self.index:
            return self.matrix[self.index[word]]
        if self.subwords is not None and (rows := self.subwords.rows(word)):
            return self.subwords.buckets[rows].mean(0)
        near = difflib.get_close_matches(word, self.words[:50_000], n=1, cutoff=0.7)
        raise DataError(f"no vector for {word!r}" + (f": did you mean {near[0]!r}?" if near else ": words are matched as they are written"))

    def most_similar(self, words: Iterable[str], count: int = 10) -> list[list[tuple[str, float]]]:
        """For each word, its `count` nearest others and their cosines, the nearest first."""
        words = list(words)
        return self.nearest(self.lookup(words), count, [[word] for word in words])

    def analogy(self, a: str, b: str, c: str, count: int = 1, limit: int | None = None) -> list[tuple[str, float]]:
        """What is to `c` as `b` is to `a`: the rows nearest to b - a + c, all of length 1 (3CosAdd, Mikolov et al. 2013, NAACL).

        The three words themselves are no answers; `limit` takes only so many of the most frequent words, as word2vec's tool does.
        """
        unit = normalized(self.lookup([a, b, c]))
        return self.nearest((unit[1] - unit[0] + unit[2])[None], count, [[a, b, c]], limit)[0]

    def nearest(
        self, queries: np.ndarray, count: int, without: Sequence[Sequence[str]], limit: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """Words by cosine to queries float32 [Q, D], among the first `limit`; `without[q]` are no answers to query q."""
        unit, found = self.unit[:limit], []
        for at in range(0, len(queries), ROWS):
            scores = normalized(queries[at : at + ROWS]) @ unit.T
            for row, banned in zip(scores, without[at : at + ROWS], strict=True):
                places = [self.index[word] for word in banned if word in self.index]
                row[[place for place in places if place < len(row)]] = -np.inf
                found.append([(self.words[i], float(row[i])) for i in _best(row, count) if row[i] > -np.inf])
        return found


def normalized(rows: np.ndarray) -> np.ndarray:
    """Rows at length 1; zeros stay zeros.

    >>> normalized(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the highest scores; of equal ones the earlier comes first."""
    count = max(0, min(count, len(scores)))
    if count < len(scores):
        bar = np.partition(scores, len(scores) - count - 1)[len(scores) - count - 1] if count else np.inf
        places = np.flatnonzero(scores >= bar)
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")][:count]
