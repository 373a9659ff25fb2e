"""A line of text as a record to predict: an object of JSON, or the roles of a task with tabs between them. Read next: `records.py`."""

import json
from typing import Any

from jaxlm.config import Records, Run
from jaxlm.errors import DataError

# Task -> the roles that stand in a line, with tabs between them; the last takes all that is left.
IN_LINE = {
    "sequence-classification": ("text", "pair"),
    "token-classification": ("tokens",),
    "question-answering": ("question", "context"),
    "multiple-choice": ("text", "choices"),
}


def line_record(line: str, number: int, run: Run) -> dict[str, Any]:
    """The record of a line: {role: value}, without labels.

    >>> line_record("What?\\tThat.", 1, Run(task="question-answering"))
    {'question': 'What?', 'context': 'That.'}

    Raises DataError for a line that begins as an object and is none.
    """
    if line.lstrip().startswith("{"):
        return _of_object(line, number, run.records)
    roles = IN_LINE[run.task]
    cells = line.split("\t") if run.task == "multiple-choice" else line.split("\t", len(roles) - 1)
    if run.task == "multiple-choice":
        return {"text": cells[0], "choices": cells[1:]}
    return dict(zip(roles, cells, strict=False))


def _of_object(line: str, number: int, options: Records) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"line {number} begins with {{ and is no JSON ({error}): mend it, or write plain text") from error
    renamed = {column: role for role, column in options.columns if isinstance(column, str)}
    return {renamed.get(name, name): value for name, value in found.items() if renamed.get(name, name) not in ("label", "tags", "tagged")}
