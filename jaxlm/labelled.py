"""From labelled records to stores of examples: read, divided into what is trained on and what is held out, made by the task, kept.

Read first: `data/records.py`, `data/selection.py`, a task over records such as `tasks/sequence_classification.py`. Read next:
`data/example_batches.py`.
"""

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.atomic import one_at_a_time
from jaxlm.config import Run
from jaxlm.data import selection, sources
from jaxlm.data.examples import FORMAT, Examples, open_examples, write_examples
from jaxlm.data.records import class_order, named_columns, read_records
from jaxlm.data.shards import digest_of
from jaxlm.described import describe
from jaxlm.errors import ConfigError, DataError
from jaxlm.overrides import choose
from jaxlm.tasks import task_named
from jaxlm.tasks.pair_sides import Unfit
from jaxlm.text.tokenizer import Tokenizer

Say = Callable[[str], None]
Numbered = Iterator[tuple[str, dict[str, Any]]]  # (where, record)
SPLITS = ("train", "validation", "test")
KEYS = {"train": "data.source=", "validation": "data.validation_source=", "test": "data.test_source="}
TEXTS = ("text", "pair", "question", "context", "source", "target")  # roles that hold text
MODEL_KINDS = {"one": "single_label_classification", "several": "multi_label_classification", "regression": "regression"}


def entries(run: Run) -> list[tuple[str, float, str | None]]:
    """The run's sources: each with its weight in a mixture, and the prefix that it names.

    Raises ConfigError for what is neither, and for the prefix of a running text.
    """
    source = run.data.source
    if isinstance(source, str):
        return [(source, 1.0, None)]
    given = [(*entry, None)[:3] if isinstance(entry, tuple) and len(entry) in (2, 3) else () for entry in source or ((),)]
    if not all(given):
        raise ConfigError(
            f"data.source={source!r} is neither a name nor a mixture ((source, weight), ...), of pairs (source, weight, prefix)"
        )
    if any(prefix is not None for *_, prefix in given) and not hasattr(task_named(run.task), "make_sides"):
        raise ConfigError(f"data.source={source!r}: prefixes are for tasks over pairs, and task={run.task} is none: leave them out")
    return [(name, float(weight), prefix) for name, weight, prefix in given]


def parts(run: Run) -> list[Run]:
    """The run, or of a mixture of pairs one for each source, with the prefix that it names; validation records are the first one's."""
    if isinstance(run.data.source, str) or not hasattr(task_named(run.task), "make_sides"):
        source_of(run, "train")
        return [run]
    found = []
    for name, _, prefix in entries(run):
        once = {"validation_source": None, "validation": 0.0} if found and run.data.validation_source else {}
        records = run.records if prefix is None else dataclasses.replace(run.records, prefix=prefix)
        found.append(dataclasses.replace(run, data=dataclasses.replace(run.data, source=name, **once), records=records))
    return found


def source_of(run: Run, split: str) -> str:
    """The source of a split. Raises ConfigError for a mixture."""
    source = {"train": run.data.source, "validation": run.data.validation_source, "test": run.data.test_source}[split]
    if not isinstance(source, str):
        raise ConfigError(f"data.source={source!r}: task={run.task} takes one source of records here, not a mixture")
    return source


def read_split(run: Run, split: str) -> Numbered:
    """The labelled records of a split that has a source, before they are divided."""
    task, source = task_named(run.task), source_of(run, split)
    wanted = task.REQUIRED
    if split == "train":  # a column that is named, and not there, is a slip of the pen
        wanted = tuple(dict.fromkeys((*getattr(task, "LABELLED", wanted), *named_columns(run.records))))
    with _of(split):
        yield from read_records(source, run.task, run.data, run.records, task.ROLES, wanted)


