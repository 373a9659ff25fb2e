"""Data sets of TFDS that need no telling: which columns hold what, and for which task. Read next: `tfds.py`, `records.py`."""

import dataclasses
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxlm.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Known:
    """A task, and the columns of its roles; of several columns the texts are joined by a blank (choices: listed)."""

    task: str
    columns: Mapping[str, str | tuple[str, ...]]


def _classified(text: str | tuple[str, ...], pair: str | tuple[str, ...] | None = None) -> Known:
    columns = {"text": text, "label": "label"} if pair is None else {"text": text, "pair": pair, "label": "label"}
    return Known("sequence-classification", columns)


_SENTENCE, _SENTENCES, _INFERENCE = _classified("sentence"), _classified("sentence1", "sentence2"), _classified("premise", "hypothesis")
_SQUAD = Known("question-answering", {name: name for name in ("id", "question", "context", "answers")})

# Name, with the configuration where the set's differ -> what it is.
KNOWN = {
    "glue/cola": _SENTENCE,
    "glue/sst2": _SENTENCE,
    "glue/mrpc": _SENTENCES,
    "glue/qqp": _classified("question1", "question2"),
    "glue/stsb": _SENTENCES,  # with records.kind=regression
    "glue/mnli": _INFERENCE,
    "glue/mnli_matched": _INFERENCE,
    "glue/mnli_mismatched": _INFERENCE,
    "glue/qnli": _classified("question", "sentence"),
    "glue/rte": _SENTENCES,
    "glue/wnli": _SENTENCES,
    "glue/ax": _INFERENCE,
    "super_glue/axb": _SENTENCES,
    "super_glue/axg": _INFERENCE,
    "super_glue/boolq": _classified("question", "passage"),
    "super_glue/cb": _INFERENCE,
    "super_glue/copa": Known("multiple-choice", {"text": ("premise", "question"), "choices": ("choice1", "choice2"), "label": "label"}),
    "super_glue/multirc": _classified("paragraph", ("question", "answer")),
    "super_glue/rte": _INFERENCE,
    "super_glue/wic": _classified(("word", "sentence1"), "sentence2"),
    "imdb_reviews": _classified("text"),
    "ag_news_subset": _classified(("title", "description")),
    "squad": _SQUAD,
    "conll2003": Known("token-classification", {"tokens": "tokens", "tags": "ner"}),
}
_WMT = ("wmt_t2t_translate", *(f"wmt{year}_translate" for year in range(13, 20)))
# The same of pairs; the columns of a translation are its languages, and which of them is the source has to be said.
PAIRS = {
    "cnn_dailymail": Known("summarization", {"source": "article", "target": "highlights"}),
    "xsum": Known("summarization", {"source": "document", "target": "summary"}),
    "samsum": Known("summarization", {"source": "dialogue", "target": "summary"}),
    **dict.fromkeys((*_WMT, "ted_hrlr_translate"), Known("translation", {})),
}
# Tasks of pairs; the first takes the sets of all.
PAIR_TASKS = ("text-to-text", "translation", "summarization")
# Two languages as a configuration of ted_hrlr_translate names them -> the column of both.
MIXED = {"aztr": "az_tr", "beru": "be_ru", "glpt": "gl_pt"}
# Task -> the roles that a labelled record of it has.
ROLES = {
    "sequence-classification": ("text", "label"),
    "token-classification": ("tokens", "tags"),
    "question-answering": ("question", "context", "answers"),
    "multiple-choice": ("text", "choices", "label"),
    **dict.fromkeys(PAIR_TASKS, ("source", "target")),
}
# Sets that fit no task -> why.
UNFIT = {
    "super_glue/record": "its queries have a gap that any of several entities of the passage may fill",
    "super_glue/wsc": "its labels are about two marked spans of the text",
    "super_glue/wsc.fixed": "its labels are about two marked spans of the text",
}
# Sets of documents -> the column of their texts.
DOCUMENTS = {"lm1b": "text", "wiki40b": "text", "c4": "text", "imdb_reviews": "text", "ag_news_subset": "description", "squad": "context"}
# Splits that a set calls otherwise.
SPLITS = {"glue/mnli": {"validation": "validation_matched", "test": "test_matched"}}
# What a configuration is called for short -> its name in TFDS.
SHORT = {"squad/v1": "squad/v1.1", "squad/v2": "squad/v2.0"}
EMPTY: Mapping[str, str] = MappingProxyType({})
UNLABELLED = -1  # the label, a class or a number, of rows whose label is kept secret


def published(name: str) -> str:
    """The name of a set, with its version if any, as TFDS spells it.

    >>> published("squad/v2"), published("squad/v2:3.0.0"), published("glue/sst2")
    ('squad/v2.0', 'squad/v2.0:3.0.0', 'glue/sst2')
    """
    base, colon, version = name.partition(":")
    return SHORT.get(base, base) + colon + version


def split_of(full_name: str, split: str) -> str:
    """The split, or slice of one, as this set calls it.

    >>> split_of("glue/mnli/2.0.0", "validation[:10%]"), split_of("glue/mnli/2.0.0", "train")
    ('validation_matched[:10%]', 'train')
    """
    name, bracket, rest = split.partition("[")
    return (_row(SPLITS, full_name) or {}).get(name, name) + bracket + rest


