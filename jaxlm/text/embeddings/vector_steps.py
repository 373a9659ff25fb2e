"""The updates of word2vec and fastText as jitted JAX: blocks of centre words, one after the other, on two donated tables.

A block of T centres is T / B groups of B neighbours. A group meets all its scores in one small matrix product: with the
words around it (masked to each centre's window) and with K negatives that the group shares, each weighted negative / K.
All gradients of a block are taken at the tables as the block found them and then added, row by row.

T and K are a trade: a row's gradients of one block are summed, and where a word comes often in it their sum overshoots
(without a bound T = 256 diverged on 4.6M words). So a row whose pairs in a block, times the learning rate, are more than
LIMIT gets their mean scaled to LIMIT instead of their sum. Read next: `vector_training.py`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

BLOCK, GROUP = 64, 16  # T; B, and K negatives a group
LIMIT = 2.0  # learning rate x pairs of one row in one block; the curvature of a pair's loss is at most |vector|^2 / 4


class Tables(NamedTuple):
    """The two tables, donated to each call: inputs float32 [V, D] ([V + buckets, D] for fastText), outputs float32 [V, D]."""

    inputs: jax.Array
    outputs: jax.Array


class Block(NamedTuple):
    """What one scan step gets; leading axis n in the arguments of the public functions.

    start: where its ids begin in the stream. left, right int8 [T]. negatives int32 [T]: K = B for each group. rate: scalar.
    crowd float32 [T + 2w]: how often each word of the stream comes in this block.
    rows, owners int32 [R]: fastText's input rows and the centre that each belongs to (T: none); else of size 0.
    """

    start: jax.Array
    left: jax.Array
    right: jax.Array
    negatives: jax.Array
    rate: jax.Array
    crowd: jax.Array
    rows: jax.Array
    owners: jax.Array


def _around(ids: jax.Array, block: Block, window: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Centres [T]; the ids around each group [T / B, B + 2w]; which of them are context to which centre [T / B, B, B + 2w]."""
    stream = lax.dynamic_slice(ids, (block.start,), (BLOCK + 2 * window,))
    offset = jnp.arange(GROUP + 2 * window)[None] - window - jnp.arange(GROUP)[:, None]
    left, right = (side.reshape(-1, GROUP, 1) for side in (block.left, block.right))
    mask = (offset >= -left) & (offset <= right) & (offset != 0)
    return stream[window : window + BLOCK], stream[_groups(window)], mask


def _groups(window: int) -> jax.Array:
    """The places of each group and its surroundings in a block's stream, [T / B, B + 2w]."""
    return jnp.arange(0, BLOCK, GROUP)[:, None] + jnp.arange(GROUP + 2 * window)


@functools.partial(jax.jit, donate_argnums=0, static_argnames=("window", "negative"))
def skipgram(tables: Tables, noise: jax.Array, ids: jax.Array, blocks: Block, *, window: int, negative: int) -> Tables:
    """Skip-gram with negative sampling (arXiv:1310.4546, eq. 4); with `rows`, fastText's (arXiv:1607.04606, section 3.2).

    Args:
      noise: float32 [V], how often each word is expected among a block's words and their negatives.
      ids: int32 [n * T + 2 * window].

    Returns:
      Both tables after all blocks.
    """

    def step(tables: Tables, block: Block) -> tuple[Tables, None]:
        inputs, outputs = tables
        centres, around, mask = _around(ids, block, window)
        hidden = _hidden(inputs, centres, block).reshape(-1, GROUP, inputs.shape[1])
        places = jnp.concatenate([around, block.negatives.reshape(-1, GROUP)], 1)
        rows = outputs[places]
        scores = jnp.einsum("gbd,gsd->gbs", hidden, rows)
        split, pairs = around.shape[1], mask.sum(-1, keepdims=True)
        right = jnp.where(mask, jax.nn.sigmoid(-scores[..., :split]), 0)
        wrong = -jax.nn.sigmoid(scores[..., split:]) * pairs * (negative / GROUP)
        pull = jnp.concatenate([right, wrong], -1) * block.rate
        change = jnp.einsum("gbs,gsd->gbd", pull, rows).reshape(BLOCK, -1)
        change = change * _bound(block.crowd[window : window + BLOCK] * (negative + 1) * (window + 1), block.rate)
        outputs = _added(outputs, places, jnp.einsum("gbs,gbd->gsd", pull, hidden), _bound(noise[places] * (window + 1), block.rate))
        return Tables(_changed(inputs, centres, block, change), outputs), None

    return lax.scan(step, tables, blocks)[0]


