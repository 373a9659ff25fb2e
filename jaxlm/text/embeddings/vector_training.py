"""Train word vectors: skip-gram, CBOW (word2vec), skip-gram over n-grams (fastText).

`vector_batches.py` makes the batches on the host, `vector_steps.py` holds the updates; here they meet. GloVe is in
`glove.py`. Same corpus, settings and seed: the same vectors, on one kind of machine.
"""

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from jaxlm.errors import ConfigError, DivergenceError
from jaxlm.text.embeddings import fasttext_files, vector_steps
from jaxlm.text.embeddings.subwords import Subwords
from jaxlm.text.embeddings.vector_batches import Batch, batches, keep_probabilities, noise_table
from jaxlm.text.embeddings.vector_corpus import Corpus, Vocabulary
from jaxlm.text.embeddings.vector_steps import BLOCK, Block, Tables
from jaxlm.text.vectors import Vectors

KINDS = ("skipgram", "cbow", "fasttext", "glove")
LOWEST = 1e-4  # the learning rate at the end, as word2vec's and gensim's
ROWS = 256  # a block's n-gram rows are filled up to a multiple of this: few shapes, few compilations


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train; the defaults are word2vec's. `learning_rate` None: 0.025, for GloVe 0.2.

    window: context words on each side, at most. negative: noise words a pair. sample: above this share a word is
    subsampled. buckets, shortest, longest: fastText's n-grams (its own default is 2,000,000 buckets, for Wikipedia).
    """

    kind: str = "skipgram"
    size: int = 100
    window: int = 5
    negative: int = 5
    sample: float = 1e-3
    epochs: int = 5
    seed: int = 0
    learning_rate: float | None = None
    buckets: int = 200_000
    shortest: int = 3
    longest: int = 6

    def __post_init__(self) -> None:
        """Raises ConfigError naming the option that makes no sense."""
        if self.kind not in KINDS:
            raise ConfigError(f"unknown --kind {self.kind}: the kinds are {', '.join(KINDS)}")
        least = {"size": 1, "window": 1, "negative": 1, "epochs": 1, "buckets": 1, "shortest": 1, "longest": self.shortest, "sample": 0}
        for name, low in least.items():
            if not low <= getattr(self, name) <= 1 << 31:
                raise ConfigError(f"--{name} {getattr(self, name)} is out of range: give at least {low}")
        if self.longest > 1000 or self.size > 10_000:
            raise ConfigError(f"--longest {self.longest}, --size {self.size}: give at most 1000 and 10000")
        if self.window > 100:
            raise ConfigError(f"--window {self.window} is out of range: give at most 100")
        if self.learning_rate is not None and not 0 < self.learning_rate < 10:
            raise ConfigError(f"--learning-rate {self.learning_rate} is out of range: give one between 0 and 10, as 0.025")


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """Vectors, and the tables they are made of: inputs float32 [V or V + buckets, D], outputs float32 [V, D]."""

    vectors: Vectors
    inputs: np.ndarray
    outputs: np.ndarray


def train(corpus: Corpus, vocabulary: Vocabulary, settings: Settings, report: Callable[[str], None] = lambda line: None) -> Trained:
    """Train by stochastic gradient descent with a learning rate that falls linearly to LOWEST.

    Raises DivergenceError where the vectors are not finite in the end.
    """
    import jax

    random = np.random.default_rng(settings.seed)
    grams = _ngrams(vocabulary, settings) if settings.kind == "fasttext" else None
    size, rows = settings.size, len(vocabulary.words)
    inputs = random.random((rows + (settings.buckets if grams else 0), size), np.float32)
    tables = Tables(jax.numpy.asarray((inputs - 0.5) / size), jax.numpy.zeros((rows, size)))
    update = vector_steps.cbow if settings.kind == "cbow" else vector_steps.skipgram
    noise, keep = noise_table(vocabulary.counts), keep_probabilities(vocabulary.counts, settings.sample)
    load = _load(vocabulary.counts, keep, settings.negative)
    expected = max(1.0, settings.epochs * float(keep @ vocabulary.counts))
    told = start = time.perf_counter()
    for batch in batches(corpus, keep, (settings.window, settings.epochs, BLOCK), random):
        blocks = _blocks(batch, noise, settings, expected, random, grams)
        tables = update(tables, load, batch.ids, blocks, window=settings.window, negative=settings.negative)
        if time.perf_counter() - told > 5:
            jax.block_until_ready(tables)
            told, share = time.perf_counter(), min(1.0, (batch.seen + batch.left.size) / expected)
            words = share * settings.epochs * len(corpus.ids)
            report(f"epoch {share * settings.epochs:.1f} of {settings.epochs}, {words / (told - start):,.0f} words/s")
    return _finish(vocabulary, settings, *map(np.asarray, tables))


def _load(counts: np.ndarray, keep: np.ndarray, negative: int) -> np.ndarray:
    """How often a word is expected among the T words of a block and their negatives, float32 [V]."""
    words, noise = keep * counts, counts**0.75
    return (BLOCK * (words / max(words.sum(), 1e-9) + negative * noise / noise.sum())).astype(np.float32)


def _finish(vocabulary: Vocabulary, settings: Settings, inputs: np.ndarray, outputs: np.ndarray) -> Trained:
    if not (np.isfinite(inputs).all() and np.isfinite(outputs).all()):
        raise DivergenceError("the vectors are not finite: lower --learning-rate")
    rows = len(vocabulary.words)
    if settings.kind != "fasttext":
        return Trained(Vectors(vocabulary.words, inputs), inputs, outputs)
    subwords = Subwords(inputs[rows:], settings.shortest, settings.longest)
    return Trained(fasttext_files.compose(list(vocabulary.words), inputs[:rows], subwords), inputs, outputs)


def _ngrams(vocabulary: Vocabulary, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Every word's input rows, its own first, one word after the other; where each word's begin, [V + 1]."""
    subwords = Subwords(np.empty((settings.buckets, 0)), settings.shortest, settings.longest)
    rows = [[row, *(len(vocabulary.words) + gram for gram in subwords.rows(word))] for row, word in enumerate(vocabulary.words)]
    return np.concatenate([np.array(each, np.int32) for each in rows]), np.cumsum([0, *map(len, rows)])


