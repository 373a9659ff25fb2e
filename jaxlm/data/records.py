"""Labelled records out of a source: role -> value, as in text, pair, label, from the columns of tables, SQuAD, CoNLL and TFDS.

Which column holds a role is said by `records.columns`, or known (`known.py`), or found by its usual names. Read next:
`record_files.py` (files that are no tables), `parallel.py` (files side by side), then `../tasks/`, where records become examples.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm import config
from jaxlm.data import files, known, parallel, tfds
from jaxlm.data.record_files import RECORD_FILES
from jaxlm.errors import ConfigError, DataError
from jaxlm.overrides import choose, tuples

Columns = Mapping[str, Any]  # role -> column, or several columns
Find = Callable[[Sequence[Any], str], Columns]  # (the columns that there are, where) -> those of the roles; raises DataError

# What the columns of a text and its pair are usually called together, and those of one role alone.
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "passage"), ("question", "sentence"),
    ("text1", "text2"), ("text_a", "text_b"),
)  # fmt: skip
USUAL = {
    "text": ("sentence", "review", "content", "document", "premise", "question", "line"),
    "label": ("class", "category", "target", "score", "sentiment", "topic", "labels"),
    "tokens": ("words",),
    "tags": ("ner_tags", "pos_tags", "labels"),
    "tagged": ("line",),
    "context": ("passage", "paragraph"),
    "answers": ("answer",),
    "choices": ("options", "endings"),
    "source": ("src", "document", "article", "text", "dialogue", "input", "inputs"),
    "target": ("tgt", "summary", "highlights", "translation", "output", "outputs"),
}
# Role -> what its cell is; a list of words may also be a text with blanks between them. Tasks look at the others themselves.
CELLS = {
    **dict.fromkeys(("text", "pair", "question", "context", "tagged", *parallel.SIDES), "text"),
    **dict.fromkeys(("tokens", "tags"), "list of words"),
    "label": "label",
}
NUMBERED = re.compile(r"(?:choice|ending|option)_?(\d+)")  # columns of a choice each
NAMED_LABELS = {"sequence-classification": "label", "token-classification": "tags"}  # task -> the role whose values are names


def read_records(
    source: str, task: str, data: config.Data, records: config.Records, roles: tuple[str, ...], required: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of a source in a fixed order: "FILE:LINE" or "tfds:NAME, row N", and role -> str, int, float, list or dict.

    Classes of TFDS become their names, and labels of classification strings; a secret label (-1) is none. A side of a pair may
    be empty: the task says what becomes of it.

    Args:
      task: the run's task: it decides which known data sets fit.
      roles: those that a record of the task may hold; what has no column is left out of the records.
      required: those that every record must hold: for training with the label.

    Raises DataError for a missing column, an empty cell where a value is required, one of a wrong type, or a damaged source;
    ConfigError for a role in `records.columns` that the task does not have.
    """
    given = named_columns(records)
    for role in given:
        choose("the role in records.columns", role, roles)
    codes = parallel.languages(records)
    given = {} if parallel.is_plain(source, task) else given or _known_columns(source, task, data, codes)
    find = _finder(given, roles, required, codes)
    spelled = None if records.kind == "regression" else NAMED_LABELS.get(task)
    for where, row in _rows(source, task, data, find, given):
        columns = find(tuple(row), where)
        record = read_row(row, columns, where)
        for role in required:
            if role in parallel.SIDES:
                record.setdefault(role, "")
            elif record.get(role) in (None, ""):
                raise DataError(f"{where}: {_shown(columns[role])}, the column for {role}, is empty: mend or remove the row")
        if spelled in record:
            record[spelled] = _as_names(record[spelled])
        yield where, record


def class_order(source: str, data: config.Data, records: config.Records, task: str) -> tuple[str, ...] | None:
    """The names of a TFDS set's classes (of labels, or of tags) in the order of their ids; None where there are no such ids.

    Raises what `read_records` raises of the set and of `records.columns`.
    """
    role = NAMED_LABELS.get(task)
    if role is None or not source.startswith("tfds:"):
        return None
    builder = _builder(source, data)
    given = named_columns(records) or known.known_columns(builder.info.full_name, task)
    column = find_columns(given, (role,), tuple(builder.info.features)).get(role)
    names = tfds.class_names(builder).get(column)
    return None if names is None else tuple(names)


