"""Word vectors in and out of files: word2vec's text and binary, GloVe's text, fastText's .vec and .bin, a NumPy array beside its words.

Every size that a file claims is held against the bytes it has before memory is taken for it; a damaged file is one
DataError. Read next: `fasttext_files.py`.
"""

import array
import contextlib
import gzip
import mmap
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxlm.atomic import new_file
from jaxlm.errors import DataError
from jaxlm.text.embeddings import fasttext_files
from jaxlm.text.embeddings.vector_training import Trained
from jaxlm.text.vectors import Vectors

LINE = 1 << 22  # bytes of the longest line of text
WORD = 1 << 12  # bytes of the longest word in a binary file
HEADER = re.compile(rb"(\d{1,12})[ \t](\d{1,7})[ \t]*\r?\n")


def load_vectors(path: str | Path, limit: int | None = None) -> Vectors:
    """Vectors of a file whose kind its first bytes tell; text may be gzipped. `limit`: only so many of its first words.

    X.npy is a [V, D] array with its words beside it: X.parquet or X.txt, or, for NAME_50d_emb.npy, NAME_index.parquet.
    Raises DataError naming the file, the line or byte, and the mend.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{path} is no file: give a file of word vectors")
    with path.open("rb") as stream:
        start = stream.read(LINE)
    if path.suffix == ".npy":
        return _read_array(path, limit)
    if start[:4] == fasttext_files.MAGIC:
        return fasttext_files.read_fasttext(path, limit)
    header = HEADER.match(start)
    if header and _is_binary(start[header.end() :], int(header[2])):
        return _read_binary(path, header, limit)
    return _read_text(path, start[:2] == b"\x1f\x8b", limit)


def _is_binary(body: bytes, width: int) -> bool:
    """Whether what follows the header is a word and raw floats, not a line of numbers."""
    line = body[:-1].lstrip(b"\n").split(b"\n")[0].rstrip()
    try:
        return len([float(field) for field in line.rsplit(b" ", width)[1:]]) != width
    except ValueError:
        return True


def _read_text(path: Path, zipped: bool, limit: int | None) -> Vectors:
    """Lines of a word and its numbers, under a line of sizes (word2vec, .vec) or none (GloVe)."""
    words: dict[str, None] = {}
    numbers = array.array("f")
    with _damage(path), gzip.open(path, "rb") if zipped else path.open("rb") as stream:
        rows, width, lines = _sizes(path, stream)
        number = 0
        for number, line in lines:
            if limit is not None and len(words) >= limit:
                break
            word, values = _parse(line, width, f"{path}:{number}")
            if word not in words:  # of a repeated word the first line counts
                words[word] = None
                numbers.extend(values)
        else:
            if rows is not None and number - 1 != rows:
                raise DataError(f"{path} says {rows} words and has {max(number - 1, 0)}: it is cut or was joined; copy it again")
    matrix = np.frombuffer(numbers, np.float32).reshape(len(words), width)
    return Vectors(tuple(words), _finite(matrix, path))


def _sizes(path: Path, stream: BinaryIO) -> tuple[int | None, int, Iterator[tuple[int, bytes]]]:
    """The number of words where a header tells it, the width, and the numbered lines with vectors."""
    lines = _lines(path, stream)
    first = next(lines, (1, b""))
    if header := HEADER.fullmatch(first[1] + b"\n"):
        rows, width = int(header[1]), int(header[2])
        if not width:
            raise DataError(f"{path}:1 says vectors of width 0: copy the file again")
        return rows, width, lines
    width = len(first[1].split(b" ")) - 1
    if width < 1:
        raise DataError(f"{path}:1 holds no vector: word vectors are lines of a word and its numbers, or word2vec's or fastText's binary")
    return None, width, _after(first, lines)


def _after(first: tuple[int, bytes], lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield first
    yield from lines


def _lines(path: Path, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := stream.readline(LINE):
        number += 1
        if len(line) == LINE:
            raise DataError(f"{path}:{number} is longer than {LINE} bytes: this is no file of word vectors")
        yield number, line.rstrip(b" \t\r\n")


def _parse(line: bytes, width: int, where: str) -> tuple[str, list[float]]:
    """A word and its numbers; the word may hold spaces, as some of GloVe's do."""
    fields = line.rsplit(b" ", width)
    try:
        word, values = fields[0].decode(), [float(field) for field in fields[1:]]
    except ValueError as error:
        raise DataError(f"{where} is no word with {width} numbers ({error}): mend or remove the line") from error
    if len(values) != width or not word:
        raise DataError(f"{where} has {len(line.split(b' ')) - 1} numbers after its word, not {width}: mend or remove the line")
    return word, values


def _read_binary(path: Path, header: re.Match, limit: int | None) -> Vectors:
    """word2vec's binary: the sizes, then for each word its bytes, a space and D float32."""
    rows, width, size = int(header[1]), int(header[2]), path.stat().st_size
    if not width or rows * (4 * width + 2) > size - header.end():
        needs = f"{rows} words of width {width} need {rows * (4 * width + 2)} bytes and {size - header.end()} follow the header"
        raise DataError(f"{path}: {needs}: it is cut or damaged; copy it again")
    kept = rows if limit is None else min(rows, limit)
    matrix, words = np.empty((kept, width), np.float32), []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = header.end()
        for row in range(kept):
            start, at = at, data.find(b" ", at, at + WORD)
            if at < 0 or at + 1 + 4 * width > size:
                raise DataError(f"{path}: at byte {start} no word number {row} of {rows} with its vector: it is cut; copy it again")
            words.append(_word(data[start:at], f"{path}: at byte {start}"))
            matrix[row] = np.frombuffer(data[at + 1 : at + 1 + 4 * width], "<f4")
            at += 1 + 4 * width
    return Vectors(*_first_of_each(words, _finite(matrix, path)))


