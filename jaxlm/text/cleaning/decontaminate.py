"""Keeps evaluation texts out of training: documents that share a run of n words with them. Read first: `shingles.py`."""

import dataclasses
import functools
import glob
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.errors import ConfigError, DataError
from jaxlm.text.chunks import chunks
from jaxlm.text.cleaning.shingles import CHUNK, runs, words
from jaxlm.text.unicode import well_formed

SIEVE = 22  # bits of a hash that a first, quick look goes by


@dataclasses.dataclass(frozen=True, eq=False)
class Grams:
    """Every run of n words of some evaluation texts."""

    n: int
    hashes: np.ndarray  # uint64, rising, distinct

    @property
    def digest(self) -> str:
        """Of the runs."""
        return hashlib.sha256(str(self.n).encode() + self.hashes.astype("<u8").tobytes()).hexdigest()

    @functools.cached_property
    def sieve(self) -> np.ndarray:
        """bool [2**22]: whether a hash with these low bits is there."""
        table = np.zeros(1 << SIEVE, bool)
        table[self.hashes & np.uint64((1 << SIEVE) - 1)] = True
        return table

    def count(self, hashes: np.ndarray) -> int:
        """How many different ones of some hashes are among the runs."""
        likely = np.unique(hashes[self.sieve[hashes & np.uint64((1 << SIEVE) - 1)]])
        at = np.minimum(np.searchsorted(self.hashes, likely), len(self.hashes) - 1)
        return int(np.count_nonzero(self.hashes[at] == likely)) if len(self.hashes) else 0


def load_grams(path: str, n: int = 13) -> Grams:
    """The runs of n words of the files that a path or glob names: .txt (a text a file), .jsonl (each string of a row is a text).

    A text with fewer than n words has none: it cannot be found again. Raises ConfigError where no file matches or n < 1,
    DataError for one that cannot be read.
    """
    files = sorted(glob.glob(str(Path(path).expanduser()), recursive=True))
    if not files or n < 1:
        mend = "n must be at least 1" if files else "no file matches; name .txt or .jsonl"
        raise ConfigError(f"decontaminate: path={path!r}, n={n}: {mend}")
    texts = [well_formed(text) for name in files for text in _texts(Path(name))]
    found = [np.zeros(0, np.uint64), *(full_runs(some, n) for some in chunks(texts, CHUNK))]
    return Grams(n, np.unique(np.concatenate(found)))


def full_runs(texts: list[str], n: int) -> np.ndarray:
    """uint64: the runs of exactly n words of texts."""
    found = words(texts)
    hashes, at = runs(found, n)
    whole = np.zeros(len(found.hashes), bool)
    whole[: max(0, len(whole) - n + 1)] = found.texts[n - 1 :] == found.texts[: max(0, len(whole) - n + 1)]
    return hashes[whole[at]]


def _texts(path: Path) -> Iterator[str]:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"decontaminate: {path} cannot be read ({error}): give UTF-8 text") from error
    if path.suffix != ".jsonl":
        yield content
        return
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                yield from _strings(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(f"decontaminate: {path}, line {number} is no JSON ({error}): mend or delete it") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def decontaminate(text: str, path: str | Grams, n: int = 13, overlap: int = 1) -> str | None:
    """Drop a text that shares at least `overlap` different runs of n words with the evaluation texts (13 as in Brown et al. 2020, app. C).

    Args:
      path: a path or glob of .txt and .jsonl files, or what `load_grams` made of one (reading them once).
    """
    grams = path if isinstance(path, Grams) else load_grams(path, n)
    return "overlap" if grams.count(full_runs([text], grams.n)) >= overlap else None