def named_columns(records: config.Records) -> Columns:
    """Role -> column, or columns, as `records.columns` names them. Raises ConfigError where it holds no pairs of these.

    >>> named_columns(config.Records(columns=(("text", ("title", "body")), ("label", "topic"))))
    {'text': ('title', 'body'), 'label': 'topic'}
    """
    given = tuples(records.columns)
    if all(isinstance(entry, tuple) and _is_pair(entry) for entry in given) and len(dict(given)) == len(given):
        return dict(given)
    flat = len(given) % 2 == 0 and all(_is_pair(given[i : i + 2]) for i in range(0, len(given), 2))  # a comma was forgotten
    mend = known.spelled(dict(zip(given[::2], given[1::2], strict=True)) if flat else {"text": None, "label": None})
    raise ConfigError(f"records.columns={given!r} is not a pair of a role and its column for each role: set {mend}")


def _is_pair(entry: tuple[Any, ...]) -> bool:
    whole = len(entry) == 2 and isinstance(entry[0], str) and entry[1] != ()
    return whole and all(isinstance(column, str | int) and not isinstance(column, bool) for column in _listed(entry[1]))


def _builder(source: str, data: config.Data) -> Any:
    return tfds.open_prepared(tfds.tfds_directory(tfds.name_and_split(source, "")[0], data.data_dir))


def _known_columns(source: str, task: str, data: config.Data, codes: Mapping[str, str]) -> Columns:
    return known.known_columns(_builder(source, data).info.full_name, task, codes) if source.startswith("tfds:") else {}


def _rows(source: str, task: str, data: config.Data, find: Find, given: Columns) -> Iterator[files.Row]:
    if source == "stdlib":
        raise DataError("data.source=stdlib holds no labelled records: name a file, as in data.source=train.tsv, or tfds:NAME")
    if source.startswith("tfds:"):
        return _tfds_rows(source, task, data, find)
    if parallel.BETWEEN in source:
        return parallel.aligned_rows(source)
    header = not any(isinstance(column, int) for column in _flat(given))
    choose = lambda there, where: _flat(find(tuple(there), where))
    read = _pair_rows if task in known.PAIR_TASKS else _file_rows
    return itertools.chain.from_iterable(read(path, choose, header) for path in files.list_files(source))


def _pair_rows(path: Path, choose: files.Choose, header: bool) -> Iterator[files.Row]:
    if parallel.is_lines(path):
        return parallel.source_lines(path)
    return parallel.unfolded(_file_rows(path, parallel.whole_when_nested(choose), header))


def _file_rows(path: Path, choose: files.Choose, header: bool) -> Iterator[files.Row]:
    kind = files.kind_of(path, (*files.TABLES, *RECORD_FILES))
    if kind in RECORD_FILES:
        with files.named_damage(path), files.open_bytes(path) as stream:
            yield from RECORD_FILES[kind](stream, path)
        return
    for where, row in files.file_rows(path, choose, header):
        if None in row:
            raise DataError(f"{where} has more cells than the first line: mend the line, or quote what holds a separator")
        yield where, row


def _tfds_rows(source: str, task: str, data: config.Data, find: Find) -> Iterator[files.Row]:
    name, split = tfds.name_and_split(source, data.split)
    builder = _builder(source, data)
    classes = {} if task == "multiple-choice" else tfds.class_names(builder)
    secret = known.UNLABELLED if known.is_known(builder.info.full_name) else None
    for number, row in tfds.tfds_rows(builder, lambda there, where: _flat(find(tuple(there), where)), split):
        where = f"tfds:{name}, row {number}"
        plain = {column: _plain(value, where) for column, value in row.items()}
        plain |= {column: _class_name(plain[column], names) for column, names in classes.items() if column in plain}
        yield where, {column: None if column == "label" and value == secret else value for column, value in plain.items()}


def _finder(given: Columns, roles: tuple[str, ...], required: tuple[str, ...], codes: Mapping[str, str]) -> Find:
    @functools.lru_cache(maxsize=256)
    def found(there: tuple[Any, ...]) -> Columns:
        return find_columns({**parallel.language_columns(codes, roles, there), **given}, roles, there)

    def find(there: Sequence[Any], where: str) -> Columns:
        columns = found(tuple(there))
        for role in required:
            if role not in columns:
                what = f"column {_shown(given[role])}" if role in given else f"column for {role}"
                mend = known.spelled({each: columns.get(each) for each in required})
                mend = f"set {mend}, NAME a number where the first line is no header"
                mend += f", or name a file of targets too, as in data.source=SOURCES{parallel.BETWEEN}TARGETS" * (role == "target")
                raise DataError(f"{where} has no {what}: its columns are {', '.join(map(str, there)) or 'none'}; {mend}")
        return columns

    return find


