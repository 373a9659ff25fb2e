"""Hostile files: good small ones with bytes changed, cut, repeated. Either they load, or there is one DataError; nothing else.

500 cases here, 10,000 by `pytest -m slow`. What is read is read to its end, and memory stays bounded.
"""

import json
import resource
import warnings
from pathlib import Path

import flax.serialization
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import jaxlm
from jaxlm.errors import DataError
from jaxlm.weights import flax_files, folders, gguf_models, safetensors_files
from tests.foreign import BERT, bert_folder, config_of, flax_tree, gguf_file, tensors_of

NUMBERS = [0, 1, 7, 8, 127, 128, 255]
WORDS = [
    b"\xff" * 8,
    b"\0" * 8,
    (2**62).to_bytes(8, "little"),
    (2**31).to_bytes(4, "little"),
    b'"',
    b"[",
    b"-1",
    b"99999999999",
    b"../",
    b"\xdf",
]


@st.composite
def changed(draw, good: bytes) -> bytes:
    """A good file with up to five changes; most of them near its beginning, where the header is."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 5))):
        reach = draw(st.sampled_from([32, 256, len(data)]))
        place = draw(st.integers(0, max(0, min(reach, len(data)) - 1)))
        match draw(st.sampled_from(["set", "set", "word", "cut", "drop", "repeat"])):
            case "set":
                data[place : place + 1] = bytes([draw(st.one_of(st.sampled_from(NUMBERS), st.integers(0, 255)))])
            case "word":
                word = draw(st.sampled_from(WORDS))
                data[place : place + len(word)] = word
            case "cut":
                del data[place:]
            case "drop":
                del data[place : place + draw(st.integers(1, 16))]
            case "repeat":
                data[place:place] = data[place : place + draw(st.integers(1, 64))]
    return bytes(data)


def small():
    return {"a.weight": np.arange(6, dtype="f4").reshape(2, 3), "b.bias": np.ones(3, "f2")}


def read_all(checkpoint):
    for name, spec in checkpoint.specs.items():
        assert checkpoint.read(name).shape == spec.shape


def safetensors_case(folder: Path):
    good = save(small())

    def check(data):
        (folder / "model.safetensors").write_bytes(data)
        read_all(safetensors_files.open_folder(folder, {}))

    return good, check


def index_case(folder: Path):
    (folder / "x-1.safetensors").write_bytes(save({"a": np.ones(2, "f4")}))
    (folder / "x-2.safetensors").write_bytes(save({"b": np.ones(2, "f4")}))
    good = json.dumps({"metadata": {"total_size": 16}, "weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}).encode()

    def check(data):
        (folder / safetensors_files.INDEX).write_bytes(data)
        read_all(safetensors_files.open_folder(folder, {}))

    return good, check


def flax_case(folder: Path):
    flax.serialization.MAX_CHUNK_SIZE, kept = 8, flax.serialization.MAX_CHUNK_SIZE
    good = flax.serialization.msgpack_serialize({"a": {"kernel": small()["a.weight"]}, "b": {"bias": np.ones(2, "f4")}})
    flax.serialization.MAX_CHUNK_SIZE = kept

    def check(data):
        (folder / flax_files.FILE).write_bytes(data)
        read_all(flax_files.open_folder(folder, {}))

    return good, check


def gguf_case(folder: Path):
    good = gguf_file(folder / "good.gguf", {"model.layers.0.mlp.up_proj.weight": "Q8_0"}).read_bytes()

    def check(data):
        (folder / "m.gguf").write_bytes(data)
        checkpoint = gguf_models.open_checkpoint(folder / "m.gguf")
        assert all(spec.nbytes <= 10 * len(data) for spec in checkpoint.specs.values())
        jaxlm.load_tokenizer(folder / "m.gguf")

    return good, check


CASES = {"safetensors": safetensors_case, "index": index_case, "flax": flax_case, "gguf": gguf_case}


def fuzz(case, folder, count):
    good, check = CASES[case](folder)
    check(good)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"loaded": 0, "refused": 0}

    @settings(max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(changed(good))
    def run(data):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                check(data)
            outcomes["loaded"] += 1
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            outcomes["refused"] += 1

    run()
    assert outcomes["refused"] > count // 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes"


@pytest.mark.parametrize("case", CASES)
def test_a_changed_file_loads_or_is_refused(case, tmp_path):
    fuzz(case, tmp_path, 125)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_ten_thousand_changed_files_load_or_are_refused(case, tmp_path):
    fuzz(case, tmp_path, 2500)


@settings(max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_gguf_model_loads_or_is_refused(tmp_path_factory, data):
    path = gguf_file(tmp_path_factory.mktemp("gguf") / "m.gguf", vocabulary=False)
    path.write_bytes(data.draw(changed(path.read_bytes())))
    try:
        jaxlm.load(path)
    except DataError as error:
        assert "\n" not in str(error)


NUMBER = st.one_of(st.integers(-5, 5), st.integers(), st.floats(), st.sampled_from([2**31, 2**63, 10**30]))
ANY = st.one_of(
    st.none(),
    st.booleans(),
    NUMBER,
    st.text(max_size=5),
    st.lists(NUMBER, max_size=2),
    st.dictionaries(st.text(max_size=3), NUMBER, max_size=2),
)


@settings(max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(key=st.sampled_from(sorted(config_of(BERT, "")) + ["hidden_act", "tie_word_embeddings", "id2label", "layer_norm_eps"]), value=ANY)
def test_a_changed_config_loads_or_is_refused(tmp_path_factory, key, value):
    folder = bert_folder(tmp_path_factory.mktemp("bert"))
    config = config_of(BERT, "BertForMaskedLM") | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    try:
        jaxlm.load(folder)
    except DataError as error:
        assert "\n" not in str(error)


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=changed(json.dumps(config_of(BERT, "BertForMaskedLM")).encode()))
def test_changed_json_loads_or_is_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flax")
    (folder / flax_files.FILE).write_bytes(flax.serialization.msgpack_serialize(flax_tree(tensors_of(BERT, "masked-lm"))))
    (folder / "config.json").write_bytes(data)
    try:
        folders.open_checkpoint(folder)
    except DataError as error:
        assert "\n" not in str(error)
