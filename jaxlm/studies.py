"""Several runs of one configuration: cross-validation by folds, learning curves by fractions of the data.

Each is a run of its own, in a folder of the run directory, and is resumed like any other. Read first: `data/selection.py`, which
divides the records; `finished.py`.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.config import Run
from jaxlm.errors import ConfigError
from jaxlm.finished import Found, Wanted, evaluate
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
    found = {name: evaluate(Wanted((part.workdir,), "validation" if run.folds else _split(part)), say) for name, part in parts}
    rows = {name: one.metrics for name, one in found.items()}
    if run.folds:
        rows |= _over_folds(run, found)
    Path(run.workdir, RESULTS).write_text(json.dumps(rows, indent=1))
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
    return [(f"fraction-{share:g}", _part(run, f"fraction-{share:g}", fraction=float(share))) for share in run.fractions]


def _part(run: Run, name: str, **data: Any) -> Run:
    changed = dataclasses.replace(run.data, **data)
    return dataclasses.replace(run, workdir=str(Path(run.workdir) / name), folds=0, fractions=(), data=changed)


def _split(run: Run) -> str:
    return "test" if run.data.test_source else "validation"


def _over_folds(run: Run, found: dict[str, Found]) -> dict[str, dict[str, float]]:
    """Mean and deviation over the folds; every record's prediction by the run that had not seen it is kept."""
    rows = [{"fold": k, **row} for k, one in enumerate(found.values()) for row in one.predictions]
    rows.sort(key=lambda row: row["record"])
    Path(run.workdir, OUT_OF_FOLD).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    names = next(iter(found.values())).metrics
    over = lambda measure: {name: measure([one.metrics[name] for one in found.values()]) for name in names}
    return {"mean": over(statistics.fmean), "deviation": over(statistics.stdev)}


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Results as lines: a run a line, a metric a column."""
    names = list(next(iter(rows.values())))
    widths = [max(len(name), 7) for name in names]
    head = " ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    line = lambda values: " ".join(f"{values[name]:>{width}.4f}" for name, width in zip(names, widths, strict=True))
    return [f"{'':<14} {head}", *(f"{name:<14} {line(values)}" for name, values in rows.items())]
