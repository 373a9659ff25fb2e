"""batch(step): a pure function of (seed, step, global batch size), with one integer of state and no history.

Global row g = step * batch_size + b. In a mixture, blocks of 1,024 rows hold each source's quota in an order of their own,
and each source counts its own epochs. Hosts ask for their rows; all agree without a word. Read next: `loader.py`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm import config
from jaxlm.data import rows
from jaxlm.data.permutation import make_key, permute
from jaxlm.data.store import Store
from jaxlm.errors import ConfigError, DataError
from jaxlm.overrides import choose

BLOCK = 1024  # rows in which a mixture's shares are kept exactly
MIXTURE, NOISE = 3, 4  # what a key is for, beside those of rows.py


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """What a task learns from."""

    name: str = "next"  # "next": the tokens that follow; "own": a row's own tokens; "next-sentence", "sentence-order": pairs of texts
    vocabulary: Any = None  # of pairs: its `cls_id`, `sep_id`, and `special`, bool [V]
    swap: float = 0.5  # the share of pairs that are changed

    @property
    def shift(self) -> int:
        """Where targets stand: so many tokens behind the inputs."""
        return int(self.name == "next")

    @property
    def pairs(self) -> bool:
        """Whether a row is two texts."""
        return self.name in ("next-sentence", "sentence-order")


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a run, or of an evaluation."""

    stores: tuple[Store, ...]
    plans: tuple[rows.Windows | rows.Packed | rows.InOrder | rows.Pairs, ...]
    quotas: tuple[int, ...]  # rows of each source in a block
    batch_size: int  # rows over all hosts
    seed: int
    segmented: bool  # rows hold padding, or several documents that do not see each other
    count: int | None = None  # batches of an evaluation; None: without end
    virtual: tuple[int | None, ...] = (None, None, None)  # ids of the positions rows.EOS, rows.CLS and rows.SEP

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows [start, stop) of the global batch of a step.

        Returns "tokens", "targets" int32 [b, T] and "weights" float32 [b, T]; packed documents have "segments"
        int32 [b, T] too (0 = padding), and pairs "token_types" int32 [b, T] and "labels" int32 [b]. Raises DataError for an id
        outside the vocabulary.
        """
        source, epoch, row = self._locate(step, start, stop)
        made: dict[str, np.ndarray] = {}
        for k in np.unique(source):
            mine = source == k
            for name, values in self._gather(k, step, epoch[mine], row[mine]).items():
                made.setdefault(name, np.zeros((stop - start, *values.shape[1:]), values.dtype))[mine] = values
        if not self.segmented:
            del made["segments"]
        return made

    def _gather(self, k: int, step: int, epochs: np.ndarray, numbers: np.ndarray) -> dict[str, np.ndarray]:
        store, plan = self.stores[k], self.plans[k]
        inside = numbers < plan.rows  # an evaluation's last batch is filled with rows that do not count
        places = plan.gather(epochs, np.where(inside, numbers, 0))
        segments = places.segments * inside[:, None]
        real = segments > 0
        tokens = _take(store, places.inputs, self.virtual, step) * real
        targets = tokens if places.targets is places.inputs else _take(store, places.targets, self.virtual, step) * real
        made = {"tokens": tokens, "targets": targets, "weights": real.astype(np.float32), "segments": segments}
        return made | (places.more or {})

    def draws(self, step: int, start: int, stop: int) -> np.ndarray:
        """64 random bits for each of the rows [start, stop) of a step, for its noise: uint64 [b], by seed and global row alone."""
        first = step * self.batch_size
        return np.array([make_key(self.seed, NOISE, first + b) for b in range(start, stop)], np.uint64)

    def _locate(self, step: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Source, epoch and row within the epoch of each global row."""
        index = step * self.batch_size + np.arange(start, stop, dtype=np.int64)
        if self.count is not None:
            return np.zeros_like(index), np.zeros_like(index), index
        source, drawn = np.empty_like(index), np.empty_like(index)
        for block in np.unique(index // BLOCK):
            mine = index // BLOCK == block
            owners, ranks = block_order(self.quotas, self.seed, int(block))
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
        used = places.targets[(places.segments > 0) & (places.targets >= 0)]
        found = sorted({store.document_at(position) for position in used})
        return f"store {k} epoch {epoch} row {row} documents {', '.join(map(str, found))}"


@functools.lru_cache(maxsize=16)
def block_order(quotas: tuple[int, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The source of each row of a block, and how many rows of that source the block has before it."""
    slots = permute(np.arange(BLOCK), BLOCK, make_key(seed, MIXTURE, block))
    owners = np.searchsorted(np.cumsum(quotas), slots, "right")
    ranks = np.empty(BLOCK, np.int64)
    for k, quota in enumerate(quotas):
        ranks[owners == k] = np.arange(quota)
    return owners, ranks


def _take(store: Store, positions: np.ndarray, ids: tuple[int | None, ...], step: int) -> np.ndarray:
    """Tokens at positions, checked: on the device XLA would clamp a bad id in silence. `ids` are those of the virtual positions."""
    virtual = positions < 0
    tokens = store.take(np.where(virtual, 0, positions))
    bad = (tokens < 0) | (tokens >= store.vocab_size)
    if bad.any():
        document = store.document_at(int(positions[bad][0]))
        raise DataError(
            f"step {step}: the id {tokens[bad][0]} in document {document} of the store {store.directory} is outside the "
            f"vocabulary of {store.vocab_size}: delete {store.directory.parent}, it is prepared again"
        )
    return np.where(virtual, np.array([i or 0 for i in ids])[-1 - np.minimum(positions, -1)], tokens).astype(np.int32)


def make_batches(
    stores: Sequence[Store], weights: Sequence[float], data: config.Data, batch_size: int, seed: int, kind: Kind = Kind()
) -> Batches:
    """The training batches of one store or of a mixture.

    Args:
      weights: the share of the rows that each store gives, in any unit.

    Raises ConfigError for weights or a packing that cannot be, DataError for stores too short or of unlike tokenizers.
    """
    if len({store.tokenizer for store in stores}) > 1:
        named = ", ".join(str(store.directory) for store in stores)
        raise DataError(f"the stores {named} were made by different tokenizers: prepare them with one")
    if kind.pairs:
        plans = tuple(_pairs(store, seed + i, data, kind) for i, store in enumerate(stores))
    else:
        make = PACKINGS[choose("data.packing", data.packing or WINDOWS, PACKINGS)]
        plans = tuple(make(store.lengths, seed + i, data.sequence_length, kind.shift) for i, store in enumerate(stores))
    segmented = kind.pairs or data.packing == "documents"
    return Batches(tuple(stores), plans, quotas(weights), batch_size, seed, segmented, virtual=_virtual(kind))


WINDOWS = "windows"
PACKINGS = {WINDOWS: rows.windows, "documents": rows.packed}


def _pairs(store: Store, seed: int | None, data: config.Data, kind: Kind) -> rows.Pairs:
    if data.packing not in (None, WINDOWS):
        raise ConfigError(f"data.packing={data.packing} does not fit task={kind.name}, whose rows are pairs: leave it out")
    if None in _virtual(kind)[1:]:
        raise ConfigError(f"task={kind.name} needs a tokenizer with [CLS] and [SEP]: give tokenizer.path that of a BERT or an ALBERT")
    change = (kind.swap, kind.name == "next-sentence")
    return rows.pairs(store.lengths, seed, data.sequence_length, edges(store, kind.vocabulary.special), change)


def _virtual(kind: Kind, eos_id: int | None = None) -> tuple[int | None, int | None, int | None]:
    return (eos_id, kind.vocabulary.cls_id, kind.vocabulary.sep_id) if kind.pairs else (eos_id, None, None)


def edges(store: Store, special: np.ndarray) -> tuple[int, int]:
    """How many special tokens, bool [V], every document begins and ends with: the tokenizer's template is one for all."""
    for document, length in enumerate(store.lengths):
        ordinary = np.flatnonzero(~special[store.slice(document, 0, int(length))])
        if len(ordinary):
            return int(ordinary[0]), int(length - 1 - ordinary[-1])
    return 0, 0


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


def evaluation_batches(store: Store, data: config.Data, batch_size: int, eos_id: int | None, kind: Kind = Kind()) -> Batches:
    """`count` batches in which every token of a store is a target exactly once, in order; the last is filled up.

    Windows: the first token is predicted from the end-of-document token, or not at all where `eos_id` is None. Packed
    documents: a document's first token has nothing before it and is not predicted. Neither is so where rows are learnt from their
    own tokens. Raises DataError for an empty store.
    """
    if kind.pairs:
        plan = _pairs(store, None, data, kind)
    elif data.packing == "documents":
        plan = rows.packed(store.lengths, None, data.sequence_length, kind.shift)
    else:
        plan = rows.InOrder(store.tokens, int(kind.shift and eos_id is None), data.sequence_length, kind.shift)
    if plan.rows < 1:
        raise DataError(f"the store {store.directory} holds nothing to predict: hold out more text with data.validation=0.1")
    count = -(-plan.rows // batch_size)
    segmented = kind.name != "next" or data.packing == "documents"  # what reads to the right must not see padding
    return Batches((store,), (plan,), (BLOCK,), batch_size, 0, segmented, count, _virtual(kind, eos_id))
