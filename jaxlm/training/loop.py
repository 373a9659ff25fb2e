"""The loop: dispatch step n + 1, then read the metrics of step n; evaluate, save, stop.

It is given everything as functions, and knows no model, no data and no file. Read next: `report.py`, then `train.py`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxlm.config import Run
from jaxlm.errors import DivergenceError, Stopped

PATIENCE_FOR_NAN = 5  # different batches in a row whose loss or gradient is not finite


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    step: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    batches: Callable[[int], Iterator[Any]]  # first step -> batches on their devices
    evaluate: Callable[[Any], dict[str, float]]  # state -> validation metrics; "loss" decides which is best
    save: Callable[..., None]  # (step, state, best=loss or None, block=bool)
    check: Callable[[], None]  # raises what went wrong in the background
    stop: Callable[[int], bool]
    describe: Callable[[int], str]  # step -> what its batch was
    report: Any  # training.report.Report


def fit(state: Any, run: Run, parts: Parts, best: tuple[int, float] | None = None) -> Any:
    """Train until `run.steps` batches are consumed; returns the last state.

    Args:
      best: step and validation loss of the best checkpoint so far.

    Raises:
      Stopped: asked to stop; the state is saved.
      DivergenceError: five batches in a row were not finite.
    """
    number, pending = int(state["step"]), None
    for batch in parts.batches(number):
        _profile(run, number)
        state, metrics = parts.step(state, batch)
        number += 1
        _settle(pending, parts)
        pending = (number, metrics)
        parts.check()
        last, stopping = number >= run.steps, parts.stop(number)
        if last or number % run.evaluation.every == 0:
            pending = _settle(pending, parts)
            best, improved = _evaluate(number, state, parts, best)
        else:
            improved = None
        if last or stopping or improved is not None or number % run.checkpoint.every == 0:
            pending = _settle(pending, parts)
            parts.save(number, state, best=improved, block=last or stopping)
        if stopping and not last:
            raise Stopped(f"stopped and saved at step {number} of {run.steps}: the same command goes on")
        if _worn_out(number, run, best):
            parts.report.note(f"no better validation loss since step {best[0]}: stopped early at step {number}")
            break
    _settle(pending, parts)
    return state


def _settle(pending: tuple[int, dict] | None, parts: Parts) -> None:
    """Read the metrics of a step, which waits for it."""
    if pending is None:
        return
    number, metrics = pending
    values = {name: value.item() for name, value in jax.device_get(metrics).items()}
    row = int(values["skipped_in_a_row"])
    if row:
        parts.report.note(f"step {number}: loss or gradient not finite; the update was skipped")
    if row >= PATIENCE_FOR_NAN:
        batches = "; ".join(f"batch {i}: {parts.describe(i)}" for i in range(number - row, number))
        raise DivergenceError(
            f"loss or gradient not finite in {row} batches in a row, the last at step {number}: lower optimizer.learning_rate "
            f"or look at the data ({batches})"
        )
    parts.report.step(number, values)


def _evaluate(number: int, state: Any, parts: Parts, best: tuple[int, float] | None):
    values = parts.evaluate(state)
    parts.report.evaluation(number, values)
    improved = "loss" in values and (best is None or values["loss"] < best[1])
    return ((number, values["loss"]), values["loss"]) if improved else (best, None)


def _worn_out(number: int, run: Run, best: tuple[int, float] | None) -> bool:
    patience = run.evaluation.patience
    return patience is not None and best is not None and number - best[0] >= patience * run.evaluation.every


def _profile(run: Run, number: int) -> None:
    if not run.profile.steps:
        return
    first, last = run.profile.steps[0], run.profile.steps[-1]
    folder = f"{run.workdir}/profile"
    if number == first:
        jax.profiler.start_trace(folder)
    elif number == min(last, run.steps - 1):
        jax.profiler.stop_trace()
        print(f"trace of steps {first} to {last} in {folder}; view it: pip install xprof && xprof --logdir {folder}")
