"""Documents and rows out of files: txt, jsonl, csv, tsv, parquet, plain or compressed, one after the other in sorted order.

Files are streamed: memory holds one document of a text file, one line of a table. Read next: `prepare.py`, `records.py`.
"""

import contextlib
import csv
import difflib
import glob
import gzip
import io
import itertools
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from jaxlm.errors import DataError

COMPRESSED = (".gz", ".xz", ".zst")
Choose = Callable[[Sequence[Any], str], Iterable[Any]]  # (a table's columns, where it is) -> those that are read; raises DataError
Row = tuple[str, dict[Any, Any]]  # where it stands, as in "FILE:LINE", and its cells by column
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException, UnicodeDecodeError, csv.Error)


def list_files(pattern: str) -> list[Path]:
    """The files that a path or glob (`**` goes into folders) names, sorted.

    Raises DataError where there are none, with the nearest name that exists.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise DataError(f"data.source={pattern} is a folder: name the files in it, as in data.source={pattern.rstrip('/')}/**/*.txt")
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not found:
        raise DataError(f"data.source={pattern}: no file matches {path.absolute()}{_nearest(path)}")
    return found


def _nearest(path: Path) -> str:
    folder, name = path.absolute(), ""
    while not folder.is_dir():
        folder, name = folder.parent, folder.name
    there = sorted(entry.name for entry in folder.iterdir())
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {folder / near[0]}?"
    return f"; {folder} holds {', '.join(there[:5]) or 'nothing'}{', ...' if len(there) > 5 else ''}"


def file_documents(paths: Iterable[Path], column: str) -> Iterator[str]:
    """The texts of files, each read by its ending; `column` names the text of a table.

    Raises DataError, naming the file and where it can the line, for a damaged file, a missing column or an unknown ending.
    """

    def only(there: Sequence[Any], where: str) -> Iterable[str]:
        _check_column(column, there, where)
        return [column]

    for path in paths:
        if kind_of(path, (*TEXTS, *TABLES)) in TEXTS:
            with named_damage(path), open_bytes(path) as stream:
                yield stream.read().decode("utf-8-sig")
        else:
            yield from (_cell(row, column, where) for where, row in file_rows(path, only))


def kind_of(path: Path, known: Sequence[str]) -> str:
    """The ending of a file's name before that of a compression; raises DataError where it is not among the `known` ones."""
    endings = [ending.lower() for ending in path.suffixes]
    kind = endings[-2] if len(endings) > 1 and endings[-1] in COMPRESSED else endings[-1] if endings else ""
    if kind not in known:
        names = ", ".join(known)
        raise DataError(f"{path}: files of this kind cannot be read; the endings are {names}, each also with {', '.join(COMPRESSED)}")
    return kind


def file_rows(path: Path, choose: Choose, header: bool = True) -> Iterator[Row]:
    """The rows of a table by its ending, one of TABLES, with at least the columns that `choose` picks.

    Args:
      choose: called with the columns that there are: of jsonl for every row, else once, before the first.
      header: False: the first line of csv and tsv is a row like the others, and columns are numbers from 0.

    A cell that a short line of csv or tsv lacks is None, and what a long one has too much stands under the column None. Raises
    DataError, naming the file and where it can the line, for a damaged file, and what `choose` raises.
    """
    with named_damage(path), open_bytes(path) as stream:
        yield from TABLES[kind_of(path, tuple(TABLES))](stream, path, choose, header)


@contextlib.contextmanager
def named_damage(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one DataError that names it."""
    try:
        yield
    except DAMAGE as error:
        what = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "is cut or corrupt"
        raise DataError(f"{path} {what} ({error}): copy it again or leave it out of data.source") from error
    except OSError as error:  # Arrow reports a damaged stream as one, without the file's name
        if error.errno is not None:
            raise
        raise DataError(f"{path} is cut or corrupt ({error}): copy it again or leave it out of data.source") from error


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, decompressed by its ending."""
    ending = path.suffix.lower()
    if ending == ".gz":
        return gzip.open(path, "rb")
    if ending == ".xz":
        return lzma.open(path, "rb")
    return pa.input_stream(str(path), compression="zstd") if ending == ".zst" else path.open("rb")


def text_lines(stream: BinaryIO, newline: str = "\n") -> io.TextIOWrapper:
    """The lines of a stream of bytes as text, without a byte order mark."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline=newline)


def _read_jsonl(stream: BinaryIO, path: Path, choose: Choose, header: bool) -> Iterator[Row]:
    with text_lines(stream) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{path}:{number}"
                row = _parse(line, where)
                choose(tuple(row), where)
                yield where, row


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({error}): mend or remove the line") from error
    if not isinstance(row, dict):
        raise DataError(f'{where} is JSON but no object: write a line as {{"COLUMN": ...}}')
    return row


def _read_csv(stream: BinaryIO, path: Path, choose: Choose, header: bool) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a document is longer than the 128 KiB that are the default
    with text_lines(stream, "") as lines:
        rows = csv.reader(lines, strict=True)
        yield from _table(((rows.line_num, row) for row in rows if row), path, choose, header)


def _read_tsv(stream: BinaryIO, path: Path, choose: Choose, header: bool) -> Iterator[Row]:
    """Quotes, and a carriage return inside a line, are plain characters: a stray one must not swallow or divide what comes after it."""
    with text_lines(stream) as lines:
        bare = ((number, line.removesuffix("\n").removesuffix("\r")) for number, line in enumerate(lines, 1))
        yield from _table(((number, line.split("\t")) for number, line in bare if line), path, choose, header)


def _table(rows: Iterator[tuple[int, list[str]]], path: Path, choose: Choose, header: bool) -> Iterator[Row]:
    """Numbered cells as rows by column; a cell that is missing is None, and those beyond the columns are the list at None."""
    first = next(rows, (0, []))
    names = first[1] if header else list(range(len(first[1])))
    choose(names, str(path))
    for number, cells in rows if header or not names else itertools.chain([first], rows):
        row = dict(itertools.zip_longest(names, cells[: len(names)]))
        yield f"{path}:{number}", row | ({None: cells[len(names) :]} if len(cells) > len(names) else {})


def _read_parquet(stream: BinaryIO, path: Path, choose: Choose, header: bool) -> Iterator[Row]:
    import pyarrow.parquet as pq

    # A compressed table has to be whole in memory: Parquet is read from its end.
    table = pq.ParquetFile(pa.BufferReader(stream.read()) if path.suffix.lower() in COMPRESSED else stream)
    columns = list(choose(table.schema_arrow.names, str(path)))
    number = 0
    for batch in table.iter_batches(batch_size=256, columns=columns):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}, row {number}", row


TEXTS = (".txt", ".md", ".py")
TABLES = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_tsv, ".parquet": _read_parquet}


def _check_column(column: str, there: Iterable[str], where: object) -> None:
    if column not in there:
        names = ", ".join(map(str, there)) or "none"
        raise DataError(f"{where} has no column {column}: its columns are {names}; set data.column=NAME to the one with the text")


def _cell(row: dict[str, Any], column: str, where: str) -> str:
    _check_column(column, row, where)
    value = row[column]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if not isinstance(value, str):
        raise DataError(f"{where}: the column {column} holds {value!r:.40}, no text; set data.column=NAME or mend the row")
    return value