def read_texts(run: Run, roles: tuple[str, ...] = TEXTS) -> Iterator[str]:
    """The texts of the records that are trained on, of some roles, for a tokenizer to learn from.

    Of the folds of a cross-validation they are one run's that holds none out: folds share a tokenizer, so that they can be one ensemble.
    """
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, fold=()))
    usual = lambda record: [text for role in roles for text in _texts_in(record.get(role))]
    texts = getattr(task_named(run.task), "texts", usual)
    for part in parts(run):
        yield from [part.records.prefix] if "source" in roles else []
        for side, (where, record) in zip(_sides(part), read_split(part, "train"), strict=True):
            with _at(where):
                found = texts(record) if side == selection.TRAIN else []
            yield from found


def _texts_in(value: Any) -> list[str]:
    """A text, or the different ones of a list or of SQuAD's {"text": [...]}."""
    several = value.get("text") if isinstance(value, dict) else value
    return list(dict.fromkeys(text for text in (several if isinstance(several, list) else [several]) if isinstance(text, str)))


def find_labels(run: Run) -> tuple[str, ...]:
    """The names of the labels in the training records: in the order of a TFDS set's own ids, as numbers, or by the alphabet.

    Raises DataError where there are fewer than two, or numbers with a fraction, which are no classes.
    """
    task, found = task_named(run.task), set()
    for where, record in read_split(run, "train"):
        with _at(where):
            found.update(task.label_names(record, run.records))
    if len(found) < 2 and run.records.kind == "one":
        raise DataError(f"the records of {run.data.source} have {len(found)} different labels: a classification needs two at least")
    if all(re.fullmatch(r"-?\d*\.?\d+(e-?\d+)?", name) for name in found) and any("." in name for name in found):
        raise DataError(f"the labels of {run.data.source} are numbers such as {max(found, key=len)}: set records.kind=regression")
    known = class_order(run.data.source, run.data, run.records, run.task)
    if known is not None and found <= set(known):
        return known
    whole = all(re.fullmatch("-?[0-9]+", name) for name in found)
    return tuple(sorted(found, key=(lambda name: (int(name), name)) if whole else None))


def resolve_records(run: Run) -> Run:
    """The run with its labels, and the model with their number and names."""
    if not hasattr(task_named(run.task), "label_names"):
        return run
    choose("records.kind", run.records.kind, MODEL_KINDS)
    if run.records.kind == "regression":
        labels: tuple[str, ...] = ()
    else:
        labels = run.records.labels or find_labels(run)
    if len(set(labels)) < len(labels):
        raise ConfigError(f"records.labels={list(labels)!r} names a label twice: leave one of them out")
    extra = {**run.model.extra} | ({"problem_type": MODEL_KINDS[run.records.kind]} if run.task == "sequence-classification" else {})
    if labels:
        extra |= {"id2label": {str(i): name for i, name in enumerate(labels)}, "label2id": {name: i for i, name in enumerate(labels)}}
    model = dataclasses.replace(run.model, num_labels=max(1, len(labels)), extra=type(run.model.extra)(extra))
    return dataclasses.replace(run, model=model, records=dataclasses.replace(run.records, labels=labels))


def make_examples(run: Run, tokenizer: Tokenizer, say: Say, split: str = "train") -> tuple[Examples, Examples | None]:
    """The examples of a resolved run: those that are trained on, and those that are held out (None: none are).

    `split="test"` gives the test examples, and None. They are found in the cache, or made now; truncation is counted and said.
    Raises DataError naming file and line of a record that cannot be an example.
    """
    divided = split == "train"
    folder = Path(run.data.cache).expanduser() / "examples" / _key(run, tokenizer, split)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            _build(folder, run, tokenizer, _sides(run) if divided else None, split)
    train, held = open_examples(folder / "train"), folder / "validation"
    if divided and run.data.validation_source and not run.data.fold:
        validation, _ = make_examples(run, tokenizer, say, "validation")
    else:
        validation = open_examples(held) if held.is_dir() else None
    say(describe(train, split, run))
    if not len(train):
        raise DataError(f"{source_of(run, split)}: there is no example: every record was left out, or the source is empty")
    if divided and held.is_dir():
        say(describe(validation, "validation", run))
    return train, validation


