"""Finished runs: what they predict for records, how good that is, and how far their probabilities can be trusted.

Several predictions of one example, by dropout or by several runs, become one; what they disagree about is its uncertainty. Read
first: `evaluation.py`, `explain/calibration.py`.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm import feeding, labelled
from jaxlm import outputs as texts
from jaxlm.config import Run
from jaxlm.data.example_batches import ExampleBatches
from jaxlm.data.examples import Examples, in_memory
from jaxlm.errors import ConfigError, DataError
from jaxlm.evaluation import Outputs, collect, generates, make_forward, make_validation, read_example, token_metrics
from jaxlm.explain import calibration
from jaxlm.overrides import override_some
from jaxlm.pretrained import load
from jaxlm.runs import is_run, read_run
from jaxlm.tasks import task_named
from jaxlm.text.sides import load_sides
from jaxlm.text.tokenizer import Tokenizer
from jaxlm.uncertainty import all_decisions, decide, pooled, with_uncertainty

Say = Callable[[str], None]
CALIBRATION = "calibration.json"  # in a run directory
CHANGEABLE = ("records.null_threshold", "records.n_best", "records.answer")  # how outputs are read
# how texts are written and scored, what stands before their sources, and whether odd pairs are left out
OF_TEXTS = ("evaluation.scores", "evaluation.max_new_tokens", "records.target_language", "records.prefix", "records.skip")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which runs are asked, about what."""

    directories: tuple[str, ...]
    split: str | None = "validation"  # None: records are given
    data: str | None = None  # a source in place of the split's
    samples: int = 0  # predictions under dropout; 0: one without
    batch_size: int | None = None
    calibrated: bool = True  # by the temperature that is kept in the run
    decoding: texts.Decoding = texts.Decoding()  # text to text
    against: str | None = None  # text to text: another run, or its outputs, to be compared with
    changes: tuple[str, ...] = ()  # "a.b=c", of the keys in CHANGEABLE, or OF_TEXTS


@dataclasses.dataclass(frozen=True)
class Found:
    """What came out: predictions one a record, and, of classes, their reliability."""

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]
    reliability: calibration.Reliability | None = None
    outputs: Outputs = dataclasses.field(default_factory=list)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # the examples of the outputs
    lines: tuple[str, ...] = ()  # what else is said of texts


@dataclasses.dataclass(frozen=True)
class Member:
    """One run, ready to predict: what `evaluation.py` needs of a problem."""

    directory: str
    run: Run
    model: Any
    params: Any
    tokenizer: Tokenizer
    step: int  # of the checkpoint
    mesh: None = None

    @property
    def task(self) -> Any:
        return task_named(self.run.task)

    def loss(self, params: Any, batch: Any, key: Any) -> tuple[jax.Array, jax.Array]:
        """The task's, without what only training needs."""
        return self.task.loss(self.model, params, batch, key, self.run.loss)


def open_member(directory: str, batch_size: int | None = None, changes: tuple[str, ...] = ()) -> Member:
    """A run with its best parameters, its outputs read as it says, or as `changes` do. Raises DataError where there is none."""
    path = Path(directory).expanduser()
    if path.is_dir() and not is_run(path) and any(path.glob("*.safetensors")):
        mend = "name a run; python -m jaxlm.convert RUN DIR --average N --run makes one of the mean of its checkpoints"
        raise DataError(f"{directory} is a model in Hugging Face's form, which names neither task nor data: {mend}")
    run, folder = read_run(directory)
    model, params = load(directory)
    step = int(folder.name)
    threshold = read_calibration(directory, step).get("null_threshold", run.records.null_threshold)
    records = dataclasses.replace(run.records, null_threshold=threshold)
    tokens = None if batch_size or not run.data.batch_tokens else run.data.batch_tokens // run.accumulate
    data = dataclasses.replace(run.data, batch_tokens=tokens)
    run = dataclasses.replace(run, accumulate=1, batch_size=batch_size or run.batch_size, data=data, records=records)
    run = override_some(run, changes, OF_TEXTS if generates(task_named(run.task)) else CHANGEABLE)
    return Member(directory, run, model, params, load_sides(directory), step)


def open_members(wanted: Wanted) -> list[Member]:
    """All runs, which must be of one task, one set of labels and one tokenizer, and must have held out the same records."""
    members = [open_member(directory, wanted.batch_size, wanted.changes) for directory in wanted.directories]
    marks = [_marks(member, wanted) for member in members]
    for member, mark in zip(members, marks, strict=True):
        for what in mark:
            if mark[what] != marks[0][what]:
                both = f"{member.directory} and {members[0].directory}"
                raise ConfigError(f"{both} differ in their {what}: an ensemble is of runs that agree")
    return members


def _marks(member: Member, wanted: Wanted) -> dict[str, Any]:
    records, data = member.run.records, member.run.data
    marks = {"task": member.run.task, "labels": (records.kind, records.scheme, records.labels), "tokenizer": member.tokenizer.digest}
    marks["data.sequence_length"] = data.sequence_length
    if wanted.split == "validation" and not wanted.data:
        marks["held-out records"] = (data.source, data.validation, data.validation_source, data.fold)
    return marks


