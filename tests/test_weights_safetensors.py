"""Safetensors folders: what is read equals what the library reads, whatever is wrong is one DataError, writing is whole or not at all."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlm.errors import DataError
from jaxlm.weights import safetensors_files
from jaxlm.weights.folders import open_checkpoint
from jaxlm.weights.tensors import Outgoing
from tests.foreign import raw_safetensors

BYTES = bytes(range(16))
ONE = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def folder_of(path, content: bytes):
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", ml_dtypes.bfloat16, "int64", "int8", "uint8", "bool"])
def test_every_type_is_read_as_the_library_reads_it(tmp_path, dtype):
    tensors = {"a": np.arange(6).reshape(2, 3).astype(dtype), "b": np.zeros((), dtype), "c": np.zeros((0, 3), dtype)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert checkpoint.specs[name].shape == tensor.shape and checkpoint.specs[name].dtype == tensor.dtype
        assert checkpoint.read(name).tobytes() == tensor.tobytes()


def test_an_unaligned_file_is_read(tmp_path):
    text = json.dumps({"a": ONE}).encode()
    checkpoint = open_checkpoint(folder_of(tmp_path, raw_safetensors(text + b" " * ((5 - len(text)) % 8), BYTES)))
    assert checkpoint.read("a").tobytes() == BYTES and checkpoint.read("a").flags.aligned


HOSTILE = {
    "empty": (b"", "cannot be read"),
    "short": (b"\x01\x02", "its header should have"),
    "a header beyond the file": (raw_safetensors({"a": ONE}, BYTES)[:20], "its header should have"),
    "a header without end": (b"\xff" * 8 + b"{}", "its header should have"),
    "no JSON": (raw_safetensors(b"\x80abc"), "no readable JSON"),
    "no object": (raw_safetensors(b"[1, 2]"), "JSON list"),
    "deep JSON": (raw_safetensors(b"[" * 100_000), "no readable JSON"),
    "a name twice": (raw_safetensors(b'{"a": 1, "a": 2}'), "'a' comes twice"),
    "no entry": (raw_safetensors({"a": 3}), "no readable shape"),
    "a negative size": (raw_safetensors({"a": {**ONE, "shape": [-2, -2]}}, BYTES), "no readable shape"),
    "an absurd size": (raw_safetensors({"a": {**ONE, "shape": [2**60, 2**60]}}, BYTES), "no readable shape"),
    "a large size": (raw_safetensors({"a": {**ONE, "shape": [2**40]}}, BYTES), "does not fit its bytes"),
    "offsets beyond the file": (raw_safetensors({"a": {**ONE, "data_offsets": [8, 24]}}, BYTES), "does not fit its bytes"),
    "bytes that nobody names": (raw_safetensors({"a": ONE}, BYTES * 2), "no readable safetensors file"),
    "two in one place": (raw_safetensors({"a": ONE, "b": ONE}, BYTES), "no readable safetensors file"),
    "float8": (raw_safetensors({"a": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}}, BYTES), "F8_E4M3"),
    "a type that is no word": (raw_safetensors({"a": {**ONE, "dtype": [1]}}, BYTES), "of type"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_line(tmp_path, what):
    content, message = HOSTILE[what]
    with pytest.raises(DataError, match=message) as caught:
        open_checkpoint(folder_of(tmp_path, content))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def sharded(path, weight_map):
    path.mkdir(exist_ok=True)
    save_file({"a": np.ones(2, "f4")}, path / "x-1.safetensors")
    save_file({"b": np.zeros(3, "f4")}, path / "x-2.safetensors")
    (path / "config.json").write_text("{}")
    (path / safetensors_files.INDEX).write_text(weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map}))
    return path


def test_shards_are_one_checkpoint(tmp_path):
    checkpoint = open_checkpoint(sharded(tmp_path, {"a": "x-1.safetensors", "b": "x-2.safetensors"}))
    assert set(checkpoint.specs) == {"a", "b"} and checkpoint.read("b").tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../x-1.safetensors"}, "is no name of"),
        ({"a": "/etc/x-1.safetensors"}, "is no name of"),
        ({"a": "sub/x-1.safetensors"}, "is no name of"),
        ({"a": "x-1.safetensors\n"}, "is no name of"),
        ({"a": "x-1.bin"}, "is no name of"),
        ({"a": 7}, "is no name of"),
        ({"a": "x-3.safetensors"}, "lacks x-3"),
        ({"a": "x-1.safetensors", "c": "x-2.safetensors"}, "names c"),
        ({}, "no weight_map"),
        ('{"weight_map": {"a": "x-1.safetensors", "a": "x-2.safetensors"}}', "comes twice"),
        ('{"weight_map": 3}', "no weight_map"),
    ],
)
def test_a_hostile_index_is_one_line(tmp_path, weight_map, message):
    with pytest.raises(DataError, match=message):
        open_checkpoint(sharded(tmp_path / "in", weight_map))


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    sharded(tmp_path, {"a": "x-1.safetensors", "b": "x-2.safetensors"})
    save_file({"a": np.ones(2, "f4"), "b": np.zeros(3, "f4")}, tmp_path / "x-2.safetensors")
    with pytest.raises(DataError, match="a is in another shard"):
        open_checkpoint(tmp_path)


def written(folder, sizes, limit=10**9, more=lambda folder: None):
    tensors = {f"t{i}": np.full(size, i, "f4") for i, size in enumerate(sizes)}
    made = [Outgoing(name, tensor.nbytes, lambda tensor=tensor: tensor) for name, tensor in tensors.items()]
    safetensors_files.write_folder(folder, {"key": "kept"}, made, limit, more)
    return tensors


def test_what_is_written_is_cut_into_shards_with_an_index(tmp_path):
    tensors = written(tmp_path / "new", [4, 4, 4, 9, 1], limit=32)
    index = json.loads((tmp_path / "new" / safetensors_files.INDEX).read_text())
    assert index["metadata"]["total_size"] == 22 * 4
    assert [index["weight_map"][f"t{i}"][6:11] for i in range(5)] == ["00001", "00001", "00002", "00003", "00004"]
    checkpoint = open_checkpoint(tmp_path / "new")
    assert {name: checkpoint.read(name).tolist() for name in tensors} == {name: tensor.tolist() for name, tensor in tensors.items()}


def test_writing_again_leaves_no_old_weights_and_keeps_other_files(tmp_path):
    folder = tmp_path / "model"
    written(folder, [4, 4], limit=16)
    (folder / "README.md").write_text("mine")
    written(folder, [4])
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    assert set(open_checkpoint(folder).specs) == {"t0"}
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    folder = tmp_path / "model"
    before = written(folder, [4])

    def full(_):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        written(folder, [9, 9], more=full)
    assert sorted(os.listdir(tmp_path)) == ["model"]
    assert open_checkpoint(folder).read("t0").tolist() == before["t0"].tolist()
