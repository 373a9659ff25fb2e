"""Old Flax folders: files of `flax.serialization` come back under torch's names; damaged ones are one DataError."""

import json

import flax.serialization
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest

import jaxlm
from jaxlm.errors import DataError
from jaxlm.pretrained import paths
from jaxlm.weights import flax_files
from tests.foreign import BERT, config_of, flax_tree, made, tensors_of

ARRAY = msgpack.ExtType(1, msgpack.packb(([2], "float32", b"\0" * 8)))


def folder_of(path, tree):
    path.mkdir(exist_ok=True)
    content = tree if isinstance(tree, bytes) else flax.serialization.msgpack_serialize(tree)
    (path / flax_files.FILE).write_bytes(content)
    return path


def opened(path):
    checkpoint = flax_files.open_folder(path, {})
    return {name: checkpoint.read(name) for name in checkpoint.specs}


def test_names_and_kernels_become_torchs(tmp_path):
    array = np.arange(6, dtype="f4").reshape(2, 3)
    tree = {"h": {"0": {"attn": {"kernel": array, "bias": array[0]}}, "ln": {"scale": array[0]}}, "wte": {"embedding": array}}
    found = opened(folder_of(tmp_path, tree))
    assert found["h.0.attn.weight"].tolist() == array.T.tolist()  # GPT-2's too: Flax kept them as [outputs, inputs]
    assert found["wte.weight"].tolist() == array.tolist() and found["h.ln.weight"].tolist() == found["h.0.attn.bias"].tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", ml_dtypes.bfloat16])
def test_every_type_and_size_of_array_is_read(tmp_path, dtype):
    sizes = (1, 7, 13, 60, 70, 300, 30_000, 70_000)  # each spelling of a length in msgpack
    arrays = {f"a{size}": (np.arange(size) % 2000).astype(dtype) for size in sizes} | {"scalar": np.ones((), dtype)}
    found = opened(folder_of(tmp_path, arrays))
    assert all(found[name].dtype == array.dtype and found[name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_an_array_in_chunks_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 40)
    array = np.arange(60, dtype="f4").reshape(5, 12)
    found = opened(folder_of(tmp_path, {"big": {"kernel": array}, "small": array[0, :3]}))
    assert found["big.weight"].tolist() == array.T.tolist() and found["small"].tolist() == [0, 1, 2]


def test_a_flax_bert_is_the_bert_it_was(tmp_path):
    folder_of(tmp_path, flax_tree(tensors_of(BERT, "masked-lm")))
    (tmp_path / "config.json").write_text(json.dumps(config_of(BERT, "BertForMaskedLM")))
    model, params = jaxlm.load(tmp_path)
    same, wanted = made(BERT, "masked-lm")
    assert model.task == "masked-lm" and np.abs(params["vocabulary"]["bias"]).max() > 0.1  # the bias that conversions lost
    for path, leaf in paths(wanted).items():
        assert jnp.array_equal(paths(params)[path], leaf), path


def test_shards_are_one_tree(tmp_path):
    flat = {"a/kernel": np.ones((2, 3), "f4"), "b/bias": np.zeros(3, "f4")}
    for number, (name, array) in enumerate(flat.items()):
        top, last = name.split("/")
        (tmp_path / f"flax_model-{number}.msgpack").write_bytes(flax.serialization.msgpack_serialize({top: {last: array}}))
    index = {"weight_map": {name: f"flax_model-{number}.msgpack" for number, name in enumerate(flat)}}
    (tmp_path / flax_files.INDEX).write_text(json.dumps(index))
    assert {name: array.shape for name, array in opened(tmp_path).items()} == {"a.weight": (3, 2), "b.bias": (3,)}


def packed(tree) -> bytes:
    return msgpack.packb(tree)


def deep(levels):
    tree = {"a": ARRAY}
    for _ in range(levels):
        tree = {"a": tree}
    return packed(tree)


HOSTILE = {
    "empty": (b"", "cannot be read"),
    "no map": (packed([1, 2]), "no readable Flax file"),
    "cut": (packed({"a": ARRAY})[:-3], "no readable Flax file"),
    "longer": (packed({"a": ARRAY}) + b"x", "bytes follow"),
    "a number for an array": (packed({"a": 3}), "a is no array"),
    "a string for an array": (packed({"a": "x" * 9}), "a is no array"),
    "a key that is no string": (packed({1: ARRAY}), "no key"),
    "a key twice": (b"\x82" + packed("a") + packed(ARRAY) + packed("a") + packed(ARRAY), "comes twice"),
    "another extension": (packed({"a": msgpack.ExtType(5, b"1234")}), "extension type"),
    "a code object": (packed({"a": msgpack.ExtType(1, packed(([1], "O", b"12345678")))}), "type O"),
    "a wrong size": (packed({"a": msgpack.ExtType(1, packed(([3], "float32", b"\0" * 8)))}), "does not fit its bytes"),
    "an absurd size": (packed({"a": msgpack.ExtType(1, packed(([2**62], "float32", b"\0" * 8)))}), "which is not read"),
    "a negative size": (packed({"a": msgpack.ExtType(1, packed(([-2], "float32", b"\0" * 8)))}), "which is not read"),
    "maps within maps": (deep(200), "maps within maps"),
    "a map of 4 billion": (b"\xdf\xff\xff\xff\xff", "no readable Flax file"),
    "chunks that do not fit": (
        packed({"a": {flax_files.CHUNKED: True, "shape": {"0": 5}, "chunks": {"0": ARRAY}}}), "do not make its shape",
    ),
    "two arrays of one name": (packed({"a": {"scale": ARRAY, "embedding": ARRAY}}), "are both a.weight"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_line(tmp_path, what):
    content, message = HOSTILE[what]
    with pytest.raises(DataError, match=message) as caught:
        opened(folder_of(tmp_path, content))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