def evaluate(wanted: Wanted, say: Say) -> Found:
    """The metrics of a split, and the predictions behind them. Raises DataError for a split without labels, or that is not there."""
    members = open_members(wanted)
    first = members[0]
    if wanted.split not in labelled.SPLITS:
        raise ConfigError(f"--split {wanted.split}: the splits are {', '.join(labelled.SPLITS)}")
    check_wanted(members, wanted)
    if not first.task.RECORDS:
        return Found(_of_documents(first, wanted, say), [])
    if generates(first.task):
        return _of_texts(first, wanted, say)
    examples = split_examples(first, wanted, say)
    rows = [read_example(examples, i) for i in range(len(examples))]
    samples, losses = predict_examples(members, examples, wanted, say)
    if None in losses:
        raise DataError(f"{_where(wanted)} have no labels: nothing can be measured; python -m jaxlm.predict only predicts")
    outputs = pooled(samples, rows, first.task, first.run.records)
    metrics = {"loss": float(np.mean(losses)), **first.task.metrics(outputs, rows, first.run.records)}
    numbers = dict.fromkeys(map(int, examples.records))  # examples of one record are neighbours
    predictions = first.task.predictions(outputs, rows, first.run.records)
    predictions = [{"record": number, **row} for number, row in zip(numbers, predictions, strict=True)]
    if len(samples) > 1 and decide(first.task, outputs[0], rows[0], first.run.records) is None:
        say("predictions are the mean of several; spans and numbers are no classes, and have no entropy")
    return _with_trust(Found(metrics, predictions, None, outputs, rows), samples, first)


def _where(wanted: Wanted) -> str:
    return f"the records of {wanted.data}" if wanted.data else f"the {wanted.split} records"


def check_wanted(members: list[Member], wanted: Wanted) -> None:
    """Refuse options that a task has no use for."""
    task, name = members[0].task, members[0].run.task
    if wanted.samples < 0 or (wanted.batch_size is not None and wanted.batch_size < 1):
        raise ConfigError(f"--samples {wanted.samples}, --batch-size {wanted.batch_size}: samples are 0 or more, a batch has 1 or more")
    texts.check_decoding(wanted.decoding)
    if not generates(task) and (wanted.against or wanted.decoding != texts.Decoding()):
        raise ConfigError(f"--num-beams, --max-new-tokens and --against are of texts that are written; task={name} writes none")
    if (generates(task) or not task.RECORDS) and (len(members) > 1 or wanted.samples):
        what = "writes texts; --against DIR2 compares two runs" if task.RECORDS else "is measured by its loss"
        raise ConfigError(f"task={name} {what}: give one run, and no --samples")


def _of_texts(member: Member, wanted: Wanted, say: Say) -> Found:
    """Loss and scores of all examples with a target, and what is written for them."""
    texts.check_scores(member.run)
    write = lambda who, examples: texts.answer(who, who.params, examples, texts.chosen(examples), wanted.decoding)
    other = _opened(wanted)  # before anything is written: a slip is told at once
    examples = split_examples(member, wanted, say)
    theirs = write(other, split_examples(other, wanted, say))[0] if isinstance(other, Member) else other
    theirs = theirs and texts.beside(theirs, examples, wanted.against)
    answers, written = write(member, examples)
    found = texts.scores_of(answers, member.run)
    metrics = token_metrics(member, [examples], member.tokenizer)(member.params) | texts.corpus(found)
    lines = [texts.speed_line(written), *texts.told(found)]
    lines += texts.compared((answers, found), theirs, member.run, wanted.against) if theirs else []
    return Found(metrics, texts.rows_of(answers, found), lines=tuple(lines))


def _opened(wanted: Wanted) -> texts.Answers | Member | None:
    """What --against names: the outputs in a file, or a run that is to write them."""
    if wanted.against is None or Path(wanted.against).is_file():
        return wanted.against and texts.read_answers(Path(wanted.against))
    if wanted.against.endswith(".jsonl"):
        raise DataError(f"--against {wanted.against}: there is no such file")
    other = open_member(wanted.against, wanted.batch_size, wanted.changes)  # both write and are scored alike
    if not generates(other.task):
        raise ConfigError(f"--against {wanted.against}: its task={other.run.task} writes no texts")
    return other


def _asked(member: Member, wanted: Wanted, say: Say) -> Run:
    """The run, of a mixture with the prefix of its first source, unless another one is named."""
    run, prefix = labelled.parts(member.run)[0], "records.prefix"
    if any(change.startswith(prefix + "=") for change in wanted.changes):
        run = dataclasses.replace(run, records=member.run.records)
    if not isinstance(member.run.data.source, str):
        say(
            f"{member.directory} learnt a mixture: sources begin with {prefix}={run.records.prefix!r} (its first one's unless one is named)"
        )
    return run


