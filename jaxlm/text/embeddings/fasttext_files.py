"""fastText's own .bin, versions 11 and 12: words and buckets of n-grams, so that unseen words get vectors too.

Layout: magic and version; the arguments; the dictionary; the input matrix [words + buckets, D]; the output matrix.
Quantised models (.ftz) and classifiers are refused by name. Read next: `subwords.py`.
"""

import dataclasses
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxlm.errors import DataError
from jaxlm.text.embeddings.subwords import Subwords
from jaxlm.text.vectors import Vectors

MAGIC = struct.pack("<i", 793712314)
ARGUMENTS = ("dim", "ws", "epoch", "min_count", "neg", "word_ngrams", "loss", "model", "bucket", "minn", "maxn", "lr_update_rate")
SUPERVISED = 3
CHUNK = 4096  # words whose n-grams are averaged at once


@dataclasses.dataclass
class _Cursor:
    """Bytes read one after the other, never past the end."""

    path: Path
    data: mmap.mmap
    at: int = 0

    def take(self, form: str) -> tuple:
        size = struct.calcsize("<" + form)
        if self.at + size > len(self.data):
            raise self.damage("it ends there")
        self.at += size
        return struct.unpack_from("<" + form, self.data, self.at - size)

    def word(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + 4096)
        if end < 0:
            raise self.damage("no word ends there")
        start, self.at = self.at, end + 1
        return self.data[start:end].decode("utf-8", "backslashreplace")  # fastText cuts words at bytes, not at characters

    def damage(self, what: str) -> DataError:
        return DataError(f"{self.path} is cut or damaged at byte {self.at} ({what}): copy it again")


def read_fasttext(path: Path, limit: int | None = None) -> Vectors:
    """A word's vector is the mean of its own row and those of its n-grams; memory holds words and buckets.

    Raises DataError where the file is damaged, quantised, a classifier, or of another version.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(path, data, len(MAGIC))
        arguments = _arguments(cursor)
        words = _dictionary(cursor)
        matrix = _matrix(cursor, len(words), arguments)
    if len(set(words)) != len(words):
        raise DataError(f"{path} names a word twice in its dictionary: it is damaged; copy it again")
    rows, buckets = matrix[: len(words)], matrix[len(words) :]
    subwords = Subwords(buckets, arguments["minn"], arguments["maxn"]) if len(buckets) and arguments["maxn"] else None
    return compose(words[:limit], rows[:limit], subwords)


def compose(words: list[str], rows: np.ndarray, subwords: Subwords | None) -> Vectors:
    """Vectors of words out of their own rows float32 [V, D] and their n-grams' (Bojanowski et al. 2017, the mean of both)."""
    matrix = np.array(rows, np.float32)
    for at in range(0, len(words) if subwords else 0, CHUNK):
        grams = [subwords.rows(word) for word in words[at : at + CHUNK]]
        counts = np.array([len(rows) for rows in grams])
        owners = at + np.repeat(np.arange(len(grams)), counts)
        np.add.at(matrix, owners, subwords.buckets[np.concatenate([np.array(rows, np.int64) for rows in grams])])
        matrix[at : at + CHUNK] /= (counts + 1)[:, None]
    return Vectors(tuple(words), matrix, subwords)


def _arguments(cursor: _Cursor) -> dict[str, int]:
    (version,) = cursor.take("i")
    if version not in (11, 12):
        raise DataError(f"{cursor.path} is of fastText's version {version}, and 11 and 12 can be read: save it by a newer fastText")
    arguments = dict(zip(ARGUMENTS, cursor.take(f"{len(ARGUMENTS)}i"), strict=True))
    cursor.take("d")  # the sampling threshold
    if arguments["model"] == SUPERVISED:
        raise DataError(f"{cursor.path} is a fastText classifier, no word vectors: give a skipgram or cbow model")
    if arguments["dim"] < 1 or arguments["bucket"] < 0 or not 0 <= arguments["minn"] or not 0 <= arguments["maxn"] <= 1000:
        raise cursor.damage("its sizes make no sense")
    return arguments


def _dictionary(cursor: _Cursor) -> list[str]:
    size, count, labels = cursor.take("3i")
    _, pruned = cursor.take("2q")
    if pruned > 0:
        raise DataError(f"{cursor.path} is quantised (.ftz), which is not read: give the .bin it was made from")
    if labels or size != count or not 0 <= 10 * size <= len(cursor.data):
        raise cursor.damage(f"a dictionary of {size} entries, {count} words, {labels} labels")
    words = []
    for _ in range(size):
        words.append(cursor.word())
        cursor.take("qb")  # its count, its kind
    return words


def _matrix(cursor: _Cursor, words: int, arguments: dict[str, int]) -> np.ndarray:
    (quantised,) = cursor.take("b")
    if quantised:
        raise DataError(f"{cursor.path} is quantised (.ftz), which is not read: give the .bin it was made from")
    rows, width = cursor.take("2q")
    wanted = words + (arguments["bucket"] if arguments["maxn"] else 0)
    if width != arguments["dim"] or rows not in (wanted, words + arguments["bucket"]):
        raise cursor.damage(f"a matrix of {rows} x {width} for {words} words, {arguments['bucket']} buckets, width {arguments['dim']}")
    if rows * width * 4 > len(cursor.data) - cursor.at:
        raise cursor.damage(f"a matrix of {rows} x {width} does not fit in what follows")
    matrix = np.frombuffer(cursor.data[cursor.at : cursor.at + rows * width * 4], "<f4").reshape(rows, width)
    if not np.isfinite(matrix).all():
        raise cursor.damage("its vectors are not finite")
    return matrix


def encode_fasttext(vectors: Vectors, counts: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> Iterator[bytes]:
    """The parts of a version 12 skip-gram .bin: inputs float32 [V + buckets, D], rows of words, then of buckets; outputs [V, D]."""
    words, subwords = vectors.words, vectors.subwords
    arguments = (inputs.shape[1], 5, 5, 1, 5, 1, 2, 2, len(subwords.buckets), subwords.shortest, subwords.longest, 100)
    yield MAGIC + struct.pack("<13id3i2q", 12, *arguments, 1e-3, len(words), len(words), 0, int(counts.sum()), -1)
    for word, count in zip(words, counts, strict=True):
        yield word.encode() + b"\0" + struct.pack("<qb", int(count), 0)
    for table in (inputs, outputs):
        yield struct.pack("<b2q", 0, *table.shape)
        yield np.ascontiguousarray(table, "<f4").tobytes()
