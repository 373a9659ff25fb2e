"""x W + b in bfloat16 on a CPU against the same numbers in float32: value and gradients, within one rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops.product import affine


def rounded(key, *shape):
    """Values that bfloat16 holds exactly."""
    return jax.random.normal(jax.random.key(key), shape).astype(jnp.bfloat16)


@pytest.mark.parametrize("with_bias", [True, False])
def test_value_and_gradients_are_float32s_rounded_once(with_bias):
    x, kernel, bias, weight = rounded(0, 48, 24), rounded(1, 24, 40), rounded(2, 40), rounded(3, 48, 40)
    bias = bias if with_bias else None
    inputs = (x, kernel, bias) if with_bias else (x, kernel)
    call = lambda *inputs: affine(*inputs, *([] if with_bias else [None]))
    value, pull = jax.vjp(call, *inputs)
    wanted, pull_wanted = jax.vjp(call, *(i.astype(jnp.float32) for i in inputs))
    assert value.dtype == jnp.bfloat16 and wanted.dtype == jnp.float32
    for found, exact in zip((value, *pull(weight)), (wanted, *pull_wanted(weight.astype(jnp.float32))), strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(found), exact, rtol=2**-8, atol=1e-5)  # half a step of 8 bits, and float32's own error


def test_the_gradient_of_a_weight_reads_rows():
    """Else XLA's CPU library leaves the tiles alone: the left factor of every product is contracted over its last axis."""
    grads = jax.jit(jax.grad(lambda *inputs: affine(*inputs).astype(jnp.float32).sum(), argnums=(0, 1, 2)))
    text = grads.lower(rounded(0, 48, 24), rounded(1, 24, 40), rounded(2, 40)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 2 and all("contracting_dims = [1] x [0]" in line for line in products)
