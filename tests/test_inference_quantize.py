"""Generation with weights and caches of few bits: how far from float32, how small, and through the public door."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.errors import ConfigError
from jaxlm.inference.generate import generate
from jaxlm.inference.quantize import dense, quantize_params, size
from jaxlm.layers.cache import make_cache
from jaxlm.models import dims, init_params, llama, make_model, t5

CONFIG = llama.Config(
    vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
    max_position_embeddings=64, initializer_range=0.1,
)  # fmt: skip
TOKENS = np.arange(24, dtype=np.int32)[None] % 60 + 3


@functools.cache
def made():
    model = make_model(CONFIG)
    return model, jax.jit(lambda: init_params(model, jax.random.key(0)))()


def distance(one, other):
    return float(jnp.linalg.norm(one - other) / jnp.linalg.norm(other))


def test_few_bits_are_small_and_as_near_as_their_steps():
    """A step of 4 bits is some 254 / 15 times as long as one of 8; the table has 8 bits in either."""
    model, params = made()
    want, far = model.apply({"params": params}, TOKENS).logits, {}
    for bits, share in ((8, 0.28), (4, 0.2)):
        few = quantize_params(params, bits)
        assert size(few) < share * size(params)
        far[bits] = distance(model.apply({"params": dense(few)}, TOKENS).logits, want)
    assert 0 < far[8] < 0.05
    assert 0.4 < far[4] / far[8] / (254 / 15) < 1.5


def test_generation_takes_them_as_they_are():
    model, params = made()
    few = jaxlm.quantize_params(params, 8)
    one = jaxlm.generate_tokens(model, few, TOKENS, max_new_tokens=8)
    np.testing.assert_array_equal(one, jaxlm.generate_tokens(model, dense(few), TOKENS, max_new_tokens=8))
    beams = jaxlm.generate_tokens(model, few, TOKENS, max_new_tokens=8, num_beams=2)
    np.testing.assert_array_equal(beams, jaxlm.generate_tokens(model, dense(few), TOKENS, max_new_tokens=8, num_beams=2))


def test_other_bits_and_stacked_layers_are_refused():
    with pytest.raises(ConfigError, match="bits=5"):
        quantize_params(made()[1], 5)
    with pytest.raises(ConfigError, match="compute.layout=unrolled"):
        quantize_params(jaxlm.stack(made()[1]), 8)


def test_an_int8_cache_is_small_and_near():
    model, params = made()
    known = dims(CONFIG)
    whole, few = (make_cache(known.layers, (1, 32, known.kv_heads, known.head_size), dtype) for dtype in ("float32", "int8"))
    assert size(few["layers"]) < 0.32 * size(whole["layers"])  # a quarter, and a scale for 16 numbers
    one, other = (model.apply({"params": params}, TOKENS, cache=cache) for cache in (whole, few))
    assert 0 < distance(other.logits, one.logits) < 0.02
    one, other = (model.apply({"params": params}, TOKENS[:, :1], cache=out.cache) for out in (one, other))
    assert 0 < distance(other.logits, one.logits) < 0.02


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_the_cache_of_a_call_may_be_int8(kind):
    if kind == "llama":
        model, params = made()
    else:
        model = make_model(t5.Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4))
        params = jax.jit(lambda: init_params(model, jax.random.key(0)))()
    exact = generate(model, params, TOKENS, max_new_tokens=6, logprobs=0, eos_token_id=())
    few = generate(model, params, TOKENS, max_new_tokens=6, logprobs=0, eos_token_id=(), cache_dtype="int8")
    assert abs(few.logprobs[0, 1] - exact.logprobs[0, 1]) < 0.1
    assert not np.array_equal(few.logprobs, exact.logprobs)
