"""The loop: dispatch step n + 1, then read the metrics of step n; evaluate, save, stop.

It is given everything as functions, and knows no model, no data and no file. Read next: `report.py`, then `train.py`.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxlm.config import Run
from jaxlm.errors import ConfigError, DivergenceError, Stopped
from jaxlm.training.trace import Trace

PATIENCE_FOR_NAN = 5  # different batches in a row whose loss or gradient is not finite


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    step: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    batches: Callable[[int], Iterator[Any]]  # first step -> batches on their devices
    evaluate: Callable[[Any], dict[str, float]]  # state -> validation metrics; `evaluation.best` names the one that decides
    save: Callable[..., None]  # (step, state, best=its cost or None, block=bool)
    check: Callable[[], None]  # raises what went wrong in the background
    stop: Callable[[int], bool]
    describe: Callable[[int], str]  # step -> what its batch was
    report: Any  # training.report.Report


def fit(state: Any, run: Run, parts: Parts, best: tuple[int, float] | None = None) -> Any:
    """Train until `run.steps` batches are consumed, or no evaluation is better any more; returns the last state, saved.

    Args:
      best: step and cost of the best checkpoint so far: its validation loss, or what `cost` makes of another metric.

    Raises:
      ConfigError: `evaluation.best` is no metric of this task.
      Stopped: asked to stop; the state is saved.
      DivergenceError: five batches in a row were not finite.
    """
    number, pending = int(state["step"]), None
    with Trace(run, parts.report.note) as trace:
        for batch in parts.batches(number):
            trace.before(number, state)
            state, metrics = parts.step(state, batch)
            number += 1
            _settle(pending, parts)
            pending = (number, metrics)
            parts.check()
            last, stopping = number >= run.steps, parts.stop(number)
            evaluating = last or number % run.evaluation.every == 0
            if evaluating or stopping or number % run.checkpoint.every == 0:
                pending = _settle(pending, parts)
                with parts.report.paused():
                    best, improved = _evaluate(number, state, parts, run, best) if evaluating else (best, None)
                    worn = worn_out(number, run, best)
                    if improved is not None or worn or last or stopping or number % run.checkpoint.every == 0:
                        parts.save(number, state, best=improved, block=worn or last or stopping)
                if worn and not last:
                    parts.report.note(f"no better validation {run.evaluation.best} since step {best[0]}: stopped early at step {number}")
                    return state
                if stopping and not last:
                    raise Stopped(f"stopped and saved at step {number} of {run.steps}: the same command goes on")
    return state


def worn_out(number: int, run: Run, best: tuple[int, float] | None) -> bool:
    """Whether `evaluation.patience` evaluations in a row were not better than the best."""
    patience = run.evaluation.patience
    return patience is not None and best is not None and number - best[0] >= patience * run.evaluation.every


def _settle(pending: tuple[int, dict] | None, parts: Parts) -> None:
    """Read the metrics of a step, which waits for it."""
    if pending is None:
        return
    number, metrics = pending
    values = {name: value.item() for name, value in jax.device_get(metrics).items()}
    row = int(values["skipped_in_a_row"])
    if row:
        parts.report.note(f"step {number}: loss or gradient not finite; the update was skipped")
    parts.report.step(number, values)
    if row >= PATIENCE_FOR_NAN:
        batches = "; ".join(f"batch {i}: {parts.describe(i)}" for i in range(number - row, number))
        raise DivergenceError(
            f"loss or gradient not finite in {row} batches in a row, the last at step {number}: look at the data ({batches}), "
            f"or start in another workdir=... with a lower optimizer.learning_rate"
        )


def _evaluate(number: int, state: Any, parts: Parts, run: Run, best: tuple[int, float] | None):
    begun = time.perf_counter()
    values = parts.evaluate(state)
    parts.report.evaluation(number, values, time.perf_counter() - begun)
    now = cost(run.evaluation.best, values)
    improved = math.isfinite(now) and (best is None or now < best[1])
    return ((number, now), now) if improved else (best, None)


LESS_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "brier", "ter", "error_rate")


def cost(name: str, values: dict[str, float]) -> float:
    """A metric as a number of which less is better: itself, or negated; NaN where nothing was evaluated.

    >>> cost("accuracy", {"loss": 0.5, "accuracy": 0.75})
    -0.75
    """
    if not values:
        return math.nan
    if name not in values:
        raise ConfigError(f"evaluation.best={name!r} is no metric of this run: it has {', '.join(values)}")
    return values[name] if name in LESS_IS_BETTER or name.endswith(("_error", "_loss")) else -values[name]
