"""Small integers times a scale: as near as the bits allow, exact where they can be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops.quantize import MOST, STEPS, quantize, quantize_between, quantize_matrix


def test_numbers_come_back_within_half_a_step():
    x = jax.random.normal(jax.random.key(0), (6, 33))
    values, scale = quantize(x, -1)
    assert values.dtype == jnp.int8 and scale.shape == (6, 1)
    np.testing.assert_array_less(jnp.abs(values.astype(jnp.float32) * scale - x), jnp.broadcast_to(scale / 2 + 1e-6, x.shape))
    assert int(jnp.abs(values.astype(jnp.int32)).max()) == MOST


def test_four_bits_reach_from_the_least_to_the_largest():
    """Also where all numbers are far from 0; scale and least are rounded to 8 bits themselves."""
    x = jax.random.normal(jax.random.key(0), (6, 33)) + jnp.arange(6.0)[:, None]
    values, scale, least = quantize_between(x, -1)
    assert values.dtype == jnp.uint4 and scale.shape == least.shape == (6, 1) and scale.dtype == least.dtype == jnp.bfloat16
    back = values.astype(jnp.float32) * scale.astype(jnp.float32) + least.astype(jnp.float32)
    np.testing.assert_array_less(jnp.abs(back - x), jnp.broadcast_to(scale * 0.5 + jnp.abs(x).max() * 2**-7, x.shape))
    assert (values.astype(jnp.int32).min(1) == 0).all() and (values.astype(jnp.int32).max(1) == STEPS).all()
    assert jnp.abs(back - x).mean() < 0.4 * scale.astype(jnp.float32).mean()


def test_zeros_and_whole_steps_are_exact():
    x = jnp.array([[0.0, 127.0, -3.0], [0.0, 0.0, 0.0]])
    values, scale = quantize(x, -1)
    np.testing.assert_array_equal(values * scale, x)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("shape", "inputs", "scales"), [((32, 4, 8), 1, (2, 32)), ((4, 8, 32), 2, (2, 32)), ((50, 32), 0, (50, 1))])
def test_groups_of_inputs_have_their_own_scale(shape, inputs, scales, bits):
    """A group of large weights does not make its neighbours coarse."""
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    flat = weight.reshape(-1, 32)  # inputs x outputs, or rows of a table
    flat[:16] *= 1000
    made = quantize_matrix(jnp.asarray(weight), inputs, bits, 16)
    assert made.scale.shape == scales and made.values.shape == shape
    error = np.abs(made.dense() - weight).reshape(-1, 32)
    assert error[:16].max() > 1 and error[16:].max() < (0.05 if bits == 8 or not inputs else 0.3)
