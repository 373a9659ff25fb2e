"""A run that is killed, stopped, damaged and started again ends in the same bits as one that never stopped."""

import os
import random
import signal
import threading
import time

import pytest
from running import damage, finish, last_step, make_config, record, run_here, same_end, start, state, wait_for_step

from jaxlm.training import manifest
from jaxlm.training.signals import stop_requests, terminable


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """An undisturbed run in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_here(make_config(folder)) == 0
    return folder / "run"


def test_every_step_is_logged_once_and_counted(undisturbed):
    assert [row["step"] for row in record(undisturbed) if "loss" in row] == list(range(1, 61))
    assert [row["step"] for row in record(undisturbed) if "validation_loss" in row] == [20, 40, 60]
    assert state(undisturbed)["step"] == 60
    assert manifest.checkpoint_steps(undisturbed)[-2:] == [55, 60]


def kill_and_go_on(folder, kills: int) -> None:
    """Kill -9 a run `kills` times at random moments, then let it end."""
    config, draw = make_config(folder), random.Random(kills)
    for _ in range(kills):
        process = start(folder / "jit", config)
        if wait_for_step(folder / "run", last_step(folder / "run") + 1, process):
            time.sleep(draw.uniform(0, 0.6))
        process.kill()
        process.communicate()
    code, out, err = finish(start(folder / "jit", config))
    assert code == 0, err
    assert "goes on" in out or "done" in out


@pytest.fixture
def alone(tmp_path_factory):
    """An undisturbed run as a process of one device."""
    folder = tmp_path_factory.mktemp("alone")
    code, _, err = finish(start(folder / "jit", make_config(folder)))
    assert (code, err) == (0, "")
    return folder / "run"


def test_killed_at_random_moments(tmp_path, alone):
    kill_and_go_on(tmp_path, 2)
    assert same_end(tmp_path / "run", alone)


@pytest.mark.slow
def test_killed_ten_times(tmp_path, alone):
    kill_and_go_on(tmp_path, 10)
    assert same_end(tmp_path / "run", alone)


def signal_at(workdir, step: int, number: int) -> threading.Thread:
    """Send this process a signal once a run in it has logged a step."""

    def send():
        if wait_for_step(workdir, step) and last_step(workdir) < 50:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_sigterm_ctrl_c_and_damage(tmp_path, undisturbed, capfd):
    config, workdir = make_config(tmp_path), tmp_path / "run"
    for step, number in ((12, signal.SIGTERM), (25, signal.SIGINT)):
        thread = signal_at(workdir, step, number)
        assert run_here(config) == 75
        thread.join()
        assert "the same command goes on" in capfd.readouterr().err.splitlines()[-1]
        assert step <= manifest.checkpoint_steps(workdir)[-1] < 60
    newest = manifest.checkpoint_steps(workdir)[-1]
    damage(manifest.folder(workdir) / str(newest))
    assert run_here(config) == 0
    assert f"{newest} is damaged" in capfd.readouterr().out
    assert (manifest.folder(workdir) / f"{newest}.damaged").is_dir()
    assert same_end(workdir, undisturbed)


def test_a_second_ctrl_c_interrupts(capfd):
    with stop_requests() as stop:
        assert not stop(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop(1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert "Ctrl-C again" in capfd.readouterr().err


def test_sigterm_before_the_first_step_interrupts():
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), signal.SIGTERM)


def test_only_damaged_checkpoints_are_refused(tmp_path, capfd):
    config = make_config(tmp_path)
    assert run_here(config, "steps=5") == 0
    damage(manifest.folder(tmp_path / "run") / "5")
    assert run_here(config) == 65
    assert capfd.readouterr().err.count("\n") == 1


def test_half_a_checkpoint_is_walked_back_from(tmp_path, capfd):
    config, folder = make_config(tmp_path), tmp_path / "run" / "checkpoints"
    assert run_here(config, "steps=10", "optimizer.decay=60") == 0
    (folder / "10" / "config.json").unlink()
    assert run_here(config, "steps=10", "optimizer.decay=60") == 0
    assert "10 is damaged (config.json: missing): moved to 10.damaged, going on from step 5" in capfd.readouterr().out
    assert manifest.checkpoint_steps(tmp_path / "run") == [5, 10]


def test_a_finished_run_changes_nothing(undisturbed, capfd):
    before = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file() and path.name != ".lock"}
    assert run_here(str(undisturbed.parent / "tiny.py")) == 0
    assert "step 60 of 60: this run is done" in capfd.readouterr().out
    assert before == {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file() and path.name != ".lock"}
