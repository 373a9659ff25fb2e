"""The first of two passes: signatures of every portion, then one reduce that lists the duplicates to leave out.

The list depends on the sources and the cleaning alone, is kept in the cache, and its digest enters the store's key. Read
next: `prepare.py`, the second pass.
"""

import contextlib
import functools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxlm import config
from jaxlm.atomic import write_atomically
from jaxlm.data import card as cards
from jaxlm.data import portions, sources
from jaxlm.data.portions import Portion, source_portions
from jaxlm.data.shards import Cleaning, begin_cleaning, cleaner_of, digest_of, drops_of
from jaxlm.data.sources import Report
from jaxlm.data.workers import ordered_map
from jaxlm.errors import DataError
from jaxlm.text.cleaning import duplicates, signatures

SIGNED = ".npz"


def find_cleaning(data: config.Data, source: str, report: Report | None = None, workers: int = 0) -> Cleaning:
    """What is to be done to a source's documents: its list of duplicates is found in the cache, or made now."""
    if cleaner_of(data.clean).duplicates is None:
        return begin_cleaning(data.clean)
    path = drops_path(data, source)
    if not path.is_file():
        sign = functools.partial(sign_portion, begin_cleaning(data.clean), str(_folder(path)))
        signed = ordered_map(sign, source_portions(data, source), workers)
        with first_wins(path):
            reduce_signatures(data, path, _told(signed, report), report)
    shutil.rmtree(_folder(path), ignore_errors=True)
    return begin_cleaning(data.clean, str(path))


def _folder(path: Path) -> Path:
    """Where signatures wait for the list to be made."""
    return path.with_suffix(".partial")


@contextlib.contextmanager
def first_wins(path: Path) -> Iterator[None]:
    """What fails because another process made the same list first, and cleared away its signatures, is no failure."""
    try:
        yield
    except (OSError, DataError):
        if not path.is_file():
            raise


def drops_path(data: config.Data, source: str) -> Path:
    """Where the list of a source's duplicates is kept."""
    files = sources.fingerprint(source, data.data_dir)
    numbering = [portions.PORTION_BYTES, sources.UNIT_BYTES, portions.UNIT_SPAN, signatures.FORMAT]
    name = digest_of("drops", *numbering, source, files, data.column, data.split, cleaner_of(data.clean).fingerprint)
    return Path(data.cache).expanduser() / "drops" / f"{name}.npz"


def drops_digest(cleaning: Cleaning) -> str | None:
    """What the store's key holds of the list."""
    return drops_of(cleaning.drops).digest if cleaning.drops else None


def _told(names: Iterable[str], report: Report | None) -> Iterator[str]:
    for count, name in enumerate(names, 1):
        if report:
            report(f"signed {count} portions for duplicates")
        yield name


def sign_portion(cleaning: Cleaning, folder: str, portion: Portion) -> str:
    """Write the signatures of a portion's cleaned documents, or keep those of an earlier call; returns the file's path."""
    path, note = Path(folder) / f"{portion.name}{SIGNED}", Path(folder) / f"{portion.name}.json"
    digest = portion.digest
    if not (path.exists() and note.is_file() and json.loads(note.read_text()) == digest):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = list(cleaning(portion, cards.empty_card()))
        ids = np.array([number for number, _ in kept], np.int64)
        duplicates.sign(ids, [text for _, text in kept], cleaner_of(cleaning.steps).duplicates).save(path)
        write_atomically(note, json.dumps(digest).encode())
    return str(path)


def reduce_signatures(data: config.Data, path: Path, signed: Iterable[str], report: Report | None = None) -> None:
    """The list of duplicates out of all signatures."""
    names = sorted(signed)
    found = duplicates.find_duplicates([duplicates.load_signatures(Path(name)) for name in names], cleaner_of(data.clean).duplicates)
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save(path)
    if report:
        report(f"{len(found.documents):,} duplicates listed")
