"""Positions against counting by hand."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.ops.positions import from_mask, from_segments, shift_right, sinusoids


def test_from_mask_counts_real_tokens_on_either_side():
    mask = jnp.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    want = [[0, 1, 2, 2, 2], [0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]]
    positions = from_mask(mask)
    assert positions.tolist() == want and positions.dtype == jnp.int32


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_from_segments_restarts_with_each(lengths):
    segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    row = np.zeros(16, np.int32)
    row[: len(segments)] = segments
    want = [i for n in [*lengths, 16 - len(segments)] for i in range(n)]
    assert from_segments(jnp.array([row]))[0].tolist() == want


def test_rows_do_not_touch():
    assert from_segments(jnp.array([[1, 1], [1, 1]])).tolist() == [[0, 1], [0, 1]]


def test_sinusoids_are_the_equation():
    table = sinusoids(50, 6)
    for pos in (0, 1, 49):
        for i in range(3):
            angle = pos / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(table[pos, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(sinusoids(50, 6, interleaved=False), np.concatenate([table[:, ::2], table[:, 1::2]], 1))


def test_shift_right_begins_every_segment():
    targets = jnp.array([[5, 6, 7, 8, 9]])
    assert shift_right(targets, 2).tolist() == [[2, 5, 6, 7, 8]]
    assert shift_right(targets, 2, jnp.array([[1, 1, 2, 2, 0]])).tolist() == [[2, 5, 2, 7, 2]]
