"""GloVe: word vectors by weighted least squares on co-occurrence counts (Pennington et al. 2014, EMNLP).

Counts first, in NumPy; then AdaGrad over the counts that are not zero, as jitted JAX. Read next: `vector_training.py`.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlm.errors import DataError, DivergenceError
from jaxlm.text.embeddings.vector_corpus import Corpus, Vocabulary
from jaxlm.text.embeddings.vector_training import Settings, Trained
from jaxlm.text.vectors import Vectors

PIECE = 1 << 20  # words counted at once
MERGE = 1 << 25  # partial counts held before they are summed
POWER = 0.75  # alpha of eq. 9
MOST = 10.0  # x_max of eq. 9: the paper's 100 is for billions of words; with millions few counts get there
# The paper's 0.05 wants 15 epochs for 0.219 on WordSim-353 (4.6M words); 0.2 had 0.234 after 4, 0.239 after 6 and less from there.
RATE = 0.2
BATCH, CALL = 1024, 512  # pairs of one update, updates of one compiled call


def cooccurrences(corpus: Corpus, size: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys i * V + j with i <= j, int64 and rising, and their counts float32; words d apart in a sentence count 1 / d (section 4.2)."""
    keys, counts = [np.zeros(0, np.int64)], [np.zeros(0)]
    for at in range(0, len(corpus.ids), PIECE):
        ids = corpus.ids[at : at + PIECE + window].astype(np.int64)
        sentence = np.searchsorted(corpus.ends, np.arange(at, at + len(ids)), "right")
        for distance in range(1, window + 1):
            first = np.flatnonzero(sentence[distance:] == sentence[:-distance])
            first = first[first < PIECE]
            one, two = ids[first], ids[first + distance]
            keys.append(np.minimum(one, two) * size + np.maximum(one, two))
            counts.append(np.full(len(first), 1 / distance))
        if sum(map(len, keys)) > MERGE:
            keys, counts = ([part] for part in _summed(keys, counts))
    key, count = _summed(keys, counts)
    return key, count.astype(np.float32)


def _summed(keys: list[np.ndarray], counts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    key, place = np.unique(np.concatenate(keys), return_inverse=True)
    return key, np.bincount(place, np.concatenate(counts), len(key))


@functools.partial(jax.jit, donate_argnums=0, static_argnames="rate")
def update(tables: tuple[jax.Array, jax.Array], rows: jax.Array, columns: jax.Array, counts: jax.Array, *, rate: float) -> tuple:
    """AdaGrad on eq. 8, f(X) (w_i . w~_j + b_i + b~_j - log X)^2, for n batches of B pairs.

    Args:
      tables: words and contexts, each float32 [V, 2, D + 1]: [:, 0] vector and bias, [:, 1] their sums of squared gradients.
      rows, columns: int32 [n, B]. counts: float32 [n, B]; 0 for none.
    """

    def step(tables: tuple, batch: tuple) -> tuple:
        words, contexts = tables
        i, j, count = batch
        one, two = words[i], contexts[j]
        miss = (one[:, 0, :-1] * two[:, 0, :-1]).sum(-1) + one[:, 0, -1] + two[:, 0, -1] - jnp.log(jnp.maximum(count, 1e-9))
        pull = (jnp.minimum(1, count / MOST) ** POWER * miss)[:, None]
        left, right = (pull * side.at[:, -1].set(1) for side in (two[:, 0], one[:, 0]))  # the gradient of a bias is `pull`
        return (_descend(words, i, one, left, rate), _descend(contexts, j, two, right, rate)), None

    return lax.scan(step, tables, (rows, columns, counts))[0]


def _descend(table: jax.Array, rows: jax.Array, old: jax.Array, gradient: jax.Array, rate: float) -> jax.Array:
    return table.at[rows].add(jnp.stack([-rate * gradient * lax.rsqrt(old[:, 1]), gradient**2], 1))


def train(corpus: Corpus, vocabulary: Vocabulary, settings: Settings, report: Callable[[str], None] = lambda line: None) -> Trained:
    """Vectors w + w~ (section 4.2). Counts are kept in memory: some 12 bytes for each pair of words seen together.

    Raises DataError where no two words stand together, DivergenceError where the vectors are not finite in the end.
    """
    keys, counts = cooccurrences(corpus, len(vocabulary.words), settings.window)
    if not len(keys):
        raise DataError("no two words of the vocabulary stand in one line: give text with longer lines")
    report(f"{len(keys):,} pairs of words stand within {settings.window} of each other")
    random = np.random.default_rng(settings.seed)
    tables = tuple(_start(random, len(vocabulary.words), settings.size) for _ in range(2))
    rate = RATE if settings.learning_rate is None else settings.learning_rate
    start = time.perf_counter()
    for epoch in range(settings.epochs):
        for i, j, count in _batches(keys, counts, len(vocabulary.words), random):
            tables = update(tables, i, j, count, rate=rate)
        jax.block_until_ready(tables)
        report(f"epoch {epoch + 1} of {settings.epochs}, {2 * len(keys) * (epoch + 1) / (time.perf_counter() - start):,.0f} pairs/s")
    inputs, outputs = (np.asarray(table)[:, 0, :-1] for table in tables)
    if not (np.isfinite(inputs).all() and np.isfinite(outputs).all()):
        raise DivergenceError("the vectors are not finite: lower --learning-rate")
    return Trained(Vectors(vocabulary.words, inputs + outputs), inputs, outputs)


def _start(random: np.random.Generator, rows: int, size: int) -> jax.Array:
    values = (random.random((rows, size + 1), np.float32) - 0.5) / size
    return jnp.asarray(np.stack([values, np.ones_like(values)], 1))


def _batches(keys: np.ndarray, counts: np.ndarray, size: int, random: np.random.Generator):
    """All pairs in random order, each in a random direction, then all in the other: (rows, columns, counts), each [n, BATCH]."""
    call = min(CALL, -(-len(keys) // BATCH))
    order = random.permutation(len(keys))
    turned = random.random(len(keys)) < 0.5
    for turn in (turned, ~turned):
        for at in range(0, len(order), call * BATCH):
            part = order[at : at + call * BATCH]
            low, high = np.divmod(keys[part], size)
            pair = np.where(turn[part], high, low), np.where(turn[part], low, high), counts[part]
            fill = call * BATCH - len(part)
            dtypes = (np.int32, np.int32, np.float32)
            yield tuple(np.pad(side, (0, fill)).astype(dtype).reshape(call, BATCH) for side, dtype in zip(pair, dtypes, strict=True))
