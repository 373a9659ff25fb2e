"""Load and save: what a path may be, types, layouts, and what is refused."""

import json
import sys

import jax
import jax.numpy as jnp
import pytest
from safetensors.numpy import load_file

import jaxlm
from jaxlm import pretrained
from jaxlm.config import Compute
from jaxlm.errors import ConfigError, DataError
from jaxlm.models import make_model
from tests.foreign import BERT, bert_folder, config_of, made, tensors_of, write


def test_a_round_trip_is_byte_equal_and_keeps_every_key(tmp_path):
    config = config_of(BERT, "BertForMaskedLM") | {"torch_dtype": "bfloat16", "unknown": {"nested": [1, None]}, "pad_token_id": 0}
    tensors = {name: tensor.astype(jnp.bfloat16) for name, tensor in tensors_of(BERT, "masked-lm").items()}
    tensors["bert.embeddings.LayerNorm.weight"] = tensors["bert.embeddings.LayerNorm.weight"].astype("f4")  # a mixture
    model, params = jaxlm.load(write(tmp_path / "a", config, tensors))
    assert model.compute.dtype == "bfloat16" and params["ln"]["scale"].dtype == jnp.float32
    jaxlm.save(tmp_path / "b", model, params)
    theirs, ours = (load_file(tmp_path / side / "model.safetensors") for side in "ab")
    assert theirs.keys() == ours.keys()
    assert all(theirs[name].dtype == ours[name].dtype and theirs[name].tobytes() == ours[name].tobytes() for name in theirs)
    after = json.loads((tmp_path / "b" / "config.json").read_text())
    assert {key: after.get(key, "lost") for key in config} == config


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_casts_parameters_and_activations(tmp_path, dtype):
    config = config_of(BERT, "BertForMaskedLM") | {"dtype": "float32"}
    model, params = jaxlm.load(write(tmp_path / "a", config, tensors_of(BERT, "masked-lm")), dtype=dtype)
    assert model.compute.dtype == dtype and {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {dtype}
    jaxlm.save(tmp_path / "b", model, params)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == dtype


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'float16'"):
        jaxlm.load(bert_folder(tmp_path), dtype="flot16")


def test_the_task_is_the_architectures_or_the_callers(tmp_path):
    folder = bert_folder(tmp_path / "a")
    assert jaxlm.load(folder)[0].task == "masked-lm"
    model, params = jaxlm.load(folder, task="features")
    assert "pooler" not in params and "vocabulary" not in params
    assert model.apply({"params": params}, jnp.ones((1, 3), jnp.int32)).pooled is None
    bert_folder(tmp_path / "b", architecture="BertForSomethingElse")
    with pytest.raises(DataError, match="names BertForSomethingElse: give task=, one of masked-lm"):
        jaxlm.load(tmp_path / "b")
    with pytest.raises(DataError, match="missing classifier.weight"):
        jaxlm.load(folder, task="sequence-classification")


def test_stacked_layers_are_saved_one_by_one(tmp_path):
    model, params = made(BERT, "masked-lm")
    stacked = make_model(BERT, Compute(layout="stacked"), "masked-lm")
    jaxlm.save(tmp_path / "a", model, params)
    jaxlm.save(tmp_path / "b", stacked, jaxlm.stack(params))
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_large_models_are_cut_into_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "SHARD", 3000)
    model, params = made(BERT, "masked-lm")
    jaxlm.save(tmp_path / "a", model, params)
    assert len(list((tmp_path / "a").glob("model-*.safetensors"))) > 1
    again = pretrained.paths(jaxlm.load(tmp_path / "a")[1])
    assert all(jnp.array_equal(leaf, again[path]) for path, leaf in pretrained.paths(params).items())


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_pickle_is_refused_with_what_to_do(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
    with pytest.raises(DataError, match="could run code; .*save_pretrained") as caught:
        jaxlm.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_nothing_says_what_it_should_be(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match="holds no weights"):
        jaxlm.load(tmp_path)
    with pytest.raises(DataError, match="is no GGUF file"):
        jaxlm.load(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="there is no .*missing: give a run directory"):
        jaxlm.load(tmp_path / "missing")
    bert_folder(tmp_path / "a")
    (tmp_path / "a" / "config.json").unlink()
    with pytest.raises(DataError, match="config.json cannot be read"):
        jaxlm.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "brt"}, "did you mean 'bert'"),
        ({"model_type": None}, "model_type=None is not known"),
        ({"num_attention_heads": 0}, "no model has|can be built"),
        ({"num_hidden_layers": 10**9}, "no model has layers=1000000000"),
        ({"hidden_size": 10**12}, "no model has embed=1000000000000"),
        ({"hidden_size": "large"}, "hidden_size='large'"),
    ],
)  # fmt: skip
def test_an_absurd_configuration_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        jaxlm.load(write(tmp_path, config_of(BERT, "BertForMaskedLM") | change, tensors_of(BERT, "masked-lm")))


class Hub:
    """A hub that holds one repository, in place of the real one."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []

    def snapshot_download(self, name, allow_patterns, local_files_only):
        self.asked.append((name, allow_patterns[-1], local_files_only))
        if name != "owner/bert":
            raise OSError("401 Client Error\nRepository not found")
        return str(self.folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    made = Hub(bert_folder(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return made


def test_a_name_that_is_no_path_is_looked_up_on_the_hub(hub):
    assert jaxlm.load("owner/bert")[0].task == "masked-lm"
    assert hub.asked == [("owner/bert", "model*.safetensors", False)]
    (hub.folder / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\nthe")
    assert jaxlm.load_tokenizer("owner/bert").encode("the") == [1, 3, 2]
    with pytest.raises(DataError, match="the hub does not give it .*check the name") as caught:
        jaxlm.load("owner/other")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_switches_are_respected(hub, monkeypatch, switch):
    monkeypatch.setenv(switch, "1")
    jaxlm.load("owner/bert")
    assert hub.asked[0][2] is True


def test_a_folder_that_exists_is_never_asked_for(hub, tmp_path):
    (tmp_path / "owner" / "bert").mkdir(parents=True)
    (tmp_path / "owner" / "bert" / "notes").write_text("")
    with pytest.raises(DataError, match="holds no weights"):
        jaxlm.load("owner/bert")
    assert hub.asked == []


def test_without_the_extra_the_line_to_install_is_named(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install 'jaxlm\[hub\]'"):
        jaxlm.load("owner/bert")
