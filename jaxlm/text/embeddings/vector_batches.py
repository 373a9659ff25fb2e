"""What one step of word2vec looks at, made on the host: subsampled words, their windows, learning rates, negatives.

The corpus is one stream, epoch after epoch, cut in blocks of a fixed number of centre words; each block comes with the
`window` ids on its either side. Mikolov et al. 2013 (arXiv:1310.4546), section 2.3 (subsampling) and 2.2 (negatives).
Read next: `vector_training.py`.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from jaxlm.text.embeddings.vector_corpus import Corpus

PIECE = 1 << 20  # words subsampled at once; a sentence across the edge of two pieces is cut there
CALL = 1 << 17  # centre words of one compiled call


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """The n blocks of T centre words of one call.

    ids int32 [n * T + 2 * window]: the centres and `window` more on either side. left, right int8 [n, T]: how many
    context words a centre has. seen: centre words before this call.
    """

    ids: np.ndarray
    left: np.ndarray
    right: np.ndarray
    seen: int


def keep_probabilities(counts: np.ndarray, sample: float) -> np.ndarray:
    """The chance that an occurrence of a word is kept: sqrt(s / f) + s / f as word2vec's tool has it, at most 1; s = 0 keeps all."""
    share = sample / (counts / counts.sum())
    return np.minimum(1, np.sqrt(share) + share) if sample else np.ones(len(counts))


def batches(corpus: Corpus, keep: np.ndarray, shape: tuple[int, int, int], random: np.random.Generator) -> Iterator[Batch]:
    """The batches of all epochs; the last is filled with centres that have no context.

    Args:
      keep: float [V], a word's chance to be kept.
      shape: window, epochs, T.
    """
    window, epochs, block = shape
    size = min(CALL, -(-max(1, len(corpus.ids) * epochs) // block) * block)
    ids = np.zeros(window, np.int32)  # begins with the `window` words before the first pending centre
    left = right = np.zeros(0, np.int8)
    seen = 0
    for piece in _pieces(corpus, keep, window, epochs, random):
        ids, left, right = map(np.concatenate, zip((ids, left, right), piece, strict=True))
        while len(left) >= size + window:
            yield Batch(ids[: size + 2 * window], left[:size].reshape(-1, block), right[:size].reshape(-1, block), seen)
            ids, left, right, seen = ids[size:], left[size:], right[size:], seen + size
    while len(left):
        here, left, right = (left[:size], right[:size]), left[size:], right[size:]
        full = np.resize(np.pad(ids, (0, size + window)), size + 2 * window)
        padded = [np.pad(side, (0, size - len(side))).reshape(-1, block) for side in here]
        yield Batch(full, *padded, seen)
        ids, seen = ids[size:], seen + size


def _pieces(corpus: Corpus, keep: np.ndarray, window: int, epochs: int, random: np.random.Generator) -> Iterator[tuple]:
    """(ids, left, right) of the words that subsampling keeps, a window of 1 to `window` words drawn for each."""
    for _ in range(epochs):
        for at in range(0, len(corpus.ids), PIECE):
            ids = corpus.ids[at : at + PIECE]
            kept = random.random(len(ids), np.float32) < keep[ids]
            ends = np.append(np.cumsum(kept)[corpus.ends[(corpus.ends > at) & (corpus.ends < at + len(ids))] - at - 1], kept.sum())
            ids = ids[kept]
            sizes = np.diff(ends, prepend=0)
            inside = np.arange(len(ids)) - np.repeat(ends - sizes, sizes)  # place in its sentence
            reach = random.integers(1, window + 1, len(ids))
            after = np.repeat(sizes, sizes) - 1 - inside
            yield ids, np.minimum(reach, inside).astype(np.int8), np.minimum(reach, after).astype(np.int8)


def noise_table(counts: np.ndarray, power: float = 0.75) -> np.ndarray:
    """Ids int32, each as often as its share of count**power: a uniform draw from it is a negative (arXiv:1310.4546, 2.2)."""
    share = counts.astype(float) ** power
    size = max(1 << 22, 8 * len(counts))
    return np.repeat(np.arange(len(counts), dtype=np.int32), np.maximum(1, np.round(size * share / share.sum()).astype(int)))
