"""What may change when a run goes on: steps, mesh, layer layout, loader. What may not: everything that would make it another run."""

import json

import numpy as np
import pytest
from running import make_config, record, run_here, state

DECAY = "optimizer.decay=60"  # else the schedule ends with the steps, and changes with them


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_here(make_config(folder), DECAY, "steps=20") == 0
    return folder / "run"


def go_on(folder, *change: str, first: tuple[str, ...] = (), devices: int = 1) -> int:
    """Ten steps, then ten more under a change; the exit code."""
    config = make_config(folder)
    assert run_here(config, DECAY, "steps=10", "evaluation.every=20", *first) == 0
    return run_here(config, DECAY, "steps=20", *first, *change, devices=devices)


def losses(workdir):
    return [row["loss"] for row in record(workdir) if "loss" in row]


@pytest.mark.parametrize("change", ["data.loader=tf"])
def test_steps_and_loader(tmp_path, undisturbed, change):
    assert go_on(tmp_path, change) == 0
    assert losses(tmp_path / "run") == losses(undisturbed)
    end, other = state(tmp_path / "run"), state(undisturbed)
    assert all(end[name].tobytes() == other[name].tobytes() for name in other)


def test_another_mesh(tmp_path, undisturbed):
    assert go_on(tmp_path, "mesh.fsdp=4", devices=8) == 0
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(undisturbed), rtol=1e-5)


@pytest.mark.parametrize("first, second", [("unrolled", "stacked"), ("stacked", "unrolled")])
def test_the_other_layer_layout(tmp_path, undisturbed, first, second):
    config = make_config(tmp_path)
    assert run_here(config, DECAY, "steps=10", f"compute.layout={first}") == 0
    assert run_here(config, DECAY, "steps=20", f"compute.layout={second}") == 0
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(undisturbed), rtol=1e-4)


def test_adafactor_keeps_its_layout(tmp_path, capfd):
    assert go_on(tmp_path, "compute.layout=stacked", first=("optimizer.name=adafactor",)) == 65
    assert capfd.readouterr().err.endswith("keep compute.layout=unrolled\n")


CHANGES = {
    "model.n_embd=64": "model.n_embd: 32 -> 64",
    "optimizer.learning_rate=0.5": "optimizer.learning_rate: 0.01 -> 0.5",
    "data.sequence_length=8": "data.sequence_length: 16 -> 8",
    "batch_size=4": "batch_size: 8 -> 4",
    "seed=1": "seed: 0 -> 1",
    "tokenizer.kind=bpe": "tokenizer.kind: 'char' -> 'bpe'",
    "data.validation=0.2": "data.validation: 0.1 -> 0.2",
}


def test_another_run_is_refused_by_its_keys(undisturbed, capfd):
    before = (undisturbed / "config.json").read_bytes()
    for change, named in CHANGES.items():
        assert run_here(str(undisturbed.parent / "tiny.py"), DECAY, "steps=30", change) == 78
        error = capfd.readouterr().err
        assert named in error and error.count("\n") == 1
    assert (undisturbed / "config.json").read_bytes() == before


def test_other_content_under_the_same_name_is_refused(tmp_path, capfd):
    config, text = make_config(tmp_path), tmp_path / "text.txt"
    assert run_here(config, DECAY, "steps=5") == 0
    text.write_text(text.read_text()[::-1])  # the same characters: only the data differ
    assert run_here(config, DECAY, "steps=10") == 78
    assert "other data" in capfd.readouterr().err


def test_config_json_is_the_resolved_run(undisturbed):
    values = json.loads((undisturbed / "config.json").read_text())
    assert values["model"]["vocab_size"] == 17 and values["steps"] == 20
    assert values == json.loads((undisturbed / "checkpoints" / "20" / "config.json").read_text())
