"""Row plans of pairs: which examples stand in which row of S source and T target tokens, and in how few shapes.

Pure functions of the examples' two lengths and an order. Read first: `rows.py`. Read next: `example_batches.py`.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxlm.data import rows
from jaxlm.errors import DataError

MOST = 12  # shapes of a run's batches: each costs a compile
WORTH = 0.01  # of an epoch's tokens: what a shape of its own must save
STEP, ROUND = 2**0.25, 8  # from one length of the grid to the next: so many times, and a multiple of this
KEYS = {"source": "data.sequence_length", "target": "data.target_length"}


@dataclasses.dataclass(frozen=True)
class PairShape:
    """The target side of the rows, and what a batch holds of them."""

    target_length: int | None = None  # tokens of a row; None: as many as on the source side
    batch_tokens: int | None = None  # of a batch, both sides and their padding counted; None: every batch has the same number of rows
    multiple: int = 1  # rows of a batch are a multiple of this, as mesh and micro-batches need it; without batch_tokens just these


class Part(NamedTuple):
    """Rows of one shape."""

    length: int
    target_length: int
    rows: tuple[tuple[int, ...], ...]  # the examples of each


def rows_per_batch(tokens: Any, shape: PairShape) -> Any:
    """Rows of a batch whose rows have so many tokens on both sides together: a number, or an array of them.

    >>> int(rows_per_batch(96, PairShape(batch_tokens=1000, multiple=4)))
    8
    """
    if shape.batch_tokens is None:
        return shape.multiple
    return np.maximum(1, shape.batch_tokens // tokens // shape.multiple) * shape.multiple


def plan_pairs(packing: str, lengths: np.ndarray, order: np.ndarray, length: int, shape: PairShape) -> list[Part]:
    """The parts of a packing, one of PLANS.

    Args:
      lengths: int64 [n, 2]: source and target tokens of every example; a target may have none.
      order: int64 [n]: the examples as they are taken.
      length: source tokens of a row at most.

    Raises DataError for an example that is longer than a row.
    """
    room = np.array([length, shape.target_length or length])
    for side, (name, key) in enumerate(KEYS.items()):
        if lengths[:, side].max() > room[side]:
            raise DataError(f"an example has {lengths[:, side].max()} {name} tokens and a row holds {key}={room[side]}: raise it")
    return PLANS[packing](lengths, order, room, shape)


def _padded(lengths: np.ndarray, order: np.ndarray, room: np.ndarray, shape: PairShape) -> list[Part]:
    return [_part(lengths, order, room)]


def _packed(lengths: np.ndarray, order: np.ndarray, room: np.ndarray, shape: PairShape) -> list[Part]:
    parts = (order[at : at + rows.WINDOW] for at in range(0, len(order), rows.WINDOW))
    packs = [part[row] for part in parts for row in first_fit(lengths[part], room)]
    return [Part(*map(int, room), tuple(tuple(map(int, row)) for row in packs))]


def _bucketed(lengths: np.ndarray, order: np.ndarray, room: np.ndarray, shape: PairShape) -> list[Part]:
    cells = np.stack([_rounded_up(lengths[order, side], room[side]) for side in (0, 1)], 1)
    shapes, owner, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    group = merge(shapes, counts, shape)[owner.ravel()]
    return [_part(lengths, order[group == k], room) for k in range(group.max() + 1)]


def _part(lengths: np.ndarray, order: np.ndarray, room: np.ndarray) -> Part:
    """One example a row, and rows no longer than the longest needs."""
    longest = np.maximum(1, lengths[order].max(0))
    size = np.minimum(room, -(-longest // ROUND) * ROUND)
    return Part(*map(int, size), tuple((int(i),) for i in order))


PLANS: dict[str, Any] = {"packed": _packed, "padded": _padded, "buckets": _bucketed}


def first_fit(lengths: np.ndarray, room: np.ndarray) -> list[list[int]]:
    """First-fit decreasing in two lengths at once (Panigrahy et al. 2011): the examples in each row.

    Longest first, by the larger of the two shares that an example takes of a row; each into the first row where it fits. Best fit
    makes no fewer rows of captions (3,789 of 29,000 pairs either way).

    Args:
      lengths: int64 [n, 2], at most `room`.
      room: int64 [2].
    """
    free = np.empty((2, len(lengths)), np.int64)
    found: list[list[int]] = []
    for i in np.argsort(-(lengths / room).max(1), kind="stable"):
        count = len(found)
        fits = (free[0, :count] >= lengths[i, 0]) & (free[1, :count] >= lengths[i, 1])
        row = int(fits.argmax()) if fits.any() else count
        if row == count:
            free[:, row] = room
            found.append([])
        free[:, row] -= lengths[i]
        found[row].append(int(i))
    return found


def merge(shapes: np.ndarray, counts: np.ndarray, shape: PairShape) -> np.ndarray:
    """Which shapes become one: int64 [cells], numbers from 0 of at most MOST groups.

    Two at a time, those whose union costs the fewest tokens an epoch (padding, and the empty rows of each last batch), until
    there are few enough and every further union would cost more than WORTH of the epoch.

    Args:
      shapes: int64 [cells, 2], source and target tokens.
      counts: int64 [cells]: rows of each.
    """
    owner = np.arange(len(shapes))
    while len(shapes) > 1:
        union = np.maximum(shapes[:, None], shapes)
        alone = _cost(shapes, counts, shape)
        extra = _cost(union, counts[:, None] + counts, shape) - alone[:, None] - alone
        extra[np.tril_indices(len(shapes))] = np.iinfo(np.int64).max
        i, j = np.unravel_index(extra.argmin(), extra.shape)
        if len(shapes) <= MOST and extra[i, j] > WORTH * alone.sum():
            break
        shapes[i], counts[i] = union[i, j], counts[i] + counts[j]
        shapes, counts = np.delete(shapes, j, 0), np.delete(counts, j)
        owner = np.where(owner == j, i, owner - (owner > j))
    return owner


def _cost(shapes: np.ndarray, counts: np.ndarray, shape: PairShape) -> np.ndarray:
    """Tokens that an epoch computes for so many rows of these shapes."""
    tokens = shapes.sum(-1)
    size = rows_per_batch(tokens, shape)
    return -(-counts // size) * size * tokens


def _rounded_up(lengths: np.ndarray, room: int) -> np.ndarray:
    """Every length as the next one of a grid."""
    edges = [ROUND]
    while edges[-1] < room:
        edges.append(-(-int(max(edges[-1] + 1, edges[-1] * STEP)) // ROUND) * ROUND)
    return np.minimum(np.array(edges)[np.searchsorted(edges, lengths)], room)