def _word(data: bytes, where: str) -> str:
    try:
        word = data.lstrip(b"\n").decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} stands a word that is not UTF-8 ({error}): copy the file again") from error
    if not word:
        raise DataError(f"{where} stands a word without letters: copy the file again")
    return word


def _first_of_each(words: list[str], matrix: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    places = {word: row for row, word in reversed(list(enumerate(words)))}
    if len(places) == len(words):
        return tuple(words), matrix
    rows = sorted(places.values())
    return tuple(words[row] for row in rows), matrix[rows]


def _read_array(path: Path, limit: int | None) -> Vectors:
    try:
        with warnings.catch_warnings(action="error"):  # NumPy warns where it guesses at a damaged header
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.shape[1]:
            raise ValueError(f"it holds {matrix.dtype} {matrix.shape}")
        matrix = np.array(matrix[:limit], np.float32)
    except Exception as error:  # NumPy reads its header as Python source: it raises what a tokenizer and a parser raise
        raise DataError(f"{path} is no array of floats [words, width] ({error!r:.200}): copy it again".replace("\n", " ")) from error
    return Vectors(tuple(_words_beside(path)[: len(matrix)]), _finite(matrix, path))


def _words_beside(path: Path) -> list[str]:
    index = path.with_name(re.sub(r"_\d+d_emb$", "", path.stem) + "_index.parquet")
    for place in (path.with_suffix(".parquet"), index, path.with_suffix(".txt")):
        if place.is_file():
            return _read_words(place)
    raise DataError(f"{path} has no words beside it: put them, a line each, in {path.with_suffix('.txt')}")


def _read_words(path: Path) -> list[str]:
    try:
        if path.suffix == ".txt":
            return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        import pyarrow.parquet

        words = pyarrow.parquet.read_table(path).column(0).to_pylist()
        if all(isinstance(word, str) for word in words):
            return words
        raise ValueError("its first column holds no text")
    except (OSError, ValueError, IndexError) as error:  # Arrow's errors are ValueErrors and OSErrors
        raise DataError(f"{path} cannot be read as words ({error}): copy it again".replace("\n", " ")) from error


def _finite(matrix: np.ndarray, path: Path) -> np.ndarray:
    bad = ~np.isfinite(matrix).all(1)
    if bad.any():
        raise DataError(f"{path}: the vector of word number {int(bad.argmax()) + 1} is not finite: it is damaged; copy it again")
    return matrix


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is cut or corrupt ({error}): copy it again") from error


def save_text(path: str | Path, vectors: Vectors) -> None:
    """word2vec's text (fastText's .vec): sizes, then a word and its numbers a line, exact to the last bit.

    Raises DataError for a word with a line break, which the format cannot hold.
    """
    rows = ((word, row) for word, row in zip(_writable(vectors, "\n\r"), vectors.matrix, strict=True))
    lines = (f"{word} {' '.join(row.astype(np.float32).astype(str))}\n".encode() for word, row in rows)
    _write(Path(path), [_header(vectors)], lines)


def save_binary(path: str | Path, vectors: Vectors) -> None:
    """word2vec's binary: sizes, then word, space, D little-endian float32 and a line break.

    Raises DataError for a word with a space or a line break, which the format cannot hold.
    """
    rows = zip(_writable(vectors, " \n\r"), vectors.matrix, strict=True)
    _write(Path(path), [_header(vectors)], (word.encode() + b" " + row.astype("<f4").tobytes() + b"\n" for word, row in rows))


def save_fasttext(path: str | Path, trained: Trained, counts: np.ndarray) -> None:
    """fastText's own .bin of vectors trained over n-grams, which fastText and gensim open: unseen words keep their vectors.

    counts: int64 [V], how often each word came.
    """
    parts = fasttext_files.encode_fasttext(trained.vectors, counts, trained.inputs, trained.outputs)
    _write(Path(path), parts)


def save_trained(path: str | Path, trained: Trained, counts: np.ndarray) -> None:
    """By the ending: text, or for .bin word2vec's binary; where there are subwords, fastText's."""
    if Path(path).suffix != ".bin":
        save_text(path, trained.vectors)
    elif trained.vectors.subwords is None:
        save_binary(path, trained.vectors)
    else:
        save_fasttext(path, trained, counts)


def _header(vectors: Vectors) -> bytes:
    return "{} {}\n".format(*vectors.matrix.shape).encode()


def _writable(vectors: Vectors, forbidden: str) -> tuple[str, ...]:
    for word in vectors.words:
        if not word or set(word) & set(forbidden) or word[0] == "\n":
            raise DataError(f"the word {word!r} cannot be written: this format has no place for it; leave it out")
    return vectors.words


def _write(path: Path, *parts: Iterable[bytes]) -> None:
    """Whole or not at all."""
    with new_file(path) as file:
        for part in parts:
            file.writelines(part)
