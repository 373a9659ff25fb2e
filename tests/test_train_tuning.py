"""Fine-tuning runs: from a run or a folder, with LoRA or frozen parts; going on, on a mesh, in the other layout."""

import shutil

import numpy as np
import pytest
from running import make_config, record, run_here, state

import jaxlm
from jaxlm.training.tuning import nested, paths

LORA = ("tuning.lora_rank=2", "optimizer.ema=0.9", "steps=10")
DECAY = "optimizer.decay=20"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run to start from, and its config file."""
    folder = tmp_path_factory.mktemp("base")
    assert run_here(make_config(folder), "steps=20") == 0
    jaxlm.save(folder / "hf", *jaxlm.load(folder / "run"), folder / "run" / "tokenizer")
    return folder


def tuned(base, workdir, *more, source="run", devices=1):
    return run_here(str(base / "tiny.py"), f"workdir={workdir}", f"pretrained={base / source}", DECAY, *more, devices=devices)


def losses(workdir):
    return [row["loss"] for row in record(workdir) if "loss" in row]


def test_a_run_starts_where_another_ended(base, tmp_path, capsys):
    assert tuned(base, tmp_path / "a", *LORA) == 0
    assert f"parameters from {base / 'run'}\n" in (out := capsys.readouterr().out) and "low-rank updates" in out
    assert tuned(base, tmp_path / "b", *LORA, source="hf") == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b") and losses(tmp_path / "a")[0] < losses(base / "run")[0] - 0.5
    end = state(tmp_path / "a")
    trained = {name.partition("/")[2] for name in end if name.startswith(("params/", "ema/"))}
    assert trained and all(name.startswith("lora/h/0/attn/") for name in trained)
    params, start = (paths(jaxlm.load(folder)[1]) for folder in (tmp_path / "a", base / "run"))
    assert {path for path in start if not np.array_equal(start[path], params[path])} == {f"h/0/attn/{name}/kernel" for name in "qv"}


@pytest.mark.parametrize("change", [("compute.layout=stacked",), ("mesh.fsdp=4",)])
def test_it_goes_on_without_the_weights_it_started_from(base, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(base / "hf", copy)
    assert tuned(base, tmp_path / "whole", *LORA, "steps=20") == 0
    first = lambda *more, **where: run_here(
        str(base / "tiny.py"), f"workdir={tmp_path / 'run'}", f"pretrained={copy}", DECAY, *LORA, *more, **where
    )
    assert first() == 0
    (copy / "model.safetensors").unlink()
    assert first("steps=20", *change, devices=8 if "mesh.fsdp=4" in change else 1) == 0
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "whole"), rtol=1e-4)
    one, other = (paths(jaxlm.unstack(nested(state(tmp_path / name)))) for name in ("run", "whole"))
    assert one.keys() == other.keys() and any("/lora/" in name and "/mu/" in name for name in one)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_frozen_parts_and_slow_layers(base, tmp_path):
    assert tuned(base, tmp_path / "run", "tuning.freeze=['wte']", "tuning.layer_decay=0.5", "steps=5", "mesh.fsdp=2", devices=2) == 0
    params, start = (paths(jaxlm.load(folder)[1]) for folder in (tmp_path / "run", base / "run"))
    assert [path for path in start if np.array_equal(start[path], params[path])] == ["wte"]


def test_what_does_not_fit_is_one_line(base, tmp_path, capfd):
    assert tuned(base, tmp_path / "a", "tuning.freeze=['wtte']") == 78
    assert "did you mean wte" in capfd.readouterr().err
    assert tuned(base, tmp_path / "b", "model.n_embd=64") == 65
    assert "n_embd=32, not 64" in capfd.readouterr().err
    assert tuned(base, tmp_path / "c", "evaluation.best=accuracy", "evaluation.every=1") == 78
    assert "It takes loss, perplexity" in capfd.readouterr().err
