"""JSON from strangers: an object without repeated keys, of bounded size and depth, or a DataError. Read next: `safetensors_files.py`."""

import json
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError

LIMIT = 64 << 20  # bytes


def parse_object(data: bytes, where: object) -> dict[str, Any]:
    """The object that UTF-8 JSON spells; raises DataError naming `where`."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no readable JSON ({_short(error)}): get the file again") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} holds a JSON {type(value).__name__}, not an object: get the file again")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file; raises DataError where it is missing, damaged or larger than any that is real."""
    try:
        size = path.stat().st_size
        if size > LIMIT:
            raise DataError(f"{path} has {size:,} bytes, more than the {LIMIT:,} of any real one: get the file again")
        return parse_object(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): get the file again") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} comes twice")
    return found


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
