"""Filters of the next token's distribution against their definitions."""

import itertools

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
    [({"temperature": -1.0}, "temperature"), ({"top_k": 0}, "top_k"), ({"top_p": 0.0}, "top_p"), ({"top_p": 1.1}, "top_p")]
    + [
        ({"temperature": float("nan")}, "temperature"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 2.0}, "min_p"),
        ({"typical_p": 0.0}, "typical"),
    ],
)
def test_refuses_what_has_no_meaning(arguments, word):
    with pytest.raises(ConfigError, match=word):
        Sampling(**arguments)


FILTERS = [{"temperature": 0.7}, {"temperature": 1.8}, {"top_k": 1}, {"top_k": 7}, {"top_k": 99}, {"top_p": 0.3}, {"top_p": 0.9}]
FILTERS += [{"min_p": 0.05}, {"min_p": 0.6}, {"typical_p": 0.2}, {"typical_p": 0.95}]
PAIRS = [one | other for one, other in itertools.combinations(FILTERS, 2) if not one.keys() & other.keys()]
ALL = {"temperature": 1.3, "top_k": 9, "top_p": 0.8, "min_p": 0.02, "typical_p": 0.9}


def theirs(logits, named, least):
    """Transformers' filters in the order of its `generate`."""
    import torch
    from transformers import generation

    kinds = {"temperature": "Temperature", "top_k": "TopK", "top_p": "TopP", "min_p": "MinP", "typical_p": "Typical"}
    for name, kind in kinds.items():
        if name in named:
            more = {} if name == "temperature" else {"min_tokens_to_keep": least}
            logits = getattr(generation, f"{kind}LogitsWarper")(named[name], **more)(None, torch.as_tensor(logits))
    return logits.softmax(-1).numpy()


@pytest.mark.parametrize("least", [1, 2, 3])
def test_filters_alone_and_in_pairs_are_those_of_transformers(least):
    logits = np.random.default_rng(least).normal(0, 2, (5, 13)).astype(np.float32)
    logits[1, ::2] = -np.inf  # what a ban has left
    for named in (*FILTERS, *PAIRS, ALL):
        ours = jax.nn.softmax(filter_logits(jnp.asarray(logits), Sampling(**named, least=least)))
        np.testing.assert_allclose(ours, theirs(logits, named, least), atol=1e-5, err_msg=str(named))


def test_a_row_is_drawn_by_its_own_key():
    logits, keys = jax.random.normal(jax.random.key(1), (5, 40)), jax.random.split(jax.random.key(2), 5)
    order = jnp.array([3, 0, 4])
    assert (sample(logits, Sampling(), keys)[order] == sample(logits[order], Sampling(), keys[order])).all()
