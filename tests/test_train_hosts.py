"""Two processes of four devices are one run of eight: the same losses, one voice, one lock; stopped and killed, they go on."""

import signal
import socket

import numpy as np
from running import finish, make_config, rows, run_here, start, wait_for_step

from jaxlm.training import manifest


def pair(folder, config: str):
    """Both processes of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    return [start(folder / "jit", config, devices=4, **names, JAX_PROCESS_ID=str(rank)) for rank in (0, 1)]


def losses(workdir) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(workdir) if "loss" in row}


def test_two_processes_are_one_run(tmp_path):
    whole, halves = make_config(tmp_path / "whole"), make_config(tmp_path / "halves")
    workdir = tmp_path / "halves" / "run"
    assert run_here(whole, devices=8) == 0

    both = pair(tmp_path, halves)
    assert wait_for_step(workdir, 12, both[0])
    both[1].send_signal(signal.SIGTERM)
    (code, out, err), (other_code, other_out, other_err) = [finish(one) for one in both]
    assert (code, other_code) == (75, 75), err + other_err
    assert "stopped and saved at step" in err and "starts" in out
    assert [line for line in other_out.splitlines() if not line.startswith("[Gloo]")] == []  # JAX's transport on CPU prints
    assert manifest.checkpoint_steps(workdir)[-1] >= 12

    both = pair(tmp_path, halves)
    killed_at = manifest.checkpoint_steps(workdir)[-1] + 8
    assert wait_for_step(workdir, killed_at, both[0])
    for one in both:
        one.kill()
        one.communicate()

    (code, out, err), (other_code, _, other_err) = [finish(one) for one in pair(tmp_path, halves)]
    assert (code, other_code) == (0, 0), err + other_err
    assert "goes on" in out
    one, two = losses(tmp_path / "whole" / "run"), losses(workdir)
    assert list(one) == list(two) == list(range(1, 61))
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-5)


def test_wrong_numbers_of_the_hosts_are_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    assert run_here(make_config(tmp_path)) == 78
    assert "JAX_NUM_PROCESSES" in capfd.readouterr().err