def find_columns(given: Columns, roles: tuple[str, ...], there: tuple[Any, ...]) -> Columns:
    """Role -> those of its columns that are there: the given ones of a role that has some, else by their usual names."""
    named = {role: columns for role, columns in given.items() if all(column in there for column in _listed(columns))}
    return named | _usual_columns(tuple(role for role in roles if role not in given), there)


def _usual_columns(roles: tuple[str, ...], there: tuple[Any, ...]) -> Columns:
    """Role -> column by the names that columns usually have, in upper or lower case."""
    names = {name.casefold(): name for name in there if isinstance(name, str)}
    found: dict[str, Any] = {role: names[role] for role in roles if role in names}
    if "text" in roles and "pair" in roles and not found.keys() & {"text", "pair"}:
        both = next((pair for pair in PAIRS if names.keys() >= set(pair)), ())
        found |= {role: names[name] for role, name in zip(("text", "pair"), both, strict=False)}
    numbered = sorted((int(match[1]), name) for name in names if (match := NUMBERED.fullmatch(name)))
    if "choices" in roles and numbered and "choices" not in found:
        found["choices"] = tuple(names[name] for _, name in numbered)
    for role in roles:
        usual = next((names[name] for name in USUAL.get(role, ()) if name in names), None)
        if role not in found and usual is not None:
            found[role] = usual
    return found


def _listed(columns: Any) -> tuple[Any, ...]:
    return columns if isinstance(columns, tuple) else (columns,)


def _flat(columns: Columns) -> list[Any]:
    return list(dict.fromkeys(column for several in columns.values() for column in _listed(several)))


def _shown(columns: Any) -> str:
    return " + ".join(map(str, _listed(columns)))


def read_row(row: Mapping[Any, Any], columns: Columns, where: str) -> dict[str, Any]:
    """role -> value of a row's cells, without the empty ones; of several columns the texts and numbers with blanks between.

    Raises DataError for a cell of a type that its role cannot have.
    """
    record = {}
    for role, names in columns.items():
        cells = [row[name] for name in _listed(names)]
        several = cells if role == "choices" else _joined(cells)
        value = several if isinstance(names, tuple) else cells[0]
        if value is not None and not _fits(CELLS.get(role), value):
            wanted = f"{CELLS[role]}: mend it, or name another column"
            raise DataError(f"{where}: {_shown(names)}, the column for {role}, holds {value!r:.40}, no {wanted}")
        record[role] = None if role == "label" and value == "" else value
    return {role: value for role, value in record.items() if value is not None}


def _joined(cells: list[Any]) -> Any:
    """The cells as one text; as they are where one is more than a text or a number, so that it is refused."""
    plain = all(isinstance(cell, str | int | float | None) for cell in cells)
    return " ".join(str(cell) for cell in cells if cell not in (None, "")) if plain else cells


def _fits(kind: str | None, value: Any) -> bool:
    if kind == "text" or isinstance(value, str):
        return isinstance(value, str)
    if kind == "list of words":
        return isinstance(value, list) and all(isinstance(word, str | int | float) for word in value)
    labels = value if isinstance(value, list) else [value]
    return kind is None or not any(isinstance(label, list | dict | bytes | None) for label in labels)


def _as_names(value: Any) -> Any:
    """A label, or each of several, as a string; JSON's true and false as JSON spells them."""
    if isinstance(value, list):
        return [_as_names(each) for each in value]
    return str(value).lower() if isinstance(value, bool) else value if value is None else str(value)


def _class_name(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_class_name(each, names) for each in value]
    return names[value] if 0 <= value < len(names) else None


def _plain(value: Any, where: str) -> Any:
    """TFDS's NumPy values and bytes as what JSON knows."""
    if isinstance(value, dict):
        return {name: _plain(each, where) for name, each in value.items()}
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where} is not UTF-8 text ({error.reason}): mend the data") from error
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return [_plain(each, where) for each in value] if isinstance(value, list) else value
