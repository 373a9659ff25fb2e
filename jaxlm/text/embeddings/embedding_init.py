"""Start a model's embedding table from word vectors: by vocabulary match, and by averaging for pieces of words.

Read first: `../vectors.py`.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxlm.errors import DataError
from jaxlm.text.vectors import Vectors

WORDS = 100_000  # most frequent words that are averaged into their pieces


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Rows of a table that got the vector of their own word, or the mean of the words they are a piece of."""

    direct: int
    averaged: int
    rows: int

    def __str__(self) -> str:
        """One line for the log."""
        share = (self.direct + self.averaged) / max(self.rows, 1)
        parts = f"{self.direct} by their word, {self.averaged} as pieces of words"
        return f"{share:.0%} of {self.rows} embeddings start from word vectors: {parts}"


def fill_embeddings(table: Any, tokenizer: Any, vectors: Vectors, seed: int = 0) -> tuple[np.ndarray, Coverage]:
    """A copy of the table [V, D] with the rows replaced for which the vectors know something.

    A token's word is `tokenizer.decode([id]).strip()`, as it is, else without regard to case. A word of several tokens
    is added to those of them that have no word of their own, which get the mean. Vectors of another width E are turned:
    E < D by a random matrix of orthonormal rows (all inner products stay), E > D onto their D first principal directions.
    What is filled in has the standard deviation that the table had.

    Raises DataError where no token matches.
    """
    table = np.array(table)
    rows = min(len(table), tokenizer.vocab_size)
    surfaces = [tokenizer.decode([row]).strip() for row in range(rows)]
    sums, counts = np.zeros((rows, vectors.matrix.shape[1]), np.float32), np.zeros(rows)
    direct = _match(surfaces, vectors, sums, counts)
    averaged = _average(surfaces, vectors, tokenizer, sums, counts)
    filled = np.flatnonzero(counts)
    if not len(filled):
        raise DataError("no token of the vocabulary is a word of the vectors: give vectors of the same language and script")
    new = turned(sums[filled] / counts[filled, None], vectors.matrix, table.shape[1], seed)
    table[filled] = (new * (table.astype(np.float32).std() / max(float(new.std()), 1e-12))).astype(table.dtype)
    return table, Coverage(direct, averaged, len(table))


def _match(surfaces: list[str], vectors: Vectors, sums: np.ndarray, counts: np.ndarray) -> int:
    """Fill the rows of tokens that are words; returns how many."""
    folded: dict[str, int] = {}
    for row, word in enumerate(vectors.words):
        folded.setdefault(word.lower(), row)
    for row, word in enumerate(surfaces):
        found = vectors.index.get(word, folded.get(word.lower()))
        if word and found is not None:
            sums[row], counts[row] = vectors.matrix[found], 1
    return int(counts.sum())


def _average(surfaces: list[str], vectors: Vectors, tokenizer: Any, sums: np.ndarray, counts: np.ndarray) -> int:
    """Sum words into their pieces that have no word of their own; returns how many pieces got some."""
    open_rows = {row for row, word in enumerate(surfaces) if word and not counts[row]}
    words = [word for word in vectors.words[:WORDS] if word.strip()]
    # With the space that a word in a text has before it: byte-level vocabularies tell the two apart.
    for word, ids in zip(words, tokenizer.encode_batch([f" {word}" for word in words], add_special_tokens=False), strict=True):
        for row in open_rows.intersection(ids) if len(ids) > 1 else ():
            sums[row] += vectors.matrix[vectors.index[word]]
            counts[row] += 1
    return sum(1 for row in open_rows if counts[row])


def turned(rows: np.ndarray, matrix: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Rows [N, E] at another width D, [N, D]: see `fill_embeddings`; `matrix` [V, E] tells the principal directions."""
    size = rows.shape[1]
    if size == width:
        return rows
    if size > width:
        _, directions = np.linalg.eigh(matrix.T.astype(np.float64) @ matrix)
        return (rows @ directions[:, ::-1][:, :width]).astype(np.float32)
    square = np.random.default_rng(seed).standard_normal((width, size))
    return (rows @ np.linalg.qr(square)[0].T).astype(np.float32)
