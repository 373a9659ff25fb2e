"""Texts for the commands that read files or standard input: in bounded memory, and with the errors in a command line's words.

Read next: `files.py`.
"""

import contextlib
import io
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from jaxlm.data import files
from jaxlm.errors import ConfigError, DataError

BLOCK = 1 << 20  # characters of a text file that are read at a time
PLAIN = (".txt", ".md", ".py")
WORDS = {
    "set data.column=NAME": "give --column NAME", "leave it out of data.source": "leave it out", "data.source=": "",
    "check data.source": "check the files", "tokenizer.vocab_size=": "--vocab-size ", "tokenizer.kind=": "--kind ",
}  # fmt: skip


def file_texts(patterns: Iterable[str], column: str) -> Iterator[tuple[Path, str]]:
    """(file, text) of all files that paths or globs name: the rows of tables, text files in blocks of whole lines.

    A text file of up to a million characters is one block. Raises DataError as `files.file_documents` does.
    """
    with in_a_commands_words():
        for path in [path for pattern in patterns for path in files.list_files(pattern)]:
            texts = _blocks(path) if is_plain(path) else files.file_documents([path], column)
            yield from ((path, text) for text in texts)


def file_rows(patterns: Iterable[str], *columns: str) -> Iterator[tuple[str, ...]]:
    """The named columns of each row of tables. Raises DataError for a text file, which has no columns."""
    with in_a_commands_words():
        for path in [path for pattern in patterns for path in files.list_files(pattern)]:
            if is_plain(path):
                raise DataError(f"{path} has no column {columns[0]}: give a jsonl, csv, tsv or parquet file, or leave --by out")
            yield from zip(*(files.file_documents([path], column) for column in columns), strict=True)


def reported(texts: Iterable[str], say: Callable[[str], None], seconds: float = 2.0) -> Iterator[str]:
    """The same texts, with a line every few seconds that says how much was read, and one at the end."""
    start = told = time.monotonic()
    read = number = 0
    for text in texts:
        yield text
        read, number = read + len(text), number + 1
        if time.monotonic() - told > seconds:
            told = time.monotonic()
            say(f"read {read / 1e6:,.1f}M characters, {read / 1e6 / (told - start):.1f}M a second")
    say(f"read {read / 1e6:,.1f}M characters of {number:,} texts in {time.monotonic() - start:.0f} s; learning")


def is_plain(path: Path) -> bool:
    """Is it a file of text, compressed or not, and no table?"""
    stem = path.with_suffix("") if path.suffix.lower() in files.COMPRESSED else path
    return stem.suffix.lower() in PLAIN


def _blocks(path: Path) -> Iterator[str]:
    with files.named_damage(path):
        with files.open_bytes(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="\n") as text:
            while block := text.read(BLOCK):
                yield block + text.readline(BLOCK)


@contextlib.contextmanager
def in_a_commands_words() -> Iterator[None]:
    """Errors that name keys of a configuration name what a command line has instead."""
    try:
        yield
    except (ConfigError, DataError) as error:
        message = str(error)
        for key, words in WORDS.items():
            message = message.replace(key, words)
        raise type(error)(message) from error


def batches(patterns: list[str], column: str) -> Iterator[list[str]]:
    """Lists of lines without their ends: of text files and standard input (no patterns) the lines, of tables the rows."""
    if not patterns:
        yield from _arriving()
    for path, text in file_texts(patterns, column):
        yield _split(text) if is_plain(path) else [text]


def numbers(batches: Iterable[list[str]]) -> Iterator[list[int]]:
    """The numbers of each line. Raises DataError, naming the line, where something else stands."""
    for number, line in enumerate((line for batch in batches for line in batch), 1):
        try:
            yield [int(word) for word in line.split()]
        except ValueError as error:
            raise DataError(f"line {number} holds something else than ids ({error}): give numbers with blanks between them") from error


def _split(text: str) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def _arriving() -> Iterator[list[str]]:
    """What has arrived at standard input, at once: a slow writer sees its answer, a fast one is read in large parts."""
    parts, number = [], 0
    while data := _wait(sys.stdin.buffer).read1(BLOCK):
        whole, end, rest = data.rpartition(b"\n")
        if end:
            lines = _decoded(b"".join([*parts, whole, end]), number)
            number, parts = number + len(lines), []
            yield lines
        parts.append(rest)
    if any(parts):
        yield _decoded(b"".join(parts), number)


def _wait(stream: BinaryIO) -> BinaryIO:
    """The stream, once something has arrived: a Ctrl-C just before a read that waits would be seen only after it."""
    with contextlib.suppress(OSError, ValueError):  # no file that can be waited for
        while not select.select([stream], [], [], 0.2)[0]:
            pass
    return stream


def _decoded(data: bytes, before: int) -> list[str]:
    try:
        return _split(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = before + data.count(b"\n", 0, error.start) + 1
        raise DataError(f"standard input, line {line} is not UTF-8 text ({error.reason}): convert it first (iconv)") from error