def text_column(full_name: str) -> str | None:
    """The column that holds the documents of a known set."""
    return _row(DOCUMENTS, full_name)


def is_known(full_name: str) -> bool:
    """Is it a set of labelled records that this table knows?"""
    return _row(KNOWN, full_name) is not None


def known_columns(full_name: str, task: str, languages: Mapping[str, str] = EMPTY) -> Mapping[str, str | tuple[str, ...]]:
    """Role -> column, or columns, of a set `NAME[/CONFIG]/VERSION`; empty where it is not known.

    Args:
      languages: role -> code of its language; a translation goes by them, else from the first of its configuration to the second.

    Raises DataError for a set that fits no task, ConfigError for one of another task or without these languages.
    """
    why, found = _row(UNFIT, full_name), _row(KNOWN | PAIRS, full_name)
    mend = f"name its columns by {spelled(dict.fromkeys(ROLES.get(task, ROLES['sequence-classification'])))}"
    if why:
        raise DataError(f"tfds:{full_name} fits no task here, for {why}: write it as jsonl of a task, or {mend}")
    if found is None:
        return {}
    if not _fits(found, task):
        raise ConfigError(f"tfds:{full_name} is a set for task={found.task}, not {task}: set task={found.task}, or {mend}")
    return found.columns or _direction(full_name.rpartition("/")[0], languages)


def _fits(found: Known, task: str) -> bool:
    return found.task == task or (task == PAIR_TASKS[0] and found.task in PAIR_TASKS)


def columns_by_name(name: str, task: str, languages: Mapping[str, str] = EMPTY) -> Mapping[str, str | tuple[str, ...]]:
    """The same of a name, or of the folder of a version, that nobody has to open; empty where it is none of the task.

    >>> columns_by_name("glue/sst2:2.0.0", "sequence-classification") == columns_by_name("/x/glue/sst2/2.0.0", "sequence-classification")
    True
    """
    parts = Path(published(name).partition(":")[0]).parts
    parts = parts[:-1] if name.startswith(("/", "~", ".")) else parts
    names, table = ("/".join(parts[-2:]), *parts[-1:], *parts[-2:-1]), KNOWN | PAIRS
    found = next((table[name] for name in names if name in table), None)
    return (found.columns or _direction(names[0], languages)) if found and _fits(found, task) else {}


def _direction(name: str, languages: Mapping[str, str]) -> Mapping[str, str]:
    """Role -> the column of its language, of a set of translations `NAME/CONFIG`."""
    there = config_languages(name.rpartition("/")[2])
    if len(there) != 2:
        return {}
    found = {role: column_of(code, there) for role, code in languages.items()}
    for role, column in found.items():
        if column is None:
            key, both = f"records.{role}_language", " and ".join(there)
            raise ConfigError(
                f"tfds:{name} has the languages {both}: {key}={languages[role]} is neither: set {key}={there[0]} or {there[1]}"
            )
    other = lambda column: there[column == there[0]]
    source = found.get("source") or (other(found["target"]) if "target" in found else there[0])
    target = found.get("target") or other(source)
    if source == target:
        raise ConfigError(f"tfds:{name}: records.source_language and records.target_language are both {source}: set one to {other(source)}")
    return {"source": source, "target": target}


def config_languages(config: str) -> tuple[str, ...]:
    """The languages, which are the columns, of a configuration of a set of translations, the source first.

    >>> config_languages("de-en"), config_languages("aztr_to_en")
    (('de', 'en'), ('az_tr', 'en'))
    """
    return tuple(MIXED.get(code, code) for code in re.split("-|_to_", config))


def column_of(code: str, there: Iterable[Any]) -> str | None:
    """The column that is called by a language; a tokenizer's code such as "en_XX" is also its language, "en".

    >>> column_of("en_XX", ["id", "de", "EN"])
    'EN'
    """
    names = {name.casefold(): name for name in there if isinstance(name, str)}
    short = re.split("[-_]", code)[0]
    return names.get(code.casefold()) or names.get(short.casefold())


def spelled(columns: Mapping[str, Any]) -> str:
    """`records.columns` with these columns as it stands in a shell; NAME is for those to fill in, which are None here.

    >>> print(spelled({"text": ("title", "body"), "label": None}))
    'records.columns=(("text",("title","body")),("label","NAME"))'
    """
    filled = {role: ("NAME", "NAME") if role == "choices" else "NAME" for role, column in columns.items() if column is None}
    return shlex.quote("records.columns=" + _literal(tuple({**columns, **filled}.items())))


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({','.join(map(_literal, value))}{',' * (len(value) == 1)})"
    return json.dumps(value, ensure_ascii=False)


def _row(table: Mapping[str, Any], full_name: str) -> Any:
    """Of `NAME/CONFIG/VERSION` or `NAME/VERSION`: the row of the first, else the one of NAME."""
    name = full_name.rpartition("/")[0]
    return table.get(name, table.get(name.partition("/")[0]))
