"""Rotary positions: what they promise by themselves, and every scaling beside transformers'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.errors import ConfigError
from jaxlm.frozen import Frozen
from jaxlm.ops.rotary import Rotary, frequencies, rotate, rotation

PLAIN = Rotary(size=8, theta=100.0, context=32)
SCALINGS = {
    "linear": Frozen(rope_type="linear", factor=4.0),
    "dynamic": Frozen(rope_type="dynamic", factor=2.0),
    "llama3": Frozen(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
    "yarn": Frozen(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4),
    "yarn, told": Frozen(rope_type="yarn", factor=4.0, attention_factor=0.7, truncate=False, beta_fast=2.0, beta_slow=0.5),
    "yarn, weighed": Frozen(rope_type="yarn", factor=4.0, mscale=0.7, mscale_all_dim=0.5),
}


def scaled(name, **changes):
    return dataclasses.replace(PLAIN, scaling=Frozen(SCALINGS[name], **changes))


def close(one, other, tolerance=1e-6):
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=1e-7)


def test_a_product_depends_on_the_distance_only():
    random = np.random.default_rng(0)
    q, k = (jnp.asarray(random.standard_normal((1, 1, 1, 8)), jnp.float32) for _ in range(2))
    turned = lambda x, place: rotate(x, *rotation(jnp.array([[place]]), PLAIN))
    product = lambda m, n: float((turned(q, m) * turned(k, n)).sum())
    assert product(5, 2) == pytest.approx(product(13, 10), abs=1e-5)
    assert abs(product(5, 2) - product(5, 3)) > 1e-3
    close(turned(q, 0), q)


def test_features_past_the_size_stay():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 2, 12)), jnp.float32)
    out = rotate(x, *rotation(jnp.arange(3)[None], PLAIN))
    close(out[..., 8:], x[..., 8:])
    assert np.abs(out[:, 1:, :, :8] - x[:, 1:, :, :8]).max() > 0.1


def test_far_positions_keep_their_digits():
    """The frequencies are torch's to the last place, and near the true ones: an error grows with the position."""
    rotary = Rotary(size=64, theta=500_000.0)
    true = 500_000.0 ** (-np.arange(0, 64, 2) / 64)
    assert np.abs(frequencies(rotary)[0] / true - 1).max() < 3e-7


def test_linear_presses_positions_together():
    far, near = rotation(jnp.array([[8]]), scaled("linear")), rotation(jnp.array([[2]]), PLAIN)
    close(far[0], near[0])
    close(far[1], near[1])


def test_dynamic_is_plain_within_the_context_and_slower_beyond():
    inside, outside = jnp.arange(32)[None], jnp.arange(64)[None]
    close(jax.jit(lambda p: rotation(p, scaled("dynamic"))[0])(inside), rotation(inside, PLAIN)[0])
    each = frequencies(scaled("dynamic"), 64)[0]
    close(each, (100.0 * 3.0 ** (8 / 6)) ** (-np.arange(0, 8, 2) / 8))
    close(rotation(outside, scaled("dynamic"))[1][0, 5], np.sin(5 * each))


def test_llama3_keeps_the_fast_and_divides_the_slow():
    rotary = Rotary(64, 500_000.0, 131072, Frozen(SCALINGS["llama3"], original_max_position_embeddings=8192))
    share = frequencies(rotary)[0] / frequencies(dataclasses.replace(rotary, scaling=None))[0]
    close(share[0], 1)
    close(share[-1], 1 / 8)
    assert (np.diff(share) <= 1e-6).all() and ((share > 0.2) & (share < 0.8)).any()


def test_yarn_sharpens_attention():
    assert frequencies(scaled("yarn"))[1] == pytest.approx(0.1 * np.log(4) + 1)
    assert frequencies(scaled("yarn, told"))[1] == 0.7
    close(rotation(jnp.zeros((1, 1), jnp.int32), scaled("yarn, told"))[0], np.full((1, 1, 4), 0.7))


@pytest.mark.parametrize("name", SCALINGS)
def test_scalings_are_those_of_transformers(name):
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=8, num_attention_heads=1, max_position_embeddings=32)
    config.rope_parameters = {"original_max_position_embeddings": 32, **SCALINGS[name], "rope_theta": 100.0}
    want, factor = functions[SCALINGS[name]["rope_type"]](config, "cpu", seq_len=50)
    each, ours = frequencies(scaled(name), jnp.asarray(50))
    close(each, want.numpy())
    assert ours == pytest.approx(factor)


def test_reach_is_the_context_times_what_scaling_adds():
    assert PLAIN.reach == 32
    assert scaled("linear").reach == 128
    assert scaled("llama3").reach == 128
    assert scaled("yarn", original_max_position_embeddings=8, factor=2.0).reach == 32


def test_the_older_name_of_the_kind_is_known():
    assert dataclasses.replace(PLAIN, scaling=Frozen(type="linear", factor=2.0)).kind == "linear"


def test_unknown_and_incomplete_scalings_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        frequencies(dataclasses.replace(PLAIN, scaling=Frozen(rope_type="linaer", factor=2.0)))
    with pytest.raises(ConfigError, match="type linear has no factor"):
        frequencies(dataclasses.replace(PLAIN, scaling=Frozen(rope_type="linear")))
