"""Dropout: its rate, its scale, and the same mask on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from jaxlm.config import Mesh
from jaxlm.ops.dropout import dropout, fold, split
from jaxlm.sharding import make_mesh, spec, use

AXES = ("batch", None, None)
KEY = jax.random.key(0)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.25, 0.03, 0.001, 0.9])
def test_rate_and_exact_scale(rate):
    x = jnp.ones((32, 64, 128))
    out = np.asarray(jax.jit(lambda x: dropout(x, rate, KEY, AXES))(x))
    dropped = (out == 0).mean()
    scales = np.unique(out[out != 0])
    assert len(scales) == 1
    true = 1 - 1 / scales[0]  # the rate that the scale stands for
    assert abs(true - rate) <= 0.0101 * rate
    assert abs(dropped - true) < 5 * np.sqrt(true * (1 - true) / x.size)  # the mean is preserved


def test_256_levels_unless_they_are_off_by_more_than_one_percent():
    scale = lambda rate: float(dropout(jnp.ones((8, 8, 64)), rate, KEY, AXES).max())
    assert scale(0.5) == 2.0
    np.testing.assert_allclose(scale(0.1), 65536 / (65536 - 6554), rtol=1e-7)  # 26 / 256 is off by 1.6 %
    np.testing.assert_allclose(scale(0.25), 256 / 192, rtol=1e-7)
    np.testing.assert_allclose(scale(0.001), 65536 / (65536 - 66), rtol=1e-7)  # 0 / 256 would be no dropout at all


def test_no_key_or_no_rate_is_the_identity():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    assert dropout(x, 0.5, None, AXES) is x and dropout(x, 0.0, KEY, AXES) is x


def test_rate_one_drops_everything():
    assert not dropout(jnp.ones((2, 3, 4)), 1.0, KEY, AXES).any()


@pytest.mark.parametrize("last", [1, 3, 5, 7])
def test_any_last_axis(last):
    out = dropout(jnp.ones((40, 50, last)), 0.5, KEY, AXES)
    assert out.shape == (40, 50, last) and abs(float((out == 0).mean()) - 0.5) < 0.08


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_stays(dtype):
    assert dropout(jnp.ones((2, 3, 4), dtype), 0.5, KEY, AXES).dtype == dtype


def test_masks_differ_between_keys_and_repeat_for_one():
    x = jnp.ones((4, 8, 32))
    masks = [np.asarray(dropout(x, 0.5, fold(KEY, i), AXES)) for i in (0, 1, 0)]
    assert (masks[0] != masks[1]).any() and (masks[0] == masks[2]).all()


@pytest.mark.parametrize("rate", [0.5, 0.001])
@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_the_same_mask_on_every_mesh(sizes, rate):
    axes = ("batch", "heads", None)
    x = np.ones((8, 8, 300), np.float32)
    want = dropout(jnp.asarray(x), rate, KEY, axes)
    mesh = make_mesh(Mesh(*sizes))
    with use(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, spec(*axes)))
        program = jax.jit(lambda x: dropout(x, rate, KEY, axes)).lower(placed).compile()
        out = program(placed)
    words = 300 * (1 if rate == 0.5 else 2) // 4
    assert f"u32[8,8,{words}]" not in program.as_text()  # no device draws the whole mask
    assert out.sharding.spec == placed.sharding.spec
    np.testing.assert_array_equal(out, want)


def test_the_gradient_is_the_mask():
    x = jax.random.normal(KEY, (2, 8, 16))
    out, pull = jax.vjp(lambda x: dropout(x, 0.5, KEY, AXES), x)
    np.testing.assert_allclose(pull(jnp.ones_like(x))[0] * x, out, rtol=1e-6)


def test_keys_may_be_none():
    assert split(None, 3) == [None] * 3 and fold(None, 1) is None and len(split(KEY, 3)) == 3
