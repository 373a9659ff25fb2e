"""Starting from a checkpoint: bodies are read, heads are drawn; Hugging Face folders and runs, layouts, a mesh, what is refused."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

import jaxlm
from jaxlm import config, pretrained, sharding
from jaxlm.config import Compute, Mesh
from jaxlm.errors import ConfigError, DataError
from jaxlm.models import electra, init_params, make_model
from jaxlm.training import checkpoint
from jaxlm.training.tuning import assemble, divide
from tests.foreign import BERT, LLAMA, bert_folder, config_of, made, tensors_of, write


def starting(config=BERT, task="sequence-classification", layout="unrolled", **changes):
    """A model that shall start from a checkpoint, and its parameters, and what of them is new."""
    return make_model(dataclasses.replace(config, **changes), Compute(layout=layout), task)


@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
def test_a_body_is_read_and_a_head_is_drawn(tmp_path, layout):
    folder, said = bert_folder(tmp_path), []
    model = starting(num_labels=3, layout=layout)
    params, new = pretrained.load_body(folder, model, jax.random.key(1), said.append)
    head = {f"{name}/{leaf}" for name in ("classifier/out", "pooler/dense") for leaf in ("kernel", "bias")}
    assert new == head == pretrained.new_parameters(folder, model)
    assert f"parameters from {folder}; new: classifier/out/bias, " in said[0]
    fresh = jax.jit(lambda: init_params(model, jax.random.key(1)))()
    body, drawn, found = (pretrained.paths(tree) for tree in (made(BERT, "masked-lm")[1], fresh, jaxlm.unstack(params)))
    assert pretrained.paths(params).keys() == drawn.keys() and drawn["classifier/out/kernel"].shape == (8, 3)
    assert all(jnp.array_equal(leaf, drawn[path] if path in head else body[path]) for path, leaf in found.items())


def test_a_head_for_other_labels_is_new_and_its_own_is_kept(tmp_path):
    own = starting(num_labels=2)
    jaxlm.save(tmp_path, own, made(BERT, "sequence-classification")[1])
    params, new = pretrained.load_body(tmp_path, own, jax.random.key(0))
    assert new == set()
    assert all(map(jnp.array_equal, jax.tree.leaves(params), jax.tree.leaves(made(BERT, "sequence-classification")[1])))
    assert pretrained.new_parameters(tmp_path, starting(num_labels=5)) == {"classifier/out/kernel", "classifier/out/bias"}
    assert pretrained.new_parameters(tmp_path, starting(task="question-answering")) == {"span/out/kernel", "span/out/bias"}


def test_parameters_are_trained_in_float32(tmp_path):
    tensors, said = {name: tensor.astype(jnp.bfloat16) for name, tensor in tensors_of(BERT, "masked-lm").items()}, []
    params, _ = pretrained.load_body(
        write(tmp_path, config_of(BERT, "BertForMaskedLM"), tensors), starting(), jax.random.key(0), said.append
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"} and "(bfloat16 there, float32 in training)" in said[0]


def test_a_mesh_gets_the_body_where_it_belongs(tmp_path):
    even = dataclasses.replace(BERT, vocab_size=32)
    jaxlm.save(tmp_path / "even", *made(even, "masked-lm"))
    with sharding.use(sharding.make_mesh(Mesh(data=2, fsdp=2, tensor=2))):
        model = starting(even, layout="stacked")
        params, _ = pretrained.load_body(tmp_path / "even", model, jax.random.key(0))
        placed = pretrained.paths(pretrained.abstract_params(model))
        assert all(leaf.sharding.spec == placed[path].sharding.spec for path, leaf in pretrained.paths(params).items())
    alone, _ = pretrained.load_body(tmp_path / "even", model, jax.random.key(0))
    assert all(map(jnp.allclose, jax.tree.leaves(params), jax.tree.leaves(alone)))  # what is drawn differs in the last place


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (starting(hidden_size=16), "does not have layers/0/attn/k/bias and .* more .*; it has hidden_size=8, not 16: leave `model` out"),
        (starting(vocab_size=40), "does not have word as the run's model needs it; it has vocab_size=31, not 40"),
        (starting(num_hidden_layers=3), "num_hidden_layers=2, not 3"),
        (make_model(LLAMA, task="sequence-classification"), "is of the family bert, the run's model llama"),
    ],
)
def test_another_body_is_refused_with_the_keys_that_differ(tmp_path, model, message):
    with pytest.raises(DataError, match=message) as caught:
        pretrained.load_body(bert_folder(tmp_path), model, jax.random.key(0))
    assert "\n" not in str(caught.value)


def test_a_missing_part_of_the_body_is_damage(tmp_path):
    tensors = dict(tensors_of(BERT, "masked-lm"))
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    with pytest.raises(DataError, match="does not have layers/1/mlp/down/kernel .*damaged or incomplete"):
        pretrained.new_parameters(write(tmp_path, config_of(BERT, "BertForMaskedLM"), tensors), starting())


def test_an_untied_checkpoint_wants_an_untied_model(tmp_path):
    untied = dataclasses.replace(BERT, tie_word_embeddings=False)
    jaxlm.save(tmp_path, *made(untied, "masked-lm"))
    assert pretrained.read_config(tmp_path).tie_word_embeddings is False
    with pytest.raises(DataError, match="tie_word_embeddings=false"):
        pretrained.new_parameters(tmp_path, starting(task="masked-lm"))
    assert pretrained.new_parameters(tmp_path, starting(untied, task="masked-lm")) == set()


def test_the_configuration_of_a_checkpoint(tmp_path):
    config = pretrained.read_config(bert_folder(tmp_path))
    assert dataclasses.replace(config, extra=BERT.extra) == BERT


def test_a_run_that_has_begun_keeps_its_configuration(tmp_path):
    """The same line goes on when the pretrained model is gone."""
    run = config.Run(pretrained=str(tmp_path / "gone"), workdir=str(tmp_path))
    begun = dataclasses.replace(run, model=dataclasses.replace(BERT, num_labels=3))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(begun)))
    assert pretrained.read_model(run) == begun.model


@pytest.mark.parametrize(("there", "here"), [("unrolled", "stacked"), ("stacked", "unrolled"), ("stacked", "stacked")])
def test_a_run_is_a_checkpoint_too(tmp_path, there, here):
    """Of whatever layout; its low-rank updates are in the matrices."""
    model, params = made(BERT, "masked-lm")
    tuning = config.Tuning(lora_rank=2, freeze=("ln",))
    trained, frozen = divide(jaxlm.stack(params) if there == "stacked" else params, tuning, (), jax.random.key(0))
    trained = jax.tree.map(lambda leaf: leaf + 1, trained)
    run = config.Run(model=BERT, task="masked-lm", compute=Compute(layout=there), tuning=tuning, workdir=str(tmp_path / "run"))
    files = {"config.json": json.dumps(config.to_dict(run)).encode()}
    with contextlib.closing(checkpoint.Writer(tmp_path / "run", 1, files)) as writer:
        writer.save(3, {"params": trained, "ema": jax.tree.map(lambda leaf: leaf * 2, trained), "frozen": frozen}, block=True)
    whole = assemble(jax.tree.map(lambda leaf: leaf * 2, trained), frozen)
    assert all(map(jnp.array_equal, jax.tree.leaves(jaxlm.load(tmp_path / "run")[1]), jax.tree.leaves(whole)))
    start = starting(layout=here)
    found, new = pretrained.load_body(tmp_path / "run", start, jax.random.key(0))
    wanted, found = pretrained.paths(jaxlm.unstack(whole)), pretrained.paths(jaxlm.unstack(found))
    assert new == pretrained.new_parameters(tmp_path / "run", start) and {path.split("/")[0] for path in new} == {"classifier", "pooler"}
    assert all(jnp.array_equal(leaf, wanted[path]) for path, leaf in found.items() if path not in new)
    assert pretrained.read_config(tmp_path / "run") == BERT
    with pytest.raises(DataError, match="hidden_size=8, not 16"):
        pretrained.new_parameters(tmp_path / "run", starting(hidden_size=16))
    pretrained.convert(tmp_path / "run", tmp_path / "hf")
    same = pretrained.paths(jaxlm.load(tmp_path / "hf")[1])
    assert all(jnp.array_equal(leaf, wanted[path]) for path, leaf in same.items())


def test_of_electras_pair_the_discriminator_is_kept(tmp_path):
    sizes = {name: getattr(BERT, name) for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    small = electra.Config(**sizes, embedding_size=8, intermediate_size=12, max_position_embeddings=10)
    run = config.Run(model=small, task="replaced-tokens", masking=config.Masking(generator=0.5), workdir=str(tmp_path / "run"))
    pair = make_model(small, task=run.task, masking=run.masking)
    params = jax.jit(lambda: init_params(pair, jax.random.key(0)))()
    files = {"config.json": json.dumps(config.to_dict(run)).encode()}
    with contextlib.closing(checkpoint.Writer(tmp_path / "run", 1, files)) as writer:
        writer.save(3, {"params": params}, block=True)
    assert jaxlm.load(tmp_path / "run")[0] == pair
    model, alone = jaxlm.load(tmp_path / "run", task="pretraining")
    assert model == pair.discriminator and alone.keys() == params["discriminator"].keys()
    start = make_model(small, task="sequence-classification")
    found, new = pretrained.load_body(tmp_path / "run", start, jax.random.key(0))
    assert new == {f"sequence/{part}/{leaf}" for part in ("dense", "out") for leaf in ("kernel", "bias")}
    assert jnp.array_equal(found["layers"]["1"]["mlp"]["up"]["kernel"], params["discriminator"]["layers"]["1"]["mlp"]["up"]["kernel"])
    pretrained.convert(tmp_path / "run", tmp_path / "hf")
    assert jaxlm.load(tmp_path / "hf")[0].task == "pretraining"
    with pytest.raises(ConfigError, match="leave `pretrained` out"):
        pretrained.load_body(tmp_path / "hf", pair, jax.random.key(0))
