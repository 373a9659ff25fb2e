"""Pass one of duplicate removal: the signatures of one shard's documents, on disk, the large part memory-mapped.

A file `NAME.npz` of digests, band keys and paragraphs beside `NAME.shingles.npy`, 8 bytes for each distinct shingle (about
the size of the text), which is mapped and not read. Read next: `duplicates.py`.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.atomic import new_file
from jaxlm.errors import ConfigError, DataError
from jaxlm.text.chunks import chunks
from jaxlm.text.cleaning.minhash import band_keys, bands_and_rows, minima
from jaxlm.text.cleaning.shingles import CHUNK, shingles
from jaxlm.text.unicode import well_formed

FORMAT = 2
GAP = re.compile(r"(\r?\n(?:[ \t]*\r?\n)+)")  # between paragraphs
PLAIN = ("ids", "digests", "offsets", "paragraphs")
NOTHING = np.zeros(0, np.uint64)


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """What counts as a copy of what came before."""

    exact: bool = False  # documents of equal text
    threshold: float | None = None  # documents whose sets of shingles have at least this Jaccard similarity
    ngram: int = 5  # words a shingle
    permutations: int = 128  # MinHash values a document at most
    paragraph: int | None = None  # paragraphs of equal text of at least so many characters

    def __post_init__(self) -> None:
        if self.threshold is not None:
            if not 0 < self.threshold <= 1:
                raise ConfigError(f"near_duplicates: threshold={self.threshold} is no similarity: set it above 0 and to at most 1")
            if self.ngram < 1 or self.permutations < 1:
                raise ConfigError(f"near_duplicates: ngram={self.ngram}, permutations={self.permutations}: set both to at least 1")
            bands_and_rows(self.threshold, self.permutations)
        if self.paragraph is not None and self.paragraph < 1:
            raise ConfigError(f"paragraph_duplicates: minimum={self.paragraph} characters: set it to at least 1")

    @property
    def bands(self) -> int:
        """Bands a signature has; 0 without near duplicates."""
        return 0 if self.threshold is None else bands_and_rows(self.threshold, self.permutations)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Signatures:
    """The signatures of the documents of one shard. Arrays that the options do not ask for are empty."""

    duplicates: Duplicates
    ids: np.ndarray  # int64 [documents], rising
    digests: np.ndarray  # uint64 [documents, 2]: BLAKE2b of the text
    shingles: Callable[[], np.ndarray]  # -> uint64 [shingles], rising and distinct within a document; mapped from disk
    offsets: np.ndarray  # int64 [documents + 1] into the shingles
    band: Callable[[int], np.ndarray]  # number of a band -> uint64 [documents]
    paragraphs: int
    hashed: Callable[[], np.ndarray]  # -> uint64 [paragraphs, 2]: BLAKE2b of each long enough one
    places: Callable[[], np.ndarray]  # -> int64 [paragraphs, 2]: (id of its document, its number there)

    def save(self, path: str | Path) -> None:
        """Write `path` (NAME.npz) and NAME.shingles.npy beside it, each whole or not at all, the .npz last: where it is, both are."""
        path = Path(path)
        with new_file(_mapped(path)) as file:
            np.save(file, self.shingles())
        plain = {name: getattr(self, name) for name in PLAIN}
        bands = {f"band{number}": self.band(number) for number in range(self.duplicates.bands)}
        header = np.frombuffer(json.dumps(_header(self.duplicates), sort_keys=True).encode(), np.uint8)
        with new_file(path) as file:
            np.savez(file, header=header, hashed=self.hashed(), places=self.places(), **plain, **bands)


def _header(duplicates: Duplicates) -> dict[str, Any]:
    return {"format": FORMAT, **dataclasses.asdict(duplicates)}


def _mapped(path: Path) -> Path:
    return path.with_suffix(".shingles.npy")


def load_signatures(path: str | Path) -> Signatures:
    """The inverse of `Signatures.save`; shingles are mapped, a band is read when it is asked for.

    Raises DataError for a file that is missing, damaged or of another format.
    """
    path = Path(path)
    with readable(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        if header.pop("format") != FORMAT:
            raise ValueError("another format")
        plain = {name: arrays[name] for name in PLAIN} | {"paragraphs": int(arrays["paragraphs"])}
    later = functools.partial(functools.partial, _read, path)
    shingles = functools.partial(_map_shingles, path, int(plain["offsets"][-1]))
    shingles()
    bands = functools.partial(_read_band, path)
    return Signatures(Duplicates(**header), shingles=shingles, band=bands, hashed=later("hashed"), places=later("places"), **plain)


def _map_shingles(path: Path, count: int) -> np.ndarray:
    if not count:
        return NOTHING  # no operating system maps an empty array
    with readable(_mapped(path)):
        found = np.asarray(np.load(_mapped(path), mmap_mode="r", allow_pickle=False))
        if found.shape != (count,) or found.dtype != np.uint64:
            raise ValueError(f"{found.dtype} {found.shape}, not uint64 ({count},)")
        return found


def _read(path: Path, name: str) -> np.ndarray:
    with readable(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays[name]


def _read_band(path: Path, number: int) -> np.ndarray:
    return _read(path, f"band{number}")


class readable:
    """Around the reading of a file of arrays: whatever is wrong with it (NumPy raises a dozen kinds) becomes one DataError."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise DataError(f"{self.path} cannot be read ({type(error).__name__}: {error}): delete it, it is made again") from error


