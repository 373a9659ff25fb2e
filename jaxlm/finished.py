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
from jaxlm.atomic import write_atomically
from jaxlm.config import Run
from jaxlm.data import example_batches
from jaxlm.data.example_batches import ExampleBatches
from jaxlm.data.examples import Examples, in_memory
from jaxlm.errors import ConfigError, DataError
from jaxlm.evaluation import Outputs, collect, make_forward, make_validation, read_example
from jaxlm.explain import calibration
from jaxlm.pretrained import load
from jaxlm.runs import read_run
from jaxlm.tasks import task_named
from jaxlm.text.tokenizer import Tokenizer, load_tokenizer

Say = Callable[[str], None]
CALIBRATION = "calibration.json"  # in a run directory


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which runs are asked, about what."""

    directories: tuple[str, ...]
    split: str = "validation"
    data: str | None = None  # a source in place of the split's
    samples: int = 0  # predictions under dropout; 0: one without
    batch_size: int | None = None
    calibrated: bool = True  # by the temperature that is kept in the run


@dataclasses.dataclass(frozen=True)
class Found:
    """What came out: predictions one a record, and, of classes, their reliability."""

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]
    reliability: calibration.Reliability | None = None


@dataclasses.dataclass(frozen=True)
class Member:
    """One run, ready to predict: what `evaluation.py` needs of a problem."""

    directory: str
    run: Run
    model: Any
    params: Any
    tokenizer: Tokenizer
    mesh: None = None

    @property
    def task(self) -> Any:
        return task_named(self.run.task)

    def loss(self, params: Any, batch: Any, key: Any) -> tuple[jax.Array, jax.Array]:
        """The task's, without what only training needs."""
        return self.task.loss(self.model, params, batch, key, self.run.loss)


def open_member(directory: str, batch_size: int | None = None) -> Member:
    """A run with its best parameters. Raises DataError where there is none."""
    run, _ = read_run(directory)
    model, params = load(directory)
    threshold = read_calibration(directory).get("null_threshold", run.records.null_threshold)
    records = dataclasses.replace(run.records, null_threshold=threshold)
    run = dataclasses.replace(run, accumulate=1, batch_size=batch_size or run.batch_size, records=records)
    return Member(directory, run, model, params, load_tokenizer(directory))


def open_members(wanted: Wanted) -> list[Member]:
    """All runs, which must be of one task, one set of labels and one tokenizer."""
    members = [open_member(directory, wanted.batch_size) for directory in wanted.directories]
    for member in members[1:]:
        for what, one, other in (
            ("task", members[0].run.task, member.run.task),
            ("labels", members[0].run.records.labels, member.run.records.labels),
            ("tokenizer", members[0].tokenizer.digest, member.tokenizer.digest),
        ):
            if one != other:
                raise ConfigError(
                    f"{member.directory} and {members[0].directory} differ in their {what}: an ensemble is of runs that agree"
                )
    return members


def evaluate(wanted: Wanted, say: Say) -> Found:
    """The metrics of a split, and the predictions behind them. Raises DataError for a split without labels, or that is not there."""
    members = open_members(wanted)
    first = members[0]
    if not first.task.RECORDS:
        return Found(_of_documents(members, wanted, say), [])
    examples = split_examples(first, wanted, say)
    rows = [read_example(examples, i) for i in range(len(examples))]
    samples, losses = predict_examples(members, examples, wanted)
    outputs = pooled(samples, first)
    metrics = first.task.metrics(outputs, rows, first.run.records)
    if not metrics:
        raise DataError(f"the {wanted.split} records have no labels: nothing can be measured; python -m jaxlm.predict only predicts")
    predictions = first.task.predictions(outputs, rows, first.run.records)
    numbers = dict.fromkeys(map(int, examples.records))  # examples of one record are neighbours
    predictions = [{"record": number, **row} for number, row in zip(numbers, predictions, strict=True)]
    found = Found({"loss": float(np.mean(losses)), **metrics}, predictions)
    return _with_trust(found, samples, rows, first)


