"""Several runs of one configuration: cross-validation by folds, learning curves by fractions of the data.

Each is a run of its own, in a folder of the run directory, and is resumed like any other. Read first: `data/selection.py`, which
divides the records; `finished.py`.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxlm.atomic import write_atomically
from jaxlm.config import Records, Run
from jaxlm.errors import ConfigError
from jaxlm.finished import Found, Wanted, evaluate
from jaxlm.runs import read_run
from jaxlm.tasks import task_named

Say = Callable[[str], None]
OUT_OF_FOLD, RESULTS = "out_of_fold.jsonl", "study.json"


def study(run: Run, train: Callable[[Run], Any], say: Say) -> None:
    """Train every run of a study, measure each, and keep the results: `study.json`, and of folds `out_of_fold.jsonl`.

    Args:
      train: trains one run, or finds it done.
    """
    parts = divide(run)
    for name, part in parts:
        say(f"\n--- {name} ---")
        train(part)
    if jax.process_index() == 0:
        split = "validation" if run.folds or run.data.test_source is None else "test"
        found = {name: evaluate(Wanted((part.workdir,), split), say) for name, part in parts}
        rows = {name: one.metrics for name, one in found.items()} | (_over_folds(run, found) if run.folds else {})
        write_atomically(Path(run.workdir, RESULTS), json.dumps(rows, indent=1).encode())
        say("\n".join(["", *table(rows)]))


def divide(run: Run) -> list[tuple[str, Run]]:
    """The runs of a study, each with its name. Raises ConfigError for a study that cannot be."""
    if not task_named(run.task).RECORDS:
        raise ConfigError(f"folds and fractions divide labelled records; task={run.task} learns from running text: leave them out")
    if run.folds and run.fractions:
        raise ConfigError("folds and fractions are two studies: give one of them")
    if run.folds == 1 or run.folds < 0 or run.data.fold:
        raise ConfigError(f"folds={run.folds}, data.fold={list(run.data.fold)}: give folds=5 alone, or data.fold=[0,5] for one of its runs")
    if run.folds:
        return [(f"fold-{k}", _part(run, f"fold-{k}", fold=(k, run.folds))) for k in range(run.folds)]
    if len({f"{share:g}" for share in run.fractions}) < len(run.fractions) or not all(0 < share <= 1 for share in run.fractions):
        raise ConfigError(f"fractions={list(run.fractions)}: each is more than 0 and at most 1, and there once")
    return [(f"fraction-{share:g}", _part(run, f"fraction-{share:g}", fraction=float(share))) for share in run.fractions]


def _part(run: Run, name: str, **data: Any) -> Run:
    """One run of a study. Without early stopping a fold is measured once, at its end: choosing the best checkpoint by the very
    records that it is measured on would flatter it."""
    changed = dataclasses.replace(run.data, **data)
    once = run.folds and run.evaluation.patience is None
    evaluation = dataclasses.replace(run.evaluation, every=sys.maxsize) if once else run.evaluation
    return dataclasses.replace(run, workdir=str(Path(run.workdir) / name), folds=0, fractions=(), data=changed, evaluation=evaluation)


def _over_folds(run: Run, found: dict[str, Found]) -> dict[str, dict[str, float]]:
    """Mean and deviation over the folds, and the metrics of all records together, each by the run that had not seen it."""
    rows = [{"fold": k, **row} for k, one in enumerate(found.values()) for row in one.predictions]
    rows.sort(key=lambda row: row["record"])
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(Path(run.workdir, OUT_OF_FOLD), lines.encode())
    names = next(iter(found.values())).metrics
    over = lambda measure: {name: measure([one.metrics[name] for one in found.values()]) for name in names}
    outputs = [output for one in found.values() for output in one.outputs]
    labels = labels_of(Path(run.workdir, "fold-0"))
    task, examples = task_named(run.task), [row for one in found.values() for row in one.rows]
    together = {} if getattr(task, "GENERATES", False) else task.metrics(outputs, examples, labels)
    return {"mean": over(statistics.fmean), "deviation": over(statistics.stdev), "out of fold": together}


def labels_of(workdir: Path) -> Records:
    """How the records of a run became examples, its labels among it."""
    return read_run(workdir)[0].records


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Results as lines: a run a line, a metric a column."""
    names = list(next(iter(rows.values())))
    widths = [max(len(name), 7) for name in names]
    head = " ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    cell = lambda value, width: f"{'' if value is None else format(value, '.4f'):>{width}}"
    line = lambda values: " ".join(cell(values.get(name), width) for name, width in zip(names, widths, strict=True))
    return [f"{'':<14} {head}", *(f"{name:<14} {line(values)}" for name, values in rows.items())]
