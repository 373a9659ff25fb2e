"""Matrices laid by their outputs: the same products, the same texts; and when they are laid so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Compute
from jaxlm.inference import beam, generate, turn
from jaxlm.layers.embed import unembed
from jaxlm.layers.linear import Linear
from jaxlm.models import bart, gpt2, init_params, llama, make_model, mixtral, t5
from jaxlm.ops.turned import Turned, by_rows, pays
from jaxlm.ops.turned import turn as turn_kernel

GPT2 = gpt2.Config(vocab_size=61, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
LLAMA = llama.Config(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
    max_position_embeddings=64, initializer_range=0.3,
)  # fmt: skip
T5 = t5.Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
BART = bart.Config(
    vocab_size=64, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
    encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, init_std=0.3,
)  # fmt: skip
PROMPTS = np.random.default_rng(0).integers(3, 60, (5, 7)).astype(np.int32)


@functools.cache
def made(config):
    model = make_model(config)
    return model, jax.jit(lambda: init_params(model, jax.random.key(0)))()


def turned(tree):
    """Paths of the turned matrices."""
    is_turned = lambda leaf: isinstance(leaf, Turned)
    found = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_turned)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, leaf in found if is_turned(leaf)]


@pytest.mark.parametrize("rows", [61, 64, 2])
def test_a_product_by_rows_is_the_product(rows):
    x, table = jax.random.normal(jax.random.key(0), (5, 24)), jax.random.normal(jax.random.key(1), (rows, 24))
    np.testing.assert_allclose(by_rows(x, table), x @ table.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape, outputs", [((5, 1, 24), (3, 8)), ((5, 1, 3, 8), (24,)), ((2, 3, 24), (7,))])
def test_a_layer_multiplies_a_turned_kernel_alike(shape, outputs):
    inputs = len(shape) - 2
    layer = Linear(outputs, (None,) * (inputs + len(outputs)))
    x = jax.random.normal(jax.random.key(0), shape)
    params = layer.init(jax.random.key(1), x)["params"]
    params = {"kernel": jax.random.normal(jax.random.key(2), params["kernel"].shape), "bias": params["bias"] + 0.5}
    other = {**params, "kernel": turn_kernel(params["kernel"], inputs)}
    assert not np.array_equal(other["kernel"].values, params["kernel"])
    np.testing.assert_allclose(layer.apply({"params": other}, x), layer.apply({"params": params}, x), rtol=1e-5, atol=1e-5)


def test_logits_of_a_few_rows_are_those_of_many():
    hidden, table = jax.random.normal(jax.random.key(0), (40, 1, 24)), jax.random.normal(jax.random.key(1), (64, 24))
    assert pays(5, "float32") and not pays(40, "float32")
    few = unembed(hidden[:5], table, softcap=3.0, bias=jnp.arange(64.0))
    np.testing.assert_allclose(few, unembed(hidden, table, softcap=3.0, bias=jnp.arange(64.0))[:5], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [GPT2, LLAMA, T5, BART], ids=lambda config: config.model_type)
@pytest.mark.parametrize("named", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_texts_do_not_depend_on_it(config, named, monkeypatch):
    model, params = made(config)
    seen = []
    for module in (generate, beam):
        monkeypatch.setattr(module, "turn_for", lambda *call: seen.append(turn.turn_for(*call)) or seen[-1])
    write = lambda: generate.generate_tokens(model, params, PROMPTS, max_new_tokens=36, eos_token_id=(), **named)
    found = write()
    assert len(turned(seen[0])) >= 12
    monkeypatch.setattr(turn, "STEPS", 1000)
    np.testing.assert_array_equal(found, write())
    assert not turned(seen[1])


def test_what_writes_is_turned_and_nothing_else():
    model, params = made(T5)
    found = turned(turn.turn_for(model, params, 16, 64))
    assert found and all(path.startswith("decoder/layers/") and path.endswith("/kernel") for path in found)
    assert {path.split("/")[-2] for path in found} == {"q", "k", "v", "o", "up", "down"}


def test_where_it_does_not_pay_nothing_is_turned(monkeypatch):
    model, params = made(LLAMA)
    for rows, steps in ((1, 64), (64, 64), (16, 8)):
        assert turn.turn_for(model, params, rows, steps) is params
    assert turn.turn_for(make_model(LLAMA, Compute(dtype="bfloat16")), params, 16, 64) is params
    monkeypatch.setattr(turn, "BYTES", 1000)
    assert turn.turn_for(model, params, 16, 64) is params


def test_experts_are_left_as_they_are():
    config = mixtral.Config(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        num_local_experts=2, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    model, params = made(config)
    weights = turn.turn_for(model, params, 5, 64)
    found = model.apply({"params": weights}, PROMPTS).logits
    np.testing.assert_allclose(found, model.apply({"params": params}, PROMPTS).logits, rtol=1e-4, atol=1e-4)
    assert turned(weights) and not [path for path in turned(weights) if "experts" in path]
