"""Filters of the next token's distribution against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.errors import ConfigError
from jaxlm.ops.sampling import GREEDY, Sampling, filter_logits, keep_top_k, keep_top_p, sample

LOGITS = jnp.log(jnp.array([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]]))


def kept(logits):
    return np.isfinite(logits).tolist()


def test_greedy_takes_the_likeliest():
    token = sample(LOGITS, GREEDY, jax.random.split(jax.random.key(0), len(LOGITS)))
    assert token.tolist() == [1, 0] and token.dtype == jnp.int32


@pytest.mark.parametrize(("k", "want"), [(1, [0, 1, 0, 0]), (2, [0, 1, 0, 1]), (4, [1] * 4), (99, [1] * 4)])
def test_top_k(k, want):
    assert kept(keep_top_k(LOGITS[:1], k)) == [[bool(x) for x in want]]


@pytest.mark.parametrize(
    ("p", "want"), [(0.01, [0, 1, 0, 0]), (0.39, [0, 1, 0, 0]), (0.41, [0, 1, 0, 1]), (0.8, [0, 1, 1, 1]), (0.95, [1] * 4)]
)
def test_top_p_is_the_smallest_set_that_reaches_it(p, want):
    assert kept(keep_top_p(LOGITS[:1], p)) == [[bool(x) for x in want]]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=7, max_size=7, unique=True), st.floats(0.05, 0.99))
def test_top_p_by_its_definition(values, p):
    order = np.argsort(values)[::-1]
    share = np.exp(np.float64(values)) / np.exp(np.float64(values)).sum()
    reached = np.cumsum(share[order])
    if np.abs(reached - p).min() < 1e-4:
        return  # on the edge, where rounding decides
    size = int(np.searchsorted(reached, p)) + 1
    left = np.flatnonzero(np.isfinite(keep_top_p(jnp.array([values], jnp.float32), p)[0]))
    assert sorted(left) == sorted(order[:size])


def test_top_p_counts_what_top_k_left():
    both = filter_logits(LOGITS[:1], Sampling(top_k=2, top_p=0.5))  # 0.4 / 0.7 already reaches a half
    assert kept(both) == [[False, True, False, False]]


def test_temperature_comes_first():
    assert kept(filter_logits(LOGITS[:1], Sampling(temperature=0.2, top_p=0.75))) == [[False, True, False, False]]
    np.testing.assert_allclose(filter_logits(LOGITS, Sampling(temperature=2.0)), LOGITS / 2, rtol=1e-6)


def test_draws_follow_the_distribution():
    many = jnp.broadcast_to(LOGITS[0], (20_000, 4))
    shares = np.bincount(sample(many, Sampling(top_k=3), jax.random.split(jax.random.key(1), 20_000)), minlength=4) / 20_000
    np.testing.assert_allclose(shares, [0, 4 / 9, 2 / 9, 3 / 9], atol=0.02)


def test_the_same_key_draws_the_same():
    draw = lambda seed: sample(jnp.zeros((50, 100)), Sampling(), jax.random.split(jax.random.key(seed), 50)).tolist()
    assert draw(0) == draw(0) != draw(1)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"temperature": -1.0}, "temperature"), ({"top_k": 0}, "top_k"), ({"top_p": 0.0}, "top_p"), ({"top_p": 1.1}, "top_p")],
)
def test_refuses_what_has_no_meaning(arguments, word):
    with pytest.raises(ConfigError, match=word):
        Sampling(**arguments)