def split_examples(member: Member, wanted: Wanted, say: Say) -> Examples:
    """The examples of a split of a run's data, or of another source."""
    run = member.run
    if wanted.data:
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, test_source=wanted.data))
        return labelled.make_examples(run, member.tokenizer, say, "test")[0]
    if wanted.split not in labelled.SPLITS:
        raise ConfigError(f"--split {wanted.split}: the splits are {', '.join(labelled.SPLITS)}")
    if wanted.split == "test":
        if run.data.test_source is None:
            raise ConfigError(f"{member.directory} names no test data (data.test_source): give it, --data SOURCE")
        return labelled.make_examples(run, member.tokenizer, say, "test")[0]
    train, held = labelled.make_examples(run, member.tokenizer, say)
    if wanted.split == "validation" and held is None:
        raise ConfigError(f"{member.directory} holds no records out: give a source, --data SOURCE")
    return train if wanted.split == "train" else held


def predict_examples(members: list[Member], examples: Examples, wanted: Wanted) -> tuple[list[Outputs], list[float]]:
    """The outputs of every member, or of every dropout of every member, in natural units (tempered), and their losses."""
    samples, losses = [], []
    for member in members:
        packing = member.run.data.packing or example_batches.PACKED
        plan = example_batches.plan(examples, packing, member.run.data.sequence_length, None)
        made = ExampleBatches(examples, plan, member.run.batch_size, None)
        forward, temperature = (
            make_forward(member, wanted.samples > 0),
            read_calibration(member.directory).get("temperature", 1.0) if wanted.calibrated else 1.0,
        )
        for seed in range(max(1, wanted.samples)):
            outputs, loss = collect(member, made, forward, member.params, member.tokenizer, seed)
            samples.append([output / temperature for output in outputs])
            losses.append(loss)
    return samples, losses


def pooled(samples: list[Outputs], member: Member) -> Outputs:
    """One output an example: the logarithm of the mean probability of classes, the mean of everything else."""
    if len(samples) == 1:
        return samples[0]
    classes = getattr(member.task, "CLASSES", False) and member.run.records.kind == "one"
    if not classes:
        return [np.mean(group, axis=0) for group in zip(*samples, strict=True)]
    tiny = np.finfo(np.float32).tiny
    return [np.log(np.maximum(calibration.to_probabilities(np.stack(group)).mean(0), tiny)) for group in zip(*samples, strict=True)]


def _with_trust(found: Found, samples: list[Outputs], rows: list[dict[str, Any]], member: Member) -> Found:
    """The same with calibration errors, and with the uncertainty of several predictions."""
    options = member.run.records
    if not getattr(member.task, "CLASSES", False) or options.kind != "one":
        return found
    logits, labels = labelled_logits(samples, rows)
    shares = calibration.to_probabilities(logits)
    mean = calibration.mean_probabilities(shares)
    metrics = found.metrics | {
        "calibration_error": calibration.expected_calibration_error(mean, labels),
        "brier": calibration.brier(mean, labels),
        "negative_log_likelihood": calibration.negative_log_likelihood(mean, labels),
    }
    predictions = found.predictions
    if len(samples) > 1:
        total, between = calibration.predictive_entropy(shares), calibration.mutual_information(shares)
        metrics |= {"predictive_entropy": float(total.mean()), "mutual_information": float(between.mean())}
        predictions = _with_uncertainty(predictions, samples)
    return Found(metrics, predictions, calibration.reliability(mean, labels))


