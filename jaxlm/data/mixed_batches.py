"""batch(step) of a mixture of labelled examples: every batch is of one source, each source counts its own epochs.

Batches, not rows, are dealt out, so that each source keeps its row plan, its buckets and its prefix. Blocks of 1,024 batches hold
each source's quota in an order of their own, as those of rows do in `batches.py`. Read first: `example_batches.py`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxlm.data.batches import BLOCK, block_order, quotas
from jaxlm.data.example_batches import Bucket, ExampleBatches, Row


@dataclasses.dataclass(frozen=True, eq=False)
class MixedBatches:
    """The batches of a run over several sources; what is asked of `ExampleBatches` in training can be asked of them."""

    parts: tuple[ExampleBatches, ...]
    quotas: tuple[int, ...]  # batches of each source in a block
    seed: int

    @property
    def count(self) -> int:
        """Batches of an epoch of all sources together."""
        return sum(part.count for part in self.parts)

    @property
    def batch_size(self) -> int:
        return self.parts[0].batch_size

    @property
    def eos_id(self) -> None:
        return None

    def locate(self, step: int) -> tuple[int, int]:
        """The source of a batch, and which of that source's batches it is, counted since the run's beginning."""
        block, at = divmod(step, BLOCK)
        owners, ranks = block_order(self.quotas, self.seed, block)
        source = int(owners[at])
        return source, block * self.quotas[source] + int(ranks[at])

    def members(self, step: int) -> tuple[list[Row], Bucket]:
        """Of the batch's source: see `ExampleBatches.members`."""
        source, number = self.locate(step)
        return self.parts[source].members(number)

    def rows_of(self, step: int) -> int:
        """Rows of a batch over all hosts."""
        source, number = self.locate(step)
        return self.parts[source].rows_of(number)

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows [start, stop) of a batch: see `ExampleBatches.rows`."""
        source, number = self.locate(step)
        return self.parts[source].rows(number, start, stop)

    def epoch(self, step: int) -> float:
        """How many times the batches before `step` have gone through the examples, all together."""
        return step / self.count

    def example_ids(self, step: int, start: int = 0, stop: int | None = None) -> list[str]:
        """What the rows of a batch are, for messages."""
        source, number = self.locate(step)
        return [f"source {source} {name}" for name in self.parts[source].example_ids(number, start, stop)]


def mix(parts: Sequence[ExampleBatches], weights: Sequence[float], seed: int) -> MixedBatches:
    """The mixture of several sources' batches.

    Args:
      parts: of one task, with seeds of their own, so that no two of them go through their examples alike.
      weights: the share of the batches that each source gives, in any unit.

    Raises ConfigError for weights that cannot be.
    """
    return MixedBatches(tuple(parts), quotas(weights), seed)
