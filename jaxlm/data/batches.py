"""batch(step): a pure function of (seed, step, global batch size), with one integer of state and no history.

Global row g = step * batch_size + b. In a mixture, blocks of 1,024 rows hold each source's quota in an order of their own,
and each source counts its own epochs. Hosts ask for their rows; all agree without a word. Read next: `loader.py`.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from jaxlm import config
from jaxlm.data import rows
from jaxlm.data.permutation import make_key, permute
from jaxlm.data.store import Store
from jaxlm.errors import ConfigError, DataError

BLOCK = 1024  # rows in which a mixture's shares are kept exactly
MIXTURE = 3  # what a key is for, beside those of rows.py


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a run, or of an evaluation."""

    stores: tuple[Store, ...]
    plans: tuple[rows.Windows | rows.Packed | rows.InOrder, ...]
    quotas: tuple[int, ...]  # rows of each source in a block
    batch_size: int  # rows over all hosts
    seed: int
    segmented: bool  # rows hold several documents that do not see each other
    count: int | None = None  # batches of an evaluation; None: without end
    eos_id: int | None = None

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows [start, stop) of the global batch of a step.

        Returns "tokens", "targets" int32 [b, T] and "weights" float32 [b, T]; packed documents have "segments"
        int32 [b, T] too (0 = padding). Raises DataError for an id outside the vocabulary.
        """
        source, epoch, row = self._locate(step, start, stop)
        made: dict[str, np.ndarray] = {}
        for k in np.unique(source):
            mine = source == k
            for name, values in self._gather(k, step, epoch[mine], row[mine]).items():
                made.setdefault(name, np.zeros((stop - start, values.shape[1]), values.dtype))[mine] = values
        if not self.segmented:
            del made["segments"]
        return made

    def _gather(self, k: int, step: int, epochs: np.ndarray, numbers: np.ndarray) -> dict[str, np.ndarray]:
        store, plan = self.stores[k], self.plans[k]
        inside = numbers < plan.rows  # an evaluation's last batch is filled with rows that do not count
        places = plan.gather(epochs, np.where(inside, numbers, 0))
        segments = places.segments * inside[:, None]
        real = segments > 0
        tokens = _take(store, places.inputs, self.eos_id, step) * real
        targets = _take(store, places.targets, self.eos_id, step) * real
        return {"tokens": tokens, "targets": targets, "weights": real.astype(np.float32), "segments": segments}

    def _locate(self, step: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Source, epoch and row within the epoch of each global row."""
        index = step * self.batch_size + np.arange(start, stop, dtype=np.int64)
        if self.count is not None:
            return np.zeros_like(index), np.zeros_like(index), index
        source, drawn = np.empty_like(index), np.empty_like(index)
        for block in np.unique(index // BLOCK):
            mine = index // BLOCK == block
            owners, ranks = _block(self.quotas, self.seed, int(block))
            source[mine] = owners[index[mine] % BLOCK]
            drawn[mine] = ranks[index[mine] % BLOCK] + block * np.array(self.quotas)[source[mine]]
        sizes = np.array([plan.rows for plan in self.plans])[source]
        return source, drawn // sizes, drawn % sizes

    def epoch(self, step: int) -> float:
        """How many times the batches before `step` have gone through the stores, all together."""
        return step * self.batch_size / sum(plan.rows for plan in self.plans)

    def example_ids(self, step: int, start: int = 0, stop: int | None = None) -> list[str]:
        """What the rows of a batch are, for messages: store, epoch, row and documents of each."""
        stop = self.batch_size if stop is None else stop
        return [self._name(*map(int, where)) for where in zip(*self._locate(step, start, stop), strict=True)]

    def _name(self, k: int, epoch: int, row: int) -> str:
        store, plan = self.stores[k], self.plans[k]
        if row >= plan.rows:
            return f"store {k} padding"
        places = plan.gather(np.array([epoch]), np.array([row]))
        used = places.targets[places.segments > 0]
        found = sorted({store.document_at(position) for position in used})
        return f"store {k} epoch {epoch} row {row} documents {', '.join(map(str, found))}"


@functools.lru_cache(maxsize=16)
def _block(quotas: tuple[int, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The source of each row of a block, and how many rows of that source the block has before it."""
    slots = permute(np.arange(BLOCK), BLOCK, make_key(seed, MIXTURE, block))
    owners = np.searchsorted(np.cumsum(quotas), slots, "right")
    ranks = np.empty(BLOCK, np.int64)
    for k, quota in enumerate(quotas):
        ranks[owners == k] = np.arange(quota)
    return owners, ranks


def _take(store: Store, positions: np.ndarray, eos_id: int | None, step: int) -> np.ndarray:
    """Tokens at positions, checked: on the device XLA would clamp a bad id in silence."""
    virtual = positions == rows.EOS
    tokens = store.take(np.where(virtual, 0, positions))
    bad = (tokens < 0) | (tokens >= store.vocab_size)
    if bad.any():
        document = store.document_at(int(positions[bad][0]))
        raise DataError(
            f"step {step}: the id {tokens[bad][0]} in document {document} of the store {store.directory} is outside the "
            f"vocabulary of {store.vocab_size}: delete {store.directory.parent}, it is prepared again"
        )
    return np.where(virtual, eos_id or 0, tokens).astype(np.int32)


def make_batches(stores: Sequence[Store], weights: Sequence[float], data: config.Data, batch_size: int, seed: int) -> Batches:
    """The training batches of one store or of a mixture.

    Args:
      weights: the share of the rows that each store gives, in any unit.

    Raises ConfigError for weights or a packing that cannot be, DataError for stores too short or of unlike tokenizers.
    """
    if len({store.tokenizer for store in stores}) > 1:
        named = ", ".join(str(store.directory) for store in stores)
        raise DataError(f"the stores {named} were made by different tokenizers: prepare them with one")
    make = PACKINGS.get(data.packing)
    if make is None:
        raise ConfigError(f"unknown data.packing={data.packing}: choose {' or '.join(PACKINGS)}")
    plans = tuple(make(store.lengths, seed + i, data.sequence_length) for i, store in enumerate(stores))
    return Batches(tuple(stores), plans, quotas(weights), batch_size, seed, data.packing == "documents")


PACKINGS = {"windows": rows.windows, "documents": rows.packed}


def quotas(weights: Sequence[float]) -> tuple[int, ...]:
    """Rows of each source in a block, by the largest remainder (Hamilton's method); they sum to BLOCK."""
    shares = np.asarray(weights, np.float64)
    if not (np.isfinite(shares).all() and (shares > 0).all()):
        raise ConfigError(f"the weights {list(weights)} of the mixture data.source must all be positive numbers")
    exact = shares / shares.sum() * BLOCK
    found = np.floor(exact).astype(int)
    found[np.argsort(found - exact, kind="stable")[: BLOCK - found.sum()]] += 1
    if (found == 0).any():
        raise ConfigError(f"the weights {list(weights)} of data.source leave one out: give each at least 1/{BLOCK} of their sum")
    return tuple(int(n) for n in found)


def evaluation_batches(store: Store, data: config.Data, batch_size: int, eos_id: int | None) -> Batches:
    """`count` batches in which every token of a store is predicted exactly once, in order; the last is filled up.

    Windows: the first token is predicted from the end-of-document token, or not at all where `eos_id` is None. Packed
    documents: a document's first token has nothing before it and is not predicted. Raises DataError for an empty store.
    """
    if data.packing == "documents":
        plan = rows.packed(store.lengths, None, data.sequence_length)
    else:
        plan = rows.InOrder(store.tokens, 0 if eos_id is not None else 1, data.sequence_length)
    if plan.rows < 1:
        raise DataError(f"the store {store.directory} holds nothing to predict: hold out more text with data.validation=0.1")
    count = -(-plan.rows // batch_size)
    return Batches((store,), (plan,), (BLOCK,), batch_size, 0, data.packing == "documents", count, eos_id)
