"""Folded caches of windowed layers: the same logits as whole ones, with no more slots than the window."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.layers.cache import make_cache
from jaxlm.layers.ring import fold_windows
from jaxlm.models import dims, gemma2, gemma3, init_params, make_model, mistral, qwen2, windows

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 64}
WINDOW = 4
CONFIGS = [
    mistral.Config(**SIZES, head_dim=8, sliding_window=WINDOW, initializer_range=0.3),
    gemma2.Config(**SIZES, head_dim=8, sliding_window=WINDOW, initializer_range=0.3),
    gemma3.Config(**SIZES, head_dim=8, sliding_window=WINDOW, sliding_window_pattern=2, initializer_range=0.3),
    qwen2.Config(**SIZES, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1, initializer_range=0.3),
]
PROMPT = np.array([[0, 0, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14], [0, 0, 0, 0, 0, 3]])
MASK = PROMPT > 0


@functools.cache
def made(config):
    model = make_model(config)
    return model, jax.jit(lambda: init_params(model, jax.random.key(1)))()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_a_folded_cache_says_what_the_whole_one_says(config):
    (model, params), known = made(config), dims(config)
    cache = make_cache(known.layers, (3, 16, known.kv_heads, known.head_size))
    apply = jax.jit(lambda tokens, cache, mask=None: model.apply({"params": params}, tokens, mask=mask, cache=cache))
    out = apply(PROMPT, cache, MASK)
    whole, folded = out.cache, fold_windows(out.cache, windows(config))
    for token in range(20, 29):
        one, other = (apply(jnp.full((3, 1), token), cache) for cache in (whole, folded))
        np.testing.assert_allclose(one.logits, other.logits, atol=2e-5)
        whole, folded = one.cache, other.cache
    slots = [layer["key"].shape[2] for layer in folded["layers"]]
    assert slots == [WINDOW if window else 16 for window in windows(config)] and WINDOW in slots


def test_only_a_cache_that_exceeds_the_window_is_folded_and_it_takes_one_token_at_a_time():
    (model, params), known = made(CONFIGS[0]), dims(CONFIGS[0])
    small = make_cache(known.layers, (1, WINDOW, known.kv_heads, known.head_size))
    assert fold_windows(small, windows(CONFIGS[0])) is small
    folded = fold_windows(make_cache(known.layers, (1, 8, known.kv_heads, known.head_size)), windows(CONFIGS[0]))
    assert fold_windows(folded, windows(CONFIGS[0])) is folded
    with pytest.raises(ValueError, match="one token at a time"):
        model.apply({"params": params}, jnp.ones((1, 2), jnp.int32), cache=folded)
