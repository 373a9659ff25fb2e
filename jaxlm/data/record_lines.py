"""A line of text as a record to predict: an object of JSON, or the roles of a task with tabs between them. Read next: `records.py`."""

import json
from typing import Any

from jaxlm.config import Run
from jaxlm.data import known
from jaxlm.data.parallel import language_columns, languages
from jaxlm.data.records import Columns, find_columns, named_columns, read_row
from jaxlm.data.tfds import name_and_split
from jaxlm.errors import DataError

# Task -> the roles of a record that is to be predicted, and those of them without which it cannot be.
ROLES = {
    "sequence-classification": ("text", "pair"),
    "token-classification": ("tokens",),
    "question-answering": ("question", "context", "id"),
    "multiple-choice": ("text", "choices"),
    **dict.fromkeys(("text-to-text", "translation", "summarization"), ("source",)),
}
NEEDED = {**ROLES, "sequence-classification": ("text",), "question-answering": ("question", "context"), "multiple-choice": ("choices",)}


def line_record(line: str, number: int, run: Run) -> dict[str, Any]:
    """The record of a line: {role: value}, without labels.

    The keys of an object are found as the columns of a file are: by `records.columns`, the known sets, or their usual names.

    >>> line_record("What?\\tThat.", 1, Run(task="question-answering"))
    {'question': 'What?', 'context': 'That.'}

    Raises DataError for an object without a key that is needed, and for a question or choices without tabs.
    """
    given, found = _given_columns(run), _object(line)
    if found is not None:
        called = language_columns(languages(run.records), ROLES[run.task], found)
        return _of_object(found, f"line {number}", run.task, {**called, **given})
    if run.task == "multiple-choice":
        return _choices(line.split("\t"), number)
    if run.task == "question-answering":
        question, tab, context = line.partition("\t")
        if not tab:
            raise DataError(f"line {number} has no context: write the question, a tab, and the context")
        return {"question": question, "context": context}
    alone = len(ROLES[run.task]) == 1 or (given and "pair" not in given)
    return dict(zip(ROLES[run.task], [line] if alone else line.split("\t", 1), strict=False))


def _given_columns(run: Run) -> Columns:
    source = run.data.source
    known_set = isinstance(source, str) and source.startswith("tfds:")
    codes = languages(run.records)
    return named_columns(run.records) or (known.columns_by_name(name_and_split(source, "")[0], run.task, codes) if known_set else {})


def _object(line: str) -> dict[str, Any] | None:
    """What a line of JSON holds; None where it is plain text, even one that begins with a brace."""
    try:
        return json.loads(line) if line.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return None


def _of_object(found: dict[str, Any], where: str, task: str, given: Columns) -> dict[str, Any]:
    there = {role: found.keys() >= set(names if isinstance(names, tuple) else [names]) for role, names in given.items()}
    columns = find_columns({role: given[role] for role in ROLES[task] if there.get(role)}, ROLES[task], tuple(found))
    for role in NEEDED[task]:
        if role not in columns:
            keys = ", ".join(found) or "none"
            raise DataError(f'{where} has no key for {role}: its keys are {keys}; write {{"{role}": ...}}')
    return read_row(found, columns, where)


def _choices(cells: list[str], number: int) -> dict[str, Any]:
    if len(cells) < 3:
        raise DataError(f"line {number} has {len(cells) - 1} choices: write a text and two choices at least, with tabs between them")
    return {"text": cells[0], "choices": cells[1:]}
