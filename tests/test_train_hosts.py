"""Two processes of four devices are one run of eight: the same losses, one voice, one lock; stopped and killed, they go on."""

import re
import signal
import socket

import numpy as np
import pytest
from running import finish, make_config, rows, run_here, start, wait_for_step

from jaxlm.training import manifest
from tests.text_pairs import written

# What JAX's transport on CPU prints, piece by piece: its threads write at once, and break each other's lines.
GLOO = re.compile(r"\[Gloo\] Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is :|\d|\s")

NUMBERS = ("loss", "reward", "validation_loss", "validation_chrf")


def pair(folder, *arguments: str):
    """Both processes of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    return [start(folder / "jit", *arguments, devices=4, **names, JAX_PROCESS_ID=str(rank)) for rank in (0, 1)]


def losses(workdir) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(workdir) if "loss" in row}


def end_as_one_process(folder) -> None:
    """Start both processes of the run in `folder`/halves again, and compare its losses with those of one process."""
    whole = make_config(folder / "whole")
    assert run_here(whole, devices=8) == 0
    (code, out, err), (other_code, _, other_err) = [finish(one) for one in pair(folder, make_config(folder / "halves"))]
    assert (code, other_code) == (0, 0), err + other_err
    assert "goes on" in out
    one, two = losses(folder / "whole" / "run"), losses(folder / "halves" / "run")
    assert list(one) == list(two) == list(range(1, 61))
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-5)


def test_two_processes_are_one_run_and_stop_together(tmp_path):
    workdir = tmp_path / "halves" / "run"
    both = pair(tmp_path, make_config(tmp_path / "halves"))
    assert wait_for_step(workdir, 12, both[0])
    both[1].send_signal(signal.SIGTERM)
    (code, out, err), (other_code, other_out, other_err) = [finish(one) for one in both]
    assert (code, other_code) == (75, 75), err + other_err
    assert "stopped and saved at step" in err and "starts" in out
    assert GLOO.sub("", other_out) == ""
    assert manifest.checkpoint_steps(workdir)[-1] >= 12
    end_as_one_process(tmp_path)


@pytest.mark.slow
def test_two_processes_that_are_killed_go_on(tmp_path):
    workdir = tmp_path / "halves" / "run"
    both = pair(tmp_path, make_config(tmp_path / "halves"))
    assert wait_for_step(workdir, 20, both[0])
    for one in both:
        one.kill()
        one.communicate()
    end_as_one_process(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("more", [["data.batch_tokens=448"], ["risk.reward=chrf", "risk.candidates=2"]], ids=["by tokens", "by risk"])
def test_two_processes_write_and_score_the_texts_of_one(more, tmp_path):
    given = [str(written(tmp_path) / "transformer.py"), "data.packing=buckets", "data.validation=0.2", "steps=4", "epochs=none", *more]
    given += [
        "evaluation.generate=8",
        "evaluation.every=2",
        "evaluation.scores=['chrf']",
        "model.vocab_size=28",
        "mesh.data=4",
        "mesh.tensor=2",
    ]
    assert run_here(*given, f"workdir={tmp_path / 'one'}", devices=8) == 0
    (code, _, err), (other_code, _, other_err) = [finish(each) for each in pair(tmp_path, *given, f"workdir={tmp_path / 'two'}")]
    assert (code, other_code) == (0, 0), err + other_err
    numbers = [[[row[key] for key in NUMBERS if key in row] for row in rows(tmp_path / name)] for name in ("one", "two")]
    assert len(numbers[0]) == len(numbers[1]) and sum(map(len, numbers[0])) >= 4 + 2 * 2
    for one, two in zip(*numbers, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4)


def test_wrong_numbers_of_the_hosts_are_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    assert run_here(make_config(tmp_path)) == 78
    assert "JAX_NUM_PROCESSES" in capfd.readouterr().err
