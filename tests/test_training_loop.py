"""The loop with parts that only write down what happened: its order, early stopping, stops, and what is not finite."""

import contextlib
import dataclasses
import math
import types

import pytest

from jaxlm.config import Evaluation, Run
from jaxlm.errors import ConfigError, DivergenceError, Stopped
from jaxlm.training.loop import Parts, cost, fit


class Recorder:
    """Parts of a run that only write down what happened."""

    def __init__(self, run, bad=(), losses=None, stop=None):
        self.run, self.events, self.bad, self.row = run, [], set(bad), 0
        self.losses, self.stop_at = iter(losses or []), stop

    def step(self, state, batch):
        self.events.append(f"dispatch {batch + 1}")
        self.row = self.row + 1 if batch in self.bad else 0
        return {"step": batch + 1}, {"skipped_in_a_row": _Lazy(self, batch + 1, self.row)}

    def evaluate(self, state):
        self.events.append(f"evaluate {state['step']}")
        return {self.run.evaluation.best: next(self.losses, 1.0)}

    def parts(self):
        told = lambda number, values: self.events.append(f"report {number}")
        report = types.SimpleNamespace(step=told, evaluation=lambda *_: None, note=self.events.append, paused=contextlib.nullcontext)
        save = lambda number, state, best, block: self.events.append(f"save {number}" + (" best" if best is not None else ""))
        return Parts(
            step=self.step,
            batches=lambda first: iter(range(first, self.run.steps)),
            evaluate=self.evaluate,
            save=save,
            check=lambda: None,
            stop=lambda number: number == self.stop_at,
            describe=lambda number: f"example {number}",
            report=report,
        )


class _Lazy:
    """A metric that says when it is read."""

    def __init__(self, recorder, number, value):
        self.recorder, self.number, self.value = recorder, number, value

    def item(self):
        self.recorder.events.append(f"read {self.number}")
        return self.value


RUN = Run(model=None, steps=6, evaluation=Evaluation(every=100))


def play(run=RUN, **arguments):
    recorder = Recorder(run, **arguments)
    fit({"step": 0}, run, recorder.parts())
    return recorder.events


def test_the_loop_dispatches_a_step_before_it_reads_the_one_before():
    events = play()
    for number in range(1, 6):
        assert events.index(f"dispatch {number + 1}") < events.index(f"read {number}") < events.index(f"report {number}")
        if number < 5:
            assert events.index(f"read {number}") < events.index(f"dispatch {number + 2}")  # and no later than that
    assert [e for e in events if e.startswith("report")] == [f"report {i}" for i in range(1, 7)]
    assert events[-1] == "save 6 best" and events.count("evaluate 6") == 1


def test_five_batches_in_a_row_stop_the_run_and_are_named():
    recorder = Recorder(RUN, bad=(1, 2, 3, 4, 5))
    with pytest.raises(DivergenceError) as error:
        fit({"step": 0}, RUN, recorder.parts())
    assert all(f"batch {i}: example {i}" in str(error.value) for i in range(1, 6)) and "example 0" not in str(error.value)
    assert not any(e.startswith("save") for e in recorder.events)


def test_four_in_a_row_do_not():
    assert "save 6 best" in play(bad=(0, 1, 2, 3, 5))


def test_early_stopping_after_patience_evaluations():
    run = dataclasses.replace(RUN, steps=50, evaluation=Evaluation(every=2, patience=2))
    events = play(run, losses=[3.0, 2.0, 2.5, 2.2, 1.0])
    assert "no better validation loss since step 4: stopped early at step 8" in events and "dispatch 9" not in events
    assert [e for e in events if "best" in e] == ["save 2 best", "save 4 best"]


def test_a_stop_saves_and_says_so():
    recorder = Recorder(RUN, stop=3)
    with pytest.raises(Stopped, match="step 3 of 6"):
        fit({"step": 0}, RUN, recorder.parts())
    assert recorder.events[-1] == "save 3" and "report 3" in recorder.events


def test_going_on_starts_at_the_state():
    recorder = Recorder(RUN)
    fit({"step": 4}, RUN, recorder.parts(), best=(2, 0.5))
    assert recorder.events[0] == "dispatch 5" and recorder.events[-1] == "save 6"  # 1.0 is not better than 0.5


@pytest.mark.parametrize("metric, better", [("accuracy", [0, 2]), ("perplexity", [0, 1]), ("calibration_error", [0, 1]), ("f1", [0, 2])])
def test_the_metric_that_decides_knows_which_way_is_better(metric, better):
    run = dataclasses.replace(RUN, steps=6, evaluation=Evaluation(every=2, best=metric))
    assert [e for e in play(run, losses=[0.5, 0.4, 0.6]) if "best" in e] == [f"save {2 * i + 2} best" for i in better]


def test_it_decides_on_early_stopping_too():
    run = dataclasses.replace(RUN, steps=50, evaluation=Evaluation(every=2, patience=2, best="accuracy"))
    events = play(run, losses=[0.5, 0.7, 0.6, 0.6])
    assert "no better validation accuracy since step 4: stopped early at step 8" in events


def test_a_metric_that_is_none_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match="evaluation.best='acuracy' is no metric of this run: it has loss, accuracy"):
        cost("acuracy", {"loss": 1.0, "accuracy": 0.5})
    assert math.isnan(cost("acuracy", {}))  # nothing is held out
