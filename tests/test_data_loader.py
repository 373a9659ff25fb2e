"""Loaders: in order, bit-identical, errors at their step, and nothing left running."""

import threading
import time

import numpy as np
import pytest

from jaxlm.data.loader import LOADERS, load
from jaxlm.errors import ConfigError, DataError


def make(step):
    time.sleep(0.002 * (step % 3))  # out of step on purpose
    values = np.random.default_rng(step)
    return {"tokens": values.integers(0, 9, (4, 8), np.int32), "weights": values.random((4, 8), np.float32)}


def _workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("jaxlm-data")]


@pytest.fixture(params=sorted(LOADERS))
def loader(request):
    if request.param == "tf":
        pytest.importorskip("tensorflow")
    return request.param


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_batches_come_in_order_and_bit_for_bit(loader, prefetch):
    steps = range(3, 17, 2)
    found = list(load(loader, make, steps, prefetch))
    assert len(found) == len(steps)
    for step, batch in zip(steps, found, strict=True):
        assert list(batch) == ["tokens", "weights"]
        for name, value in make(step).items():
            assert type(batch[name]) is np.ndarray and batch[name].dtype == value.dtype
            assert batch[name].tobytes() == value.tobytes()


def test_no_steps_no_batches(loader):
    assert list(load(loader, make, range(4, 4), 2)) == []


def test_errors_come_out_at_their_step(loader):
    def broken(step):
        if step == 5:
            raise DataError("step 5: bad id")
        return make(step)

    seen = []
    with pytest.raises(DataError, match="step 5: bad id"):
        for batch in load(loader, broken, range(0, 100), 3):
            seen.append(batch)
    assert len(seen) == 5
    assert not _workers()


def test_closing_stops_the_workers(loader):
    made = []
    batches = load(loader, lambda step: made.append(step) or make(step), range(10**9), 4)
    next(batches)
    batches.close()
    time.sleep(0.1)
    count = len(made)
    time.sleep(0.1)
    assert len(made) == count < 50 and not _workers()


def test_batches_are_made_ahead():
    made = []
    batches = load("threads", lambda step: made.append(step) or make(step), range(100), 4)
    next(batches)
    time.sleep(0.1)
    assert 4 <= len(made) <= 6
    batches.close()


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="data.loader=torch: choose tf or threads"):
        load("torch", make, range(3), 2)


def test_without_tensorflow_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    with pytest.raises(ConfigError, match="data.loader=threads"):
        list(load("tf", make, range(3), 2))