def digest(text: str) -> bytes:
    """16 bytes that tell a text from every other."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def split_paragraphs(text: str) -> list[str]:
    r"""What stands between empty lines, which may hold blanks; every second piece is such a gap, and "".join is the inverse."""
    return GAP.split(text)


def sign(ids: np.ndarray, texts: Sequence[str], duplicates: Duplicates) -> Signatures:
    """The signatures of some documents.

    Args:
      ids: int64 [documents]: numbers of the documents in the whole corpus, rising.
      texts: the documents after the steps that need no second pass.
    """
    ids = np.asarray(ids, np.int64)
    if len(ids) != len(texts) or np.any(ids[1:] <= ids[:-1]):
        raise ValueError("ids must rise and be as many as the texts")
    texts = [well_formed(text) for text in texts]
    hashes, offsets, bands = _near(texts, duplicates)
    hashed, places = _paragraphs(ids, texts, duplicates.paragraph)
    digests = _pairs([digest(text) for text in texts] if duplicates.exact else [])
    later = [functools.partial(np.asarray, array) for array in (hashes, hashed, places)]
    return Signatures(duplicates, ids, digests, later[0], offsets, bands.__getitem__, len(places), *later[1:])


def _pairs(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64).reshape(-1, 2)


def _near(texts: Sequence[str], duplicates: Duplicates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(shingles, offsets, band keys [bands, documents])."""
    if duplicates.threshold is None:
        return NOTHING, np.zeros(len(texts) + 1, np.int64), np.zeros((0, len(texts)), np.uint64)
    bands, rows = bands_and_rows(duplicates.threshold, duplicates.permutations)
    hashes, keys, sizes = [NOTHING], [np.zeros((bands, 0), np.uint64)], [np.zeros(1, np.int64)]
    for some in chunks(texts, CHUNK):
        found, offsets = shingles(some, duplicates.ngram)
        hashes.append(found)
        sizes.append(np.diff(offsets))
        keys.append(band_keys(minima(found, offsets, bands * rows), bands, rows))
    return np.concatenate(hashes), np.cumsum(np.concatenate(sizes)), np.concatenate(keys, axis=1)


def _paragraphs(ids: np.ndarray, texts: Sequence[str], least: int | None) -> tuple[np.ndarray, np.ndarray]:
    if least is None:
        return NOTHING.reshape(0, 2), np.zeros((0, 2), np.int64)
    digests, places = [], []
    for document, text in zip(ids.tolist(), texts, strict=True):
        for number, paragraph in enumerate(split_paragraphs(text)[::2]):
            if len(stripped := paragraph.strip()) >= least:
                digests.append(digest(stripped))
                places.append((document, number))
    return _pairs(digests), np.array(places, np.int64).reshape(-1, 2)