def split_examples(member: Member, wanted: Wanted, say: Say) -> Examples:
    """The examples of a split of a run's data, of a mixture those of its first source, or of another source."""
    run = _asked(member, wanted, say)
    if wanted.data:
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, test_source=wanted.data))
    elif wanted.split == "test" and run.data.test_source is None:
        raise ConfigError(f"{member.directory} names no test data (data.test_source): give it, --data SOURCE")
    alone = wanted.split == "validation" and run.data.validation_source and not run.data.fold  # the training records are not read
    if wanted.data or wanted.split == "test" or alone:
        return labelled.make_examples(run, member.tokenizer, say, "test" if wanted.data or not alone else "validation")[0]
    train, held = labelled.make_examples(run, member.tokenizer, say)
    if wanted.split == "validation" and held is None:
        raise ConfigError(f"{member.directory} holds no records out: give a source, --data SOURCE")
    return train if wanted.split == "train" else held


def predict_examples(
    members: list[Member], examples: Examples, wanted: Wanted, say: Say = lambda text: None
) -> tuple[list[Outputs], list[float | None]]:
    """The outputs of every member, or of every dropout of every member, by its kept temperature, and their losses before that."""
    samples, losses = [], []
    for member in members:
        plan = feeding.plan_rows(member.run, examples, None)
        made = ExampleBatches(examples, plan, member.run.batch_size, None)
        forward = make_forward(member, wanted.samples > 0)
        temperature = read_calibration(member.directory, member.step).get("temperature", 1.0) if wanted.calibrated else 1.0
        if temperature != 1.0:
            say(f"{member.directory}: temperature {temperature:.3f}, as calibrated")
        for seed in range(max(1, wanted.samples)):
            outputs, loss = collect(member, made, forward, member.params, member.tokenizer, seed)
            samples.append([output / temperature for output in outputs])
            losses.append(loss)
    return samples, losses


def _with_trust(found: Found, samples: list[Outputs], member: Member) -> Found:
    """The same with calibration errors, and with the uncertainty of several predictions."""
    decisions = all_decisions(samples, found.rows, member.task, member.run.records)
    if decisions is None:
        return found
    known = decisions[1] >= 0
    shares, labels = calibration.to_probabilities(decisions[0])[:, known], decisions[1][known]
    mean, predictions = calibration.mean_probabilities(shares), found.predictions
    metrics = found.metrics | {
        "calibration_error": calibration.expected_calibration_error(mean, labels),
        "brier": calibration.brier(mean, labels),
        "negative_log_likelihood": calibration.negative_log_likelihood(mean, labels),
    }
    if len(samples) > 1:
        metrics["predictive_entropy"] = float(calibration.predictive_entropy(shares).mean())
        metrics["mutual_information"] = float(calibration.mutual_information(shares).mean())
        predictions = with_uncertainty(predictions, samples, found.rows, member.task, member.run.records)
    return dataclasses.replace(found, metrics=metrics, predictions=predictions, reliability=calibration.reliability(mean, labels))


def read_calibration(directory: str, step: int) -> dict[str, float]:
    """What `calibrate` has kept for this checkpoint of a run; nothing where it was fitted to another."""
    path = Path(directory) / CALIBRATION
    kept = json.loads(path.read_text()) if path.is_file() else {}
    return kept if kept.get("step") == step else {}


def _of_documents(member: Member, wanted: Wanted, say: Say) -> dict[str, float]:
    """The loss over running text, of one run."""
    source = wanted.data or (member.run.data.test_source if wanted.split == "test" else None)
    if wanted.split == "test" and source is None:
        raise ConfigError(f"{member.directory} names no test data (data.test_source): give it, --data SOURCE")
    changed = {"source": source, "validation": 0.0} if source else {}
    data = dataclasses.replace(member.run.data, **changed)
    train, held = feeding.make_stores(dataclasses.replace(member.run, data=data), member.tokenizer, say)
    return make_validation(member, train if source or wanted.split == "train" else held, member.tokenizer)(member.params)


def predict_records(members: list[Member], records: Iterable[tuple[str, dict[str, Any]]], wanted: Wanted, say: Say) -> list[dict[str, Any]]:
    """A prediction for each (where, record), in order. Raises DataError naming the place of a record that cannot be predicted."""
    first = members[0]
    given, run = list(records), labelled.to_be_measured(first.run)
    made = list(labelled.make_features(((n, *pair) for n, pair in enumerate(given)), run, first.tokenizer))
    examples = in_memory(made)
    if examples.cut:
        where = next(given[n][0] for n, example in made if example["cut"])
        say(f"{examples.cut_records} records were cut to {first.run.data.sequence_length} tokens and lost {examples.cut}; first: {where}")
    if generates(first.task):
        sources = [examples.column("tokens", i) for i in range(len(examples))]
        return [{"output": text} for text in texts.write(first, first.params, sources, wanted.decoding).texts]
    rows = [read_example(examples, i) for i in range(len(examples))]
    samples, _ = predict_examples(members, examples, wanted)
    predictions = first.task.predictions(pooled(samples, rows, first.task, first.run.records), rows, first.run.records)
    return with_uncertainty(predictions, samples, rows, first.task, first.run.records) if len(samples) > 1 else predictions
