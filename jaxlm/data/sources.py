"""A source is a word in the configuration; here it becomes an iterator of documents in a fixed order.

"stdlib" (`stdlib.py`), "tfds:NAME" or "tfds:/DIRECTORY", either with "@SPLIT" (`tfds.py`), a path or a glob (`files.py`). A
mixture is several sources, each prepared on its own; `batches.py` mixes their rows. Read next: `prepare.py`; for labelled
records, `records.py`.
"""

import dataclasses
import hashlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from jaxlm.data import files, parallel, stdlib, tfds
from jaxlm.text.unicode import well_formed

UNIT_BYTES = 256 << 20  # of files
Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Unit:
    """A share of a source that is read from its beginning by one reader."""

    number: int
    source: str
    files: tuple[str, ...] = ()  # none: the whole source


def units(source: str, data_dir: str | None = None) -> list[Unit]:
    """The units of a source: files side by side until 256 MiB are reached; of TFDS and the standard library the whole."""
    if source == "stdlib" or source.startswith("tfds:"):
        return [Unit(0, source)]
    return [Unit(number, source, names) for number, names in enumerate(_groups(files.list_files(source)))]


def _groups(paths: Iterable[Path]) -> Iterator[tuple[str, ...]]:
    names, size = [], 0
    for path in paths:
        names.append(str(path))
        size += path.stat().st_size
        if size >= UNIT_BYTES:
            yield tuple(names)
            names, size = [], 0
    if names:
        yield tuple(names)


def unit_documents(
    unit: Unit, column: str = "text", split: str = "train", data_dir: str | None = None, report: Report | None = None
) -> Iterator[str]:
    """The texts of a unit, always in the same order, without empty ones; lone surrogates become U+FFFD.

    Args:
      column: the column of a table or of TFDS that holds the text.
      split: TFDS only, where the source names none.
      data_dir: where prepared TFDS data sets lie; None: TFDS's own place.
      report: told, in one line, what was left out.

    Raises DataError for a source that is not there, damaged, or without the column.
    """
    return (well_formed(text) for text in _raw(unit, column, split, data_dir, report) if text)


def _raw(unit: Unit, column: str, split: str, data_dir: str | None, report: Report | None) -> Iterator[str]:
    if unit.source == "stdlib":
        return stdlib.stdlib_documents(report)
    if unit.source.startswith("tfds:"):
        name, split = tfds.name_and_split(unit.source, split)
        return tfds.tfds_documents(tfds.tfds_directory(name, data_dir), column, split)
    return files.file_documents(map(Path, unit.files), column)


def documents(
    source: str, column: str = "text", split: str = "train", data_dir: str | None = None, report: Report | None = None
) -> Iterator[str]:
    """The texts of a whole source: those of its units, as `unit_documents` yields them."""
    parts = [unit_documents(unit, column, split, data_dir, report) for unit in units(source, data_dir)]
    return itertools.chain.from_iterable(parts)


def source_files(source: str, data_dir: str | None = None) -> list[Path]:
    """The files that a source is read from, in a fixed order. Raises DataError where there are none."""
    if source == "stdlib":
        return stdlib.stdlib_files()
    if source.startswith("tfds:"):
        directory = tfds.tfds_directory(tfds.name_and_split(source, "")[0], data_dir)
        return sorted(path for path in directory.iterdir() if path.is_file())
    return [path for side in parallel.list_sides(source) for path in side]


def fingerprint(source: str, data_dir: str | None = None) -> str:
    """A digest of the names, sizes and times of a source's files: it changes when one of them does."""
    digest = hashlib.sha256(sys.version.encode() if source == "stdlib" else b"")
    for path in source_files(source, data_dir):
        state = path.stat()
        digest.update(f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
