"""Wrong commands, a full disk, broken data, losses that are not finite: one line with the mend, the right code, nothing lost."""

import errno
import os
import subprocess

import numpy as np
import pytest
from running import finish, make_config, record, run_here, start, state

from jaxlm.training import manifest
from jaxlm.training.lock import lock

WRONG = {
    "optimizer.learning_rte=1": (78, "did you mean optimizer.learning_rate?"),
    "optimizer.learning_rate=fast": (78, "takes float"),
    "optimizer.learning_rate=-1": (78, "a positive number"),
    "optimizer.name=adamx": (78, "did you mean 'adam"),
    "optimizer.schedule=cosin": (78, "did you mean 'cosine'"),
    "tokenizer.kind=bpf": (78, "did you mean bpe"),
    "data.loader=thread": (78, "threads"),
    "data.packing=window": (78, "windows"),
    "evaluation.every=0": (78, "at least 1"),
    "profile.steps=[5,3]": (78, "profile.steps=[10,15]"),
    "data.source=nowhere.txt": (65, "no file matches"),
    "data.source={folder}/tixt.txt": (65, "did you mean {folder}/text.txt?"),
    "data.source={folder}/empty.txt": (65, "empty"),
    "data.sequence_length=64": (78, "lower it or raise"),
    "mesh.data=3": (78, "set mesh.data=8"),
    "batch_size=6": (78, "the nearest size that works is 8"),
    "accumulate=3": (78, "accumulate=3"),
    "compute.dtype=float64": (78, "bfloat16"),
    "compute.layout=rolled": (78, "unrolled"),
    "compute.remat=all": (78, "full"),
    "compute.attention=flash": (78, "eager"),
    "task=causal": (78, "causal-lm"),
    "data.source=tfds:": (65, "tfds"),
    "steps": (78, "no config file steps"),
}


@pytest.mark.parametrize("argument", WRONG)
def test_a_wrong_command(argument, tmp_path, capfd):
    code, mend = WRONG[argument]
    config = make_config(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    arguments = [argument.format(folder=tmp_path)] + ([config] if "=" in argument else [])
    assert run_here(*arguments, "steps=3", devices=8) == code
    error = capfd.readouterr().err
    assert mend.format(folder=tmp_path) in error
    assert error.startswith("jaxlm: ") and error.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "content, mend",
    [(None, "did you mean"), ("x = 1", "config = Run"), ("config = Rum()", "cannot be run"), ("config = 3", "= Run"), ("1 +", "Python")],
)
def test_a_wrong_config_file(content, mend, tmp_path, capfd):
    path = tmp_path / "tiny2.py"
    if content is None:
        make_config(tmp_path)
    else:
        path.write_text(content)
    assert run_here(str(path)) == 78
    error = capfd.readouterr().err
    assert mend in error and error.count("\n") == 1


def test_a_command_that_is_wrong_leaves_no_traceback(tmp_path):
    code, out, err = finish(start(tmp_path, "stepps=3", f"workdir={tmp_path / 'run'}"))
    assert (code, out, err) == (78, "", "jaxlm: unknown key stepps: did you mean steps?\n")


def test_a_directory_in_use(tmp_path, capfd):
    with lock(tmp_path / "run"):
        assert run_here(make_config(tmp_path)) == 73
    assert f"in use by process {os.getpid()}" in capfd.readouterr().err


def test_a_corrupt_shard(tmp_path, capfd):
    config = make_config(tmp_path)
    assert run_here(config, "steps=5", "optimizer.decay=9") == 0
    (shard,) = (tmp_path / "cache" / "stores").glob("*/train/00000-00000.arrow")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert run_here(config, "steps=9", "optimizer.decay=9") == 65
    error = capfd.readouterr().err
    assert str(shard) in error and "delete" in error and error.count("\n") == 1
    assert manifest.checkpoint_steps(tmp_path / "run")[-1] == 5


def test_a_full_disk_at_a_checkpoint(tmp_path, capfd, monkeypatch):
    config = make_config(tmp_path)
    assert run_here(config, "steps=5", "optimizer.decay=9") == 0
    with monkeypatch.context() as patch:

        def fail(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(manifest, "write_digest", fail)
        assert run_here(config, "steps=9", "optimizer.decay=9") == 65
    error = capfd.readouterr().err
    assert "the disk is full" in error and "goes on from step 5" in error and error.count("\n") == 1
    assert run_here(config, "steps=9", "optimizer.decay=9") == 0
    assert [row["step"] for row in record(tmp_path / "run") if "loss" in row] == list(range(1, 10))


def test_a_full_disk_for_real(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        config = make_config(tmp_path)
        code, _, err = finish(start(tmp_path / "jit", config, f"workdir={small / 'run'}", "checkpoint.keep=9", "logging.tensorboard=true"))
        assert code == 65, err
        assert "space" in err and err.count("\n") == 1
        before = manifest.checkpoint_steps(small / "run")
        assert before and not manifest.verify(small / "run" / "checkpoints" / str(before[-1]))
        subprocess.run(["mount", "-o", "remount,size=9m", str(small)], check=True)
        code, out, err = finish(start(tmp_path / "jit", config, f"workdir={small / 'run'}", "checkpoint.keep=9"))
        assert (code, err) == (0, "") and f"step {before[-1]} of 60: goes on" in out
    finally:
        subprocess.run(["umount", str(small)])


def test_losses_that_are_not_finite(tmp_path, capfd):
    config = make_config(tmp_path)
    assert run_here(config, "optimizer.learning_rate=1e30", "optimizer.warmup=0", "checkpoint.every=1") == 70
    error = capfd.readouterr().err
    assert "5 batches in a row" in error and "store 0 epoch 0 row" in error and error.count("\n") == 1
    end = state(tmp_path / "run")
    assert all(np.isfinite(leaf).all() for leaf in end.values())
    assert end["step"] - end["skipped"] == 1  # only the first update was finite
    assert record(tmp_path / "run")[-1]["loss"] is None  # JSON has no NaN