def _blocks(
    batch: Batch, noise: np.ndarray, settings: Settings, expected: float, random: np.random.Generator, grams: tuple | None
) -> Block:
    count = len(batch.left)
    first = settings.learning_rate or 0.025
    rates = first * (1 - (batch.seen + np.arange(count) * BLOCK) / expected)
    negatives = noise[random.integers(0, len(noise), (count, BLOCK))]
    stream = np.lib.stride_tricks.sliding_window_view(batch.ids, BLOCK + 2 * settings.window)[::BLOCK]
    centres = stream[:, settings.window : settings.window + BLOCK]
    none = np.zeros((count, 0), np.int32)
    rows, owners = (none, none) if grams is None else _flat(centres, *grams)
    starts, rates = np.arange(count, dtype=np.int32) * BLOCK, np.maximum(rates, LOWEST).astype(np.float32)
    return Block(starts, batch.left, batch.right, negatives, rates, _crowd(stream), rows, owners)


def _crowd(stream: np.ndarray) -> np.ndarray:
    """How often the word of each place comes in its block, float32 [n, T + 2w]."""
    order = np.argsort(stream, 1)
    ranked = np.take_along_axis(stream, order, 1)
    new = np.diff(ranked, axis=1, prepend=-1) != 0  # a run of equal words begins; no run goes on into the next block
    run = np.cumsum(new) - 1
    crowd = np.empty(stream.shape, np.float32)
    np.put_along_axis(crowd, order, np.bincount(run)[run].reshape(stream.shape), 1)
    return crowd


def _flat(centres: np.ndarray, flat: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The input rows of each block's centres int32 [n, R] and their owners, filled up with row 0 of owner T."""
    counts = (starts[1:] - starts[:-1])[centres]
    widest = -(-int(counts.sum(1).max()) // ROWS) * ROWS
    rows, owners = np.zeros((len(centres), widest), np.int32), np.full((len(centres), widest), BLOCK, np.int32)
    for block, (ids, sizes) in enumerate(zip(centres, counts, strict=True)):
        total = sizes.sum()
        ends = np.cumsum(sizes)
        rows[block, :total] = flat[np.repeat(starts[ids] - ends + sizes, sizes) + np.arange(total)]
        owners[block, :total] = np.repeat(np.arange(BLOCK), sizes)
    return rows, owners