def labelled_logits(samples: list[Outputs], rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Logits [K, N, C] and labels [N] of the tokens whose labels count."""
    counted = [np.flatnonzero(row["weights"] > 0) for row in rows]
    logits = [np.concatenate([output[at] for output, at in zip(outputs, counted, strict=True)]) for outputs in samples]
    labels = np.concatenate([row["labels"][at] for row, at in zip(rows, counted, strict=True)])
    return np.stack(logits).astype(np.float64), labels


def _with_uncertainty(predictions: list[dict[str, Any]], samples: list[Outputs]) -> list[dict[str, Any]]:
    """Of whole texts: what is uncertain about each, in nats."""
    if len(predictions) != len(samples[0]) or "label" not in predictions[0]:
        return predictions
    shares = calibration.to_probabilities(np.stack([[output[0] for output in outputs] for outputs in samples]))
    more = zip(calibration.predictive_entropy(shares), calibration.mutual_information(shares), strict=True)
    return [{**row, "entropy": float(h), "mutual_information": float(i)} for row, (h, i) in zip(predictions, more, strict=True)]


def calibrate(directory: str, wanted: Wanted, say: Say) -> str:
    """Fit a run's temperature, or of questions that may have no answer its null threshold, on its validation records, and keep it."""
    member = open_member(directory, wanted.batch_size)
    wanted = dataclasses.replace(wanted, split="validation", data=None, samples=0, calibrated=False)
    examples = split_examples(member, wanted, say)
    rows = [read_example(examples, i) for i in range(len(examples))]
    outputs = predict_examples([member], examples, wanted)[0][0]
    if member.run.records.unanswerable and hasattr(member.task, "fit_threshold"):
        threshold = member.task.fit_threshold(outputs, rows, member.run.records)
        kept, line = {"null_threshold": threshold}, f"null threshold {threshold:.3f}"
    else:
        kept, line = _temperature(directory, outputs, rows, member)
    write_atomically(Path(directory) / CALIBRATION, json.dumps(kept | {"examples": len(examples)}).encode())
    return f"{directory}: {line}"


def _temperature(directory: str, outputs: Outputs, rows: list[dict[str, Any]], member: Member) -> tuple[dict[str, float], str]:
    if not getattr(member.task, "CLASSES", False) or member.run.records.kind != "one":
        raise ConfigError(f"--calibrate fits probabilities of classes; {directory} (task={member.run.task}) has none")
    logits, labels = labelled_logits([outputs], rows)
    found = calibration.fit_temperature(logits[0], labels)
    error = lambda t: calibration.expected_calibration_error(calibration.to_probabilities(logits[0], t), labels)
    return {
        "temperature": found
    }, f"temperature {found:.3f}, calibration error on the validation records {error(1.0):.4f} -> {error(found):.4f}"


def read_calibration(directory: str) -> dict[str, float]:
    """What `calibrate` has kept in a run."""
    path = Path(directory) / CALIBRATION
    return json.loads(path.read_text()) if path.is_file() else {}


def reliability_lines(found: Found) -> list[str]:
    """The bins of confidence, drawn."""
    return ["", *calibration.draw(found.reliability).splitlines()] if found.reliability else []


def _of_documents(members: list[Member], wanted: Wanted, say: Say) -> dict[str, float]:
    """The loss over running text, of one run."""
    member = members[0]
    if len(members) > 1 or wanted.samples:
        raise ConfigError(f"task={member.run.task} is measured by its loss: give one run, and no --samples")
    source = wanted.data or (member.run.data.test_source if wanted.split == "test" else None)
    if wanted.split == "test" and source is None:
        raise ConfigError(f"{member.directory} names no test data (data.test_source): give it, --data SOURCE")
    run = member.run
    if source:
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, source=source, validation=0.0))
    train, held = feeding.make_stores(run, member.tokenizer, say)
    return make_validation(member, train if source or wanted.split == "train" else held, member.tokenizer)(member.params)


def predict_records(members: list[Member], records: Iterable[tuple[str, dict[str, Any]]], wanted: Wanted) -> list[dict[str, Any]]:
    """A prediction for each (where, record), in order. Raises DataError naming the place of a record that cannot be predicted."""
    first = members[0]
    examples = in_memory(list(labelled.make_features(((n, *pair) for n, pair in enumerate(records)), first.run, first.tokenizer)))
    rows = [read_example(examples, i) for i in range(len(examples))]
    samples, _ = predict_examples(members, examples, wanted)
    predictions = first.task.predictions(pooled(samples, first), rows, first.run.records)
    return _with_uncertainty(predictions, samples) if len(samples) > 1 else predictions
