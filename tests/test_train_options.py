"""The options of a run, each for a few steps; its record, its profile, its TensorBoard files, and what the terminal shows."""

import math
import os
import pty
import re
import subprocess
import sys

import pytest
from running import WORDS, finish, make_config, record, rows, run_here, start

from jaxlm.training import manifest

OPTIONS = {
    "ema, accumulation, some evaluation batches": ("optimizer.ema=0.9", "accumulate=2", "evaluation.batches=1"),
    "bfloat16, chunked loss": ("compute.dtype=bfloat16", "loss.chunk=4", "loss.z_loss=1e-4", "loss.label_smoothing=0.1"),
    "packed documents, remat": ("data.packing=documents", "tokenizer.kind=bpe", "tokenizer.vocab_size=300", "compute.remat=full"),
    "a mixture, stacked": ("data.source=(('{folder}/text.txt', 3), ('{folder}/more.jsonl', 1))", "compute.layout=stacked"),
    "no validation": ("data.validation=0",),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option(name, tmp_path, capfd):
    config = make_config(tmp_path)
    (tmp_path / "more.jsonl").write_text("".join(f'{{"text": "the {word} sat on the hill"}}\n' for word in WORDS * 2))
    arguments = [argument.format(folder=tmp_path) for argument in OPTIONS[name]]
    assert run_here(config, "steps=4", "evaluation.every=2", "logging.samples=1", *arguments) == 0
    trained = [row for row in record(tmp_path / "run") if "loss" in row]
    assert [row["step"] for row in trained] == [1, 2, 3, 4]
    assert all(math.isfinite(row["loss"]) and row["skipped"] == 0 for row in trained)
    validated = [row["validation_loss"] for row in record(tmp_path / "run") if "validation_loss" in row]
    assert len(validated) == (0 if name == "no validation" else 2) and all(map(math.isfinite, validated))
    assert "--- sample 1 ---" in capfd.readouterr().out


def test_early_stopping_keeps_the_best(tmp_path, capfd):
    arguments = make_config(tmp_path), "optimizer.learning_rate=3", "optimizer.warmup=8", "evaluation.every=4", "evaluation.patience=2"
    assert run_here(*arguments) == 0
    out = capfd.readouterr().out
    stopped = int(re.search(r"stopped early at step (\d+)", out)[1])
    step, loss = manifest.best(tmp_path / "run")
    assert stopped == step + 8 < 60
    validated = {row["step"]: row["validation_loss"] for row in record(tmp_path / "run") if "validation_loss" in row}
    assert loss == min(validated.values()) == validated[step]
    assert manifest.checkpoint_steps(tmp_path / "run")[-1] == stopped
    assert run_here(*arguments) == 0
    assert f"this run is done, stopped early (best at step {step})" in capfd.readouterr().out


def test_record_tensorboard_and_profile(tmp_path, capfd):
    assert run_here(make_config(tmp_path), "steps=8", "logging.every=2", "logging.tensorboard=true", "profile.steps=[3,5]") == 0
    found, run = rows(tmp_path / "run"), tmp_path / "run"
    assert [row["step"] for row in found if "loss" in row] == [2, 4, 6, 8]
    wanted = {"step", "elapsed", "loss", "grad_norm", "learning_rate", "tokens", "skipped", "skipped_in_a_row"}
    assert all(wanted | {"tokens_per_second", "flops_per_second", "share_of_peak"} == row.keys() for row in found if "loss" in row)
    assert {"validation_loss", "validation_perplexity", "validation_bits_per_byte"} <= found[-1].keys()
    assert list((run / "tensorboard").glob("events*")) and list((run / "profile").rglob("*.xplane.pb"))
    assert f"xprof --logdir {run}/profile" in capfd.readouterr().out


def test_what_a_pipe_shows(tmp_path):
    code, out, err = finish(start(tmp_path / "jit", make_config(tmp_path), "steps=4", "data.loader=tf", "logging.tensorboard=true"))
    assert (code, err) == (0, "")  # no noise of TensorFlow, Orbax or JAX
    assert re.search(r"^step  ?4: validation loss \d\.\d{3}, perplexity \d+\.\d, \d\.\d{3} bits per byte$", out, re.M)
    assert re.search(r"^step 4/4  loss \d\.\d{3}  lr .* tok/s  .*FLOP/s \(\d+%\)  ETA 0:00$", out, re.M)
    assert "\x1b" not in out
    assert f"python -m jaxlm.train {tmp_path}/tiny.py data.loader=tf logging.tensorboard=true steps=8" in out


@pytest.mark.parametrize("rich", [True, False])
def test_what_a_terminal_shows(rich, tmp_path):
    hidden = "" if rich else "sys.modules['rich.progress'] = None; "
    here = os.path.dirname(__file__)
    code = f"import sys; {hidden}sys.path.insert(0, {here!r}); import running; sys.exit(running.run_here(*sys.argv[1:]))"
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm", "PYTHONPATH": os.getcwd()}
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", code, make_config(tmp_path), "steps=6"]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # a terminal whose other side has left
        pass
    os.close(ours)
    assert process.wait() == 0, shown.decode()
    assert ("━" in shown.decode()) == rich
    assert "6/6" in shown.decode() and "validation loss" in shown.decode()
