"""Many texts of unequal lengths, packed: each gets the hidden states that it has alone."""

import jax
import numpy as np
import pytest

from jaxlm.errors import ConfigError
from jaxlm.inference.encode import _hidden, encode_texts, encode_tokens
from jaxlm.models import bert, init_params, make_model

CONFIG = bert.Config(
    vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=64
)
MODEL = make_model(CONFIG, task="features")
RANDOM = np.random.default_rng(0)
TEXTS = [RANDOM.integers(0, 50, length).tolist() for length in (3, 17, 1, 9, 20, 5, 12)]


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: init_params(MODEL, jax.random.key(0)))()


def test_each_text_as_if_alone_and_in_its_place(params):
    states = encode_tokens(MODEL, params, TEXTS, length=24, batch_tokens=48)
    for text, state in zip(TEXTS, states, strict=True):
        alone = MODEL.apply({"params": params}, np.array([text], np.int32)).hidden[0]
        np.testing.assert_allclose(state, alone, atol=1e-5)


def test_one_program_serves_all_batches(params):
    encode_tokens(MODEL, params, TEXTS, length=32, batch_tokens=32)
    compiled = _hidden._cache_size()
    encode_tokens(MODEL, params, TEXTS[::-1] * 3, length=32, batch_tokens=32)
    assert _hidden._cache_size() == compiled


def test_no_texts_empty_texts_and_long_ones(params):
    assert encode_tokens(MODEL, params, []) == []
    with pytest.raises(ConfigError, match="text 1 is empty"):
        encode_tokens(MODEL, params, [[1], []])
    with pytest.raises(ConfigError, match="text 1 has 65 tokens and a row takes 64"):
        encode_tokens(MODEL, params, [[1], [1] * 65])
    with pytest.raises(ConfigError, match="text 0 has 9 tokens and a row takes 8: cut it, or raise length up to 64"):
        encode_tokens(MODEL, params, [[1] * 9], length=8)


def test_texts_become_vectors(params):
    class Letters:
        def encode_batch(self, texts):
            return [[ord(letter) % 50 for letter in text] for text in texts]

    mean, first = (encode_texts(MODEL, params, Letters(), ["abc", "de"], pool=pool, length=8) for pool in ("mean", "first"))
    states = encode_tokens(MODEL, params, Letters().encode_batch(["abc", "de"]), length=8)
    np.testing.assert_allclose(mean[1], states[1].mean(0), atol=1e-6)
    np.testing.assert_allclose(first[0], states[0][0], atol=1e-6)
    with pytest.raises(ConfigError, match="neither"):
        encode_texts(MODEL, params, Letters(), ["abc"], pool="max")
