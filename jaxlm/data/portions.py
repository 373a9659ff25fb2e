"""A source cut into portions: fixed runs of documents, numbered over the whole corpus. A shard is made of one portion.

Read next: `prepare.py`.
"""

import dataclasses
import hashlib
from collections.abc import Iterator

from jaxlm import config
from jaxlm.data import sources
from jaxlm.data.sources import Report, Unit

PORTION_BYTES = 32 << 20  # of text: some 10 million BPE tokens
UNIT_SPAN = 1 << 40  # numbers of documents set aside for each unit


@dataclasses.dataclass(frozen=True)
class Portion:
    """Consecutive documents of one unit."""

    name: str  # "00000-00003": the unit's number and its own
    first: int  # number of its first document: unit * 2**40 + position in the unit
    texts: tuple[str, ...]

    @property
    def digest(self) -> str:
        found = hashlib.blake2b(digest_size=16)
        for text in self.texts:
            found.update(f"{len(text)} {text}".encode())
        return found.hexdigest()


def source_portions(data: config.Data, source: str, report: Report | None = None) -> Iterator[Portion]:
    """The portions of a source, in order."""
    for unit in sources.units(source, data.data_dir):
        yield from unit_portions(unit, data, report)


def unit_portions(unit: Unit, data: config.Data, report: Report | None = None) -> Iterator[Portion]:
    """The portions of a unit, cut by the bytes of the texts alone: what one reader of a cluster yields."""
    texts: list[str] = []
    number = filled = first = 0
    for text in sources.unit_documents(unit, data.column, data.split, data.data_dir, report):
        texts.append(text)
        filled += len(text.encode())
        if filled >= PORTION_BYTES:
            yield _portion(unit, number, first, texts)
            number, first, filled, texts = number + 1, first + len(texts), 0, []
    if texts:
        yield _portion(unit, number, first, texts)


def _portion(unit: Unit, number: int, first: int, texts: list[str]) -> Portion:
    return Portion(f"{unit.number:05d}-{number:05d}", unit.number * UNIT_SPAN + first, tuple(texts))
