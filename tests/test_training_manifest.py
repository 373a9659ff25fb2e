"""Digests: every damage to a checkpoint is noticed, named and walked back from, and no run starts again from zero in silence."""

import json
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxlm.errors import CheckpointError
from jaxlm.training import checkpoint, manifest


def write(workdir, steps=(1,), files=None) -> None:
    writer = checkpoint.Writer(workdir, 9, files or {"config.json": b"{}"})
    for step in steps:
        writer.save(step, {"w": jnp.arange(64.0) + step, "step": jnp.int32(step)})
    writer.close()


def newest(workdir) -> tuple[int | None, list[str]]:
    said: list[str] = []
    path = checkpoint.latest(workdir, said.append)
    return path and int(path.name), said


def largest(directory):
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_files_are_saved_beside_the_state(tmp_path):
    source = tmp_path / "tokenizer"
    source.mkdir()
    (source / "vocab.json").write_text("[1]")
    files = {"config.json": b'{"a": 1}', "tokenizer": source, "again/vocab.json": source / "vocab.json"}
    write(tmp_path, files=files)
    path = tmp_path / "checkpoints/1"
    held = [checkpoint.read_file(path, name) for name in ("config.json", "tokenizer/vocab.json", "again/vocab.json")]
    assert held == [b'{"a": 1}', b"[1]", b"[1]"]
    assert set(json.loads((path / "digest.json").read_text())["files"]) >= {"config.json", "tokenizer/vocab.json", "state/state/_METADATA"}
    with pytest.raises(CheckpointError, match=r"no readable other\.json"):
        checkpoint.read_file(path, "other.json")


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "changed": lambda path: flip(largest(path / "state")),
    "cut from": lambda path: os.truncate(largest(path / "state"), 10),
    "config.json: missing": lambda path: (path / "config.json").unlink(),
    "digest.json: unreadable": lambda path: os.truncate(path / "digest.json", 10),
    "and 1 more": lambda path: [flip(path / "config.json"), largest(path / "state").unlink()],
}


@pytest.mark.parametrize("words", DAMAGE)
def test_a_damaged_newest_checkpoint_is_named_set_aside_and_walked_back_from(tmp_path, words):
    write(tmp_path, (1, 2, 3))
    DAMAGE[words](tmp_path / "checkpoints/3")
    reader: list[str] = []
    assert checkpoint.latest(tmp_path, reader.append, owner=False).name == "2"
    assert "moved" not in reader[0] and (tmp_path / "checkpoints/3").exists()
    step, said = newest(tmp_path)
    assert step == 2 and len(said) == 1
    assert words in said[0] and "checkpoints/3 is damaged" in said[0] and said[0].endswith("moved to 3.damaged, going on from step 2")
    assert (tmp_path / "checkpoints/3.damaged").exists()
    assert newest(tmp_path) == (2, [])
    write(tmp_path, (3,))
    assert newest(tmp_path) == (3, [])
    DAMAGE[words](tmp_path / "checkpoints/3")
    assert newest(tmp_path)[0] == 2
    assert (tmp_path / "checkpoints/3.damaged1").exists()


def test_a_checkpoint_under_another_steps_name_is_damaged(tmp_path):
    write(tmp_path)
    shutil.copytree(tmp_path / "checkpoints/1", tmp_path / "checkpoints/2")
    step, said = newest(tmp_path)
    assert step == 1 and "digest.json: belongs to step 1" in said[0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_any_file_is_noticed(tmp_path, place, bit):
    path = tmp_path / "checkpoints/1"
    if not path.exists():
        write(tmp_path)
    files = sorted((f for f in path.rglob("*") if f.is_file() and f.stat().st_size), key=str)
    sizes = np.cumsum([f.stat().st_size for f in files])
    index = int(place * sizes[-1])
    file = files[np.searchsorted(sizes, index, side="right")]
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[index - int(sizes[files.index(file)]) + len(whole)] ^= 1 << bit
    file.write_bytes(flipped)
    try:
        problems = manifest.verify(path)
    except CheckpointError as error:  # the flipped bit is in the format number
        problems = [str(error)]
    file.write_bytes(whole)
    assert problems
    assert not manifest.verify(path)


def test_half_a_checkpoint_is_ignored_and_said(tmp_path):
    assert newest(tmp_path) == (None, [])
    write(tmp_path, (1,))
    shutil.copytree(tmp_path / "checkpoints/1", tmp_path / "checkpoints/2", ignore=shutil.ignore_patterns("digest.json"))
    step, said = newest(tmp_path)
    assert step == 1 and len(said) == 1 and "2 unfinished (no digest.json), ignored" in said[0]
    assert checkpoint.checkpoint_steps(tmp_path) == [1]
    write(tmp_path, (2,))
    assert newest(tmp_path) == (2, [])
    assert (tmp_path / "checkpoints/2.damaged").exists()


def test_only_damaged_checkpoints_are_an_error_every_time(tmp_path):
    write(tmp_path, (1, 2))
    for step in (1, 2):
        flip(tmp_path / f"checkpoints/{step}/config.json")
    for _ in range(2):
        said: list[str] = []
        with pytest.raises(CheckpointError, match="only damaged checkpoints: put a good one back, or start from step 0 in another workdir"):
            checkpoint.latest(tmp_path, said.append)
        assert len(said) == 2
    shutil.rmtree(tmp_path / "checkpoints/1")
    (tmp_path / "checkpoints/2").rename(tmp_path / "checkpoints/2.damaged")
    with pytest.raises(CheckpointError, match="only damaged"):
        checkpoint.latest(tmp_path, said.append)


def test_a_newer_format_is_refused_not_set_aside(tmp_path):
    write(tmp_path)
    digest = tmp_path / "checkpoints/1/digest.json"
    digest.write_text(digest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError, match="has format 2 and this jaxlm reads 1"):
        newest(tmp_path)
    assert digest.exists()


def test_what_a_killed_run_left_behind_is_removed(tmp_path):
    write(tmp_path)
    (tmp_path / "checkpoints/2.tmp/state").mkdir(parents=True)
    assert newest(tmp_path) == (1, [])
    checkpoint.Writer(tmp_path, 1, {}).close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1"]
