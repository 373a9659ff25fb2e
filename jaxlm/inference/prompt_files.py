"""Prompts out of a file, continuations into another, batch by batch; a half-written output is continued.

A line of the input is a prompt, or an object of JSON with "prompt" or "messages"; a line of the output is that object with its
"completion" (or "completions"). The draws of row n depend on the seed and on n alone, so that a continued output is the one that an
undisturbed run writes. Read next: `generate.py`.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from jaxlm.errors import DataError, UserError

PATIENCE = 5.0  # seconds between two words about the progress
ANSWERS = ("completion", "completions")  # what a line of the output has besides its prompt; one of the input may have them too
Row = dict[str, Any]
Write = Callable[[list[Any], tuple[int, ...]], tuple[list[str], int]]  # prompts, a seed a text -> texts, new tokens


@dataclasses.dataclass(frozen=True)
class Job:
    """How rows are written: prompts a batch, texts a prompt, and the seed of the first."""

    batch_size: int = 8
    copies: int = 1
    seed: int = 0


def read_rows(path: Path) -> list[Row]:
    """The prompts of a file. Raises DataError, with the line's number, for one that is none."""
    rows = []
    for number, line in enumerate(_lines(_decoded(path, path.read_bytes())), 1):
        if path.suffix not in (".jsonl", ".json"):
            rows.append({"prompt": line})
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: no JSON ({error.msg}): mend the line") from error
        messages = row.get("messages") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not (isinstance(messages or [], list) and (messages or isinstance(row.get("prompt"), str))):
            raise DataError(f'{path}:{number}: an object with "prompt" or "messages" is wanted: mend the line')
        rows.append(row)
    if not rows:
        raise DataError(f"{path} has no line: give prompts")
    return rows


def prompt_of(row: Row) -> Any:
    """A text, or a conversation."""
    return row.get("messages") or row["prompt"]


def check_rows(path: Path, rows: list[Row], check: Callable[[Any], object]) -> None:
    """Calls `check` with every prompt before the first is written. Raises DataError, with the line's number, for one that it refuses."""
    for number, row in enumerate(rows, 1):
        try:
            check(prompt_of(row))
        except UserError as error:
            raise DataError(f"{path}:{number}: {error}") from error


def write_rows(write: Write, rows: list[Row], output: Path, job: Job, say: Callable[[str], None]) -> None:
    """Writes a line to `output` for every row, in order, from where it ends.

    Raises DataError where `output` holds what no run over these rows has written.
    """
    done, begun, told, made = _kept(output, rows), time.monotonic(), time.monotonic(), 0
    if done:
        say(f"{output} has {done:,} of {len(rows):,} prompts: going on after them")
    with _appended(output) as file:
        for first in range(done, len(rows), job.batch_size):
            batch = rows[first : first + job.batch_size]
            seeds = tuple(job.seed + job.copies * first + i for i in range(job.copies * len(batch)))
            texts, tokens = write([prompt_of(row) for row in batch], seeds)
            file.write("".join(f"{_line(row, texts[i * job.copies : (i + 1) * job.copies])}\n" for i, row in enumerate(batch)))
            file.flush()
            made, last = made + tokens, first + len(batch)
            if time.monotonic() - told > PATIENCE or last == len(rows):
                told = time.monotonic()
                say(f"{last:,} of {len(rows):,} prompts, {made / max(told - begun, 1e-9):,.0f} tokens/s")


@contextlib.contextmanager
def _appended(output: Path) -> Iterator[TextIO]:
    """A file to be written on at its end; one that is new and stays empty is taken away again."""
    new = not output.exists()
    try:
        with output.open("a", encoding="utf-8") as file:
            yield file
    finally:
        if new and output.exists() and not output.stat().st_size:
            output.unlink()


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line} is not UTF-8 text ({error.reason}): convert the file") from error


def _lines(text: str) -> list[str]:
    """Not str.splitlines: JSON leaves separators such as U+2028 as they are."""
    return text.removesuffix("\n").split("\n") if text else []


def _line(row: Row, texts: list[str]) -> str:
    answer = {"completion": texts[0]} if len(texts) == 1 else {"completions": texts}
    return json.dumps({**row, **answer}, ensure_ascii=False)


def _kept(output: Path, rows: list[Row]) -> int:
    """How many rows are written already; a line that was cut off is taken away."""
    if not output.exists():
        return 0
    content = output.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    lines = _lines(_decoded(output, whole))
    for number, (line, row) in enumerate(zip(lines, rows, strict=False), 1):
        asked = {name: value for name, value in row.items() if name not in ANSWERS}
        if {name: value for name, value in _object(output, number, line).items() if name in asked} != asked:
            raise DataError(f"{output}:{number} is of another prompt: remove the file, or name another --output")
    if len(lines) > len(rows):
        raise DataError(f"{output} has {len(lines):,} lines and there are {len(rows):,} prompts: remove it, or name another --output")
    if len(whole) < len(content):
        output.write_bytes(whole)
    return len(lines)


def _object(output: Path, number: int, line: str) -> Row:
    """What a line of the output holds. Raises DataError where no run has written it."""
    with contextlib.suppress(json.JSONDecodeError):
        if isinstance(row := json.loads(line), dict):
            return row
    raise DataError(f"{output}:{number} is no object of JSON: remove it and what follows, or name another --output")