def _bound(pairs: jax.Array, rate: jax.Array) -> jax.Array:
    """What the gradients of rows with so many pairs are scaled by, [..., 1]."""
    return jnp.minimum(1, LIMIT / (rate * pairs + 1e-9))[..., None]


def _added(table: jax.Array, rows: jax.Array, changes: jax.Array, bound: jax.Array) -> jax.Array:
    return table.at[rows.reshape(-1)].add((changes * bound).reshape(-1, table.shape[1]))


def _hidden(inputs: jax.Array, centres: jax.Array, block: Block) -> jax.Array:
    """The centres' vectors [T, D]: their rows, or the mean of their words' and n-grams' rows."""
    if not block.rows.size:
        return inputs[centres]
    sums = jax.ops.segment_sum(inputs[block.rows], block.owners, BLOCK + 1, indices_are_sorted=True)[:BLOCK]
    counts = jnp.zeros(BLOCK + 1).at[block.owners].add(1.0)[:BLOCK]
    return sums / jnp.maximum(counts, 1)[:, None]


def _changed(inputs: jax.Array, centres: jax.Array, block: Block, change: jax.Array) -> jax.Array:
    """As in fastText's code, each row of a mean gets the whole change, not its share."""
    if not block.rows.size:
        return inputs.at[centres].add(change)
    return inputs.at[block.rows].add(jnp.pad(change, ((0, 1), (0, 0)))[block.owners])


@functools.partial(jax.jit, donate_argnums=0, static_argnames=("window", "negative"))
def cbow(tables: Tables, noise: jax.Array, ids: jax.Array, blocks: Block, *, window: int, negative: int) -> Tables:
    """Continuous bag of words (arXiv:1301.3781, section 3.1): the mean of the context words tells the centre.

    Arguments and result as `skipgram`'s. As in word2vec's tool, each context word gets the whole change of the mean.
    """

    def step(tables: Tables, block: Block) -> tuple[Tables, None]:
        inputs, outputs = tables
        centres, around, mask = _around(ids, block, window)
        some = mask.any(-1, keepdims=True)
        mix = mask.astype(inputs.dtype)
        hidden = jnp.einsum("gbs,gsd->gbd", mix / jnp.maximum(mix.sum(-1, keepdims=True), 1), inputs[around])
        places = jnp.concatenate([centres.reshape(-1, GROUP), block.negatives.reshape(-1, GROUP)], 1)
        rows = outputs[places]
        scores = jnp.einsum("gbd,gsd->gbs", hidden, rows)
        right = jnp.eye(GROUP) * jax.nn.sigmoid(-scores[..., :GROUP])
        wrong = -jax.nn.sigmoid(scores[..., GROUP:]) * (negative / GROUP)
        pull = jnp.where(some, jnp.concatenate([right, wrong], -1), 0) * block.rate
        change = jnp.einsum("gbs,gbd->gsd", mix, jnp.einsum("gbs,gsd->gbd", pull, rows))
        outputs = _added(outputs, places, jnp.einsum("gbs,gbd->gsd", pull, hidden), _bound(noise[places], block.rate))
        crowd = block.crowd[_groups(window)] * (negative + 1) * (window + 1)
        return Tables(_added(inputs, around, change, _bound(crowd, block.rate)), outputs), None

    return lax.scan(step, tables, blocks)[0]
