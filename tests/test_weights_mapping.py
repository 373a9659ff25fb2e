"""From tensors to parameters: old names, prefixes, copies, buffers; everything that is wrong is said at once."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

import jaxlm
from jaxlm import config, sharding
from jaxlm.errors import DataError
from jaxlm.models import gpt2
from jaxlm.pretrained import from_checkpoint, paths
from jaxlm.weights import mapping
from jaxlm.weights.folders import open_checkpoint
from jaxlm.weights.tensors import map_file
from tests.foreign import BERT, LLAMA, config_of, made, tensors_of, write

WORD = "bert.embeddings.word_embeddings.weight"


def bert(folder, change=lambda tensors: tensors, **keys):
    """A BERT's folder with changed tensors."""
    return write(folder, config_of(BERT, "BertForMaskedLM") | keys, change(dict(tensors_of(BERT, "masked-lm"))))


def same_as_made(folder):
    model, params, matched = from_checkpoint(open_checkpoint(folder), None, None)
    wanted, got = paths(made(BERT, model.task)[1]), paths(params)
    assert wanted.keys() == got.keys() and all(jnp.array_equal(got[path], wanted[path]) for path in wanted)
    return matched


def test_names_of_before_are_known(tmp_path):
    old = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    assert any(".gamma" in old(name) for name in tensors_of(BERT, "masked-lm"))
    same_as_made(bert(tmp_path, lambda tensors: {old(name): tensor for name, tensor in tensors.items()}))


def test_the_base_prefix_may_be_left_out(tmp_path):
    same_as_made(bert(tmp_path, lambda tensors: {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}))


def test_copies_and_buffers_are_named_and_left(tmp_path):
    copy, buffer = "cls.predictions.decoder.weight", "bert.embeddings.position_ids"
    more = {buffer: np.arange(10)[None], "cls.seq_relationship.weight": np.ones((2, 8), "f4")}
    matched = same_as_made(bert(tmp_path, lambda tensors: {**tensors, copy: tensors[WORD].copy(), **more}))
    assert matched.tied == {copy: WORD} and sorted(matched.dropped) == sorted(more)


def test_a_table_that_is_there_only_under_its_copys_name_is_found(tmp_path):
    def renamed(tensors):
        return {"cls.predictions.decoder.weight" if name == WORD else name: tensor for name, tensor in tensors.items()}

    same_as_made(bert(tmp_path, renamed))


def test_a_copy_that_differs_is_refused_or_unties(tmp_path):
    with pytest.raises(DataError, match=r"cls\.predictions\.decoder\.bias should repeat cls\.predictions\.bias and differs"):
        jaxlm.load(bert(tmp_path / "a", lambda tensors: {**tensors, "cls.predictions.decoder.bias": np.ones(31, "f4")}))
    keys = config_of(LLAMA, "LlamaForCausalLM") | {"num_key_value_heads": 2, "tie_word_embeddings": True}
    own = dataclasses.replace(LLAMA, tie_word_embeddings=False)
    model, params = jaxlm.load(write(tmp_path / "b", keys, tensors_of(own, "causal-lm")))
    assert not model.config.tie_word_embeddings and jnp.array_equal(params["lm_head"], made(own, "causal-lm")[1]["lm_head"])


def test_everything_that_is_wrong_is_listed_with_its_shape(tmp_path):
    def broken(tensors):
        tensors = {name: tensor for name, tensor in tensors.items() if "layer.1.output.dense" not in name}
        tensors["bert.encoder.layer.0.intermediate.dense.bias"] = np.ones(13, "f4")
        tensors["bert.encoder.layer.0.attention.self.query.bias"] = np.ones(8, "i4")
        return {**tensors, "bert.adapter.weight": np.ones((2, 2), "f4"), "embeddings.word_embeddings.weight": np.ones((31, 8), "f4")}

    with pytest.raises(DataError) as caught:
        jaxlm.load(bert(tmp_path, broken))
    for said in (
        "missing encoder.layer.1.output.dense.weight [8, 12]", "missing encoder.layer.1.output.dense.bias [8]",
        "bert.encoder.layer.0.intermediate.dense.bias is [13], not [12]", "unexpected bert.adapter.weight [2, 2]",
        "unexpected embeddings.word_embeddings.weight [31, 8]", "attention.self.query.bias holds int32",
    ):  # fmt: skip
        assert said in str(caught.value).replace("unexpected bert.embeddings", "unexpected embeddings"), said
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, dtype, value):
    def broken(tensors):
        tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
        tensors["bert.encoder.layer.1.output.dense.weight"][3, 5] = value
        return tensors

    with pytest.raises(DataError, match="layer.1.output.dense.weight holds values that are not finite"):
        jaxlm.load(bert(tmp_path, broken))


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16])
def test_large_finite_weights_are_not_refused(tmp_path, dtype):
    largest = float(ml_dtypes.finfo(dtype).max)
    folder = bert(tmp_path, lambda tensors: {name: np.full_like(tensor.astype(dtype), largest) for name, tensor in tensors.items()})
    assert float(jaxlm.load(folder)[1]["word"][0, 0]) == largest


def test_parameters_are_no_part_of_the_file(tmp_path):
    """A CPU device would take an aligned and contiguous tensor where it lies, in the mapped file."""
    (tmp_path / "file").write_bytes(np.ones(1024, "f4").tobytes())
    tensor = map_file(tmp_path / "file").view("f4")
    placed = [mapping._place(array, None, None, None) for array in (tensor, tensor.reshape(32, 32).T)]
    with (tmp_path / "file").open("r+b") as file:
        file.write(bytes(4096))
    assert tensor.sum() == 0 and all(leaf.sum() == 1024 for leaf in placed)


def test_each_tensor_goes_to_its_place_on_the_mesh(tmp_path):
    settings = dataclasses.replace(BERT, vocab_size=32)
    folder = write(tmp_path, config_of(settings, "BertForMaskedLM"), tensors_of(settings, "masked-lm"))
    mesh = sharding.make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))
    with sharding.use(mesh):
        model, params = jaxlm.load(folder)
        jaxlm.save(tmp_path / "again", model, params)
    kernel = params["layers"]["0"]["mlp"]["up"]["kernel"]
    assert kernel.sharding.mesh.shape == mesh.shape and kernel.sharding.spec == jax.sharding.PartitionSpec("fsdp", "tensor")
    assert kernel.addressable_shards[0].data.shape == (4, 6)
    assert all(jnp.array_equal(jax.device_get(leaf), paths(made(settings, "masked-lm")[1])[path]) for path, leaf in paths(params).items())
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert (
        all(tensor.tobytes() == again.pop(name).tobytes() for name, tensor in load_file(folder / "model.safetensors").items()) and not again
    )


def test_gpt2s_own_output_is_read(tmp_path):
    settings = gpt2.Config(vocab_size=31, n_positions=8, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=False)
    values = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "tie_word_embeddings": False}
    values |= {key: getattr(settings, key) for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")}
    tensors = tensors_of(settings, "causal-lm") | {"transformer.h.0.attn.bias": np.ones((1, 1, 8, 8), "f4")}
    _, params = jaxlm.load(write(tmp_path, values, tensors))
    assert jnp.array_equal(params["lm_head"], made(settings, "causal-lm")[1]["lm_head"])
    del tensors["lm_head.weight"]
    with pytest.raises(DataError, match=r"missing lm_head.weight \[31, 8\]"):
        jaxlm.load(write(tmp_path, values, tensors))
    assert json.loads((tmp_path / "config.json").read_text()) == values
