"""Pairs of texts out of plain files: sentence n of one beside sentence n of another, or a file of sources alone.

Two files are one source with "::" between them, as in "train.en.gz::train.de.gz". Also what the languages of a pair say about
the columns of tables. Read next: `records.py`.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxlm import config
from jaxlm.data import files
from jaxlm.data.files import COMPRESSED, TABLES, Choose, Row
from jaxlm.data.known import PAIR_TASKS, column_of
from jaxlm.data.record_files import RECORD_FILES
from jaxlm.errors import DataError

BETWEEN = "::"
SIDES = ("source", "target")
NESTED = "translation"  # Hugging Face's sets of translations: {"translation": {"en": "...", "de": "..."}}


def is_plain(source: str, task: str) -> bool:
    """Is a source one of lines, whose columns need no name? Two files always; one alone for a task of pairs."""
    alone = task in PAIR_TASKS and not source.startswith("tfds:") and is_lines(Path(source))
    return alone or BETWEEN in source


def list_sides(source: str) -> list[list[Path]]:
    """The files of a source, or of both its sides. Raises DataError where there are none, or where one side has more."""
    names = source.split(BETWEEN)
    sides = [files.list_files(name) for name in names]
    if len(names) > 2:
        raise DataError(f"data.source={source} names {len(names)} files side by side: a pair has two, SOURCE{BETWEEN}TARGET")
    if len({len(side) for side in sides}) > 1:
        counts = " and ".join(f"{name} names {len(side)} files" for name, side in zip(names, sides, strict=True))
        raise DataError(f"data.source={source}: {counts}: name as many on both sides")
    return sides


def aligned_rows(source: str) -> Iterator[Row]:
    """("FILE:LINE" of the source, {"source": a line, "target": that line of the other file}); empty lines are lines.

    Raises DataError for a table, a damaged file, and files of unequal length.
    """
    for pair in zip(*list_sides(source), strict=True):
        for path in pair:
            if not is_lines(path):
                raise DataError(f"data.source={source}: {path.name} is no file of plain lines: name a table alone, with both columns in it")
        yield from _aligned(*pair)


def _aligned(source: Path, target: Path) -> Iterator[Row]:
    left, right = _lines(source), _lines(target)
    for number, (one, other) in enumerate(itertools.zip_longest(left, right), 1):
        if one is None or other is None:
            short, long = number - 1, number + sum(1 for _ in (left if other is None else right))
            counts = f"{source} has {long if other is None else short} lines and {target} {short if other is None else long}"
            raise DataError(f"{counts}: line n of one belongs to line n of the other; copy both again, or mend the one that lost some")
        yield f"{source}:{number}", {"source": one, "target": other}


def source_lines(path: Path) -> Iterator[Row]:
    """("FILE:LINE", {"source": a line}), of empty lines too: outputs are to stand beside their sources."""
    return ((f"{path}:{number}", {"source": line}) for number, line in enumerate(_lines(path), 1))


def _lines(path: Path) -> Iterator[str]:
    with files.named_damage(path), files.open_bytes(path) as stream, files.text_lines(stream) as lines:
        for line in lines:
            yield line.rstrip("\r\n")


def is_lines(path: Path) -> bool:
    """Is a file one of plain lines? So are all whose ending is of no other kind: .txt, .en, .de.gz.

    >>> is_lines(Path("test.de.gz")), is_lines(Path("test.tsv.gz"))
    (True, False)
    """
    endings = [ending for ending in map(str.lower, path.suffixes) if ending not in COMPRESSED]
    return not endings or endings[-1] not in {*TABLES, *RECORD_FILES} - {".txt"}


def languages(records: config.Records) -> dict[str, str]:
    """Role -> the code of its language, where the run names one."""
    codes = {"source": records.source_language, "target": records.target_language}
    return {role: code for role, code in codes.items() if code}


def language_columns(codes: Mapping[str, str], roles: Iterable[str], there: Iterable[Any]) -> dict[str, str]:
    """Role -> the column that is called by its language, of those roles that have one."""
    found = {role: column_of(code, there) for role, code in codes.items() if role in roles}
    return {role: column for role, column in found.items() if column is not None}


def whole_when_nested(choose: Choose) -> Choose:
    """`choose`, which is not asked about a table whose translations lie one level deeper: all of its columns are read."""
    return lambda there, where: there if NESTED in there else choose(there, where)


def unfolded(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows where the languages inside a translation are columns themselves."""
    for where, row in rows:
        inside = row.get(NESTED)
        if isinstance(inside, dict):
            row = {name: cell for name, cell in row.items() if name != NESTED} | inside
        yield where, row