def _key(run: Run, tokenizer: Tokenizer, split: str) -> str:
    """A digest of all that a split's examples depend on."""
    data, source = run.data, source_of(run, split)
    divided = [data.validation, data.fraction, data.fold, data.validation_source is None] if split == "train" else []
    options = dataclasses.replace(run.records, noise=0.0, null_threshold=0.0, n_best=0)  # of no meaning to the examples
    with _of(split):
        marks = [sources.fingerprint(source, data.data_dir), data.split]
    task = [run.task, dataclasses.asdict(options), data.sequence_length, data.target_length, tokenizer.digest]
    return digest_of("examples", FORMAT, split, source, *marks, *divided, *task)


def _sides(run: Run) -> np.ndarray:
    """Where every training record goes."""
    task, hashes, strata = task_named(run.task), [], []
    of = getattr(task, "stratum", lambda record, options: "")
    for where, record in read_split(run, "train"):
        with _at(where):
            hashes.append(selection.record_hash(record))
            strata.append(of(record, run.records))
    return selection.select(hashes, strata, run.data)


def _build(folder: Path, run: Run, tokenizer: Tokenizer, sides: np.ndarray | None, split: str) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    wanted = {"train": selection.TRAIN, "validation": selection.HELD} if sides is not None else {"train": None}
    for name, side in wanted.items():
        if side is None or (sides == side).any() or name == "train":
            mine = lambda number, side=side: side is None or sides[number] == side
            about = {"task": run.task, "tokenizer": tokenizer.digest}
            numbered = ((n, *pair) for n, pair in enumerate(read_split(run, split)) if mine(n))
            made = run if name == split else to_be_measured(run)
            write_examples(partial / name, make_features(numbered, made, tokenizer, sides is not None, about), about)
    partial.rename(folder)


def to_be_measured(run: Run) -> Run:
    """The run for records that it does not learn from: no pair is too odd to be measured, only to be learnt."""
    return dataclasses.replace(run, records=dataclasses.replace(run.records, ratio=None))


def make_features(
    records: Iterable[tuple[int, str, dict]], run: Run, tokenizer: Tokenizer, labelled: bool = False, notes: dict | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, example) of every (number, where, record).

    Args:
      labelled: a record without a label is refused.
      notes: here goes what `describe` tells of records without a label, of pairs that were left out, being unfit, under `records.skip`,
        and of what was cut; None: those are refused.
    """
    task, spelled = task_named(run.task), _spelled(run, tokenizer)
    for number, where, record in records:
        with _at(where):
            known = _is_labelled(task, record)
            if labelled and not known:
                raise DataError("the record has no label: give it one, or leave it out")
            if notes is not None and not known:
                notes["unlabelled"] = notes.get("unlabelled", 0) + 1
            try:
                made = task.features(record, spelled, run.records, run.data.sequence_length)
            except Unfit as unfit:
                if notes is None or not run.records.skip:
                    raise
                left, made = notes.setdefault("unfit", {}), []
                kind = left.setdefault(unfit.kind, {"pairs": 0, "first": where})
                kind["pairs"] += 1
        for example in made:
            if example["cut"] and notes is not None:
                cut = notes.setdefault("cut", {"first": where, "targets": 0})
                cut["targets"] += example.get("target_cut", 0)
            yield number, example


def _is_labelled(task: Any, record: dict[str, Any]) -> bool:
    """Whether a record has what is learnt from it; of pairs their examples tell."""
    roles = () if hasattr(task, "make_sides") else getattr(task, "LABELLED", ())
    usual = lambda record: all(record.get(role) not in (None, "") for role in roles)
    return getattr(task, "is_labelled", usual)(record)


def _spelled(run: Run, tokenizer: Tokenizer) -> Any:
    """What a task spells texts by: the tokenizer, or of pairs both sides of it."""
    make_sides = getattr(task_named(run.task), "make_sides", None)
    return tokenizer if make_sides is None else make_sides(tokenizer, tokenizer.as_target(), run)


@contextlib.contextmanager
def _at(where: str) -> Iterator[None]:
    """Put the place of a record in front of what is wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


@contextlib.contextmanager
def _of(split: str) -> Iterator[None]:
    """Name the key of a split's source in what is wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace("data.source=", KEYS[split], 1)) from error
