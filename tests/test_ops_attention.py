"""Every implementation of attention against float64 NumPy and against each other, and what each refuses by name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.errors import ConfigError
from jaxlm.ops.attention import Mask, attend

B, T, S, N, H = 2, 6, 6, 4, 8
SEGMENTS = [[1, 1, 2, 2, 2, 0], [1, 2, 2, 3, 3, 3]]

# name -> (Mask's arguments, sizes that differ from the usual, with a bias)
CASES = {
    "all": ({}, {}, False),
    "padding": ({"keys": [[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]]}, {}, False),
    "lengths": ({"lengths": [4, 6]}, {}, False),
    "segments": ({"segments": SEGMENTS}, {}, False),
    "packed causal": ({"segments": SEGMENTS, "causal": True}, {}, False),
    "causal": ({"causal": True}, {}, False),
    "window causal": ({"causal": True, "window": 3}, {}, False),
    "window both sides": ({"window": 2}, {}, False),
    "bias": ({"causal": True}, {}, True),
    "cross": ({"keys": [[1, 1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 0]]}, {"S": 9}, True),
    "cross segments": ({"segments": SEGMENTS, "key_segments": [[1, 2, 1], [3, 2, 1]]}, {"S": 3}, False),
    "grouped heads": ({"causal": True}, {"K": 2}, True),
    "one key head": ({}, {"K": 1}, False),
    "cache in front": ({"causal": True, "offset": 4}, {"T": 3, "S": 8}, False),
}


def case(name):
    """Arrays of a case: query, key, value, Mask, bias."""
    arguments, sizes, biased = CASES[name]
    t, s, k = sizes.get("T", T), sizes.get("S", S), sizes.get("K", N)
    random = np.random.default_rng(0)
    q, key, v = (random.standard_normal(shape, np.float32) for shape in ((B, t, N, H), (B, s, k, H), (B, s, k, H)))
    bias = random.standard_normal((1, N, t, s), np.float32) if biased else None
    values = {"keys": lambda x: jnp.array(x, bool), "causal": bool, "window": int}
    mask = Mask(**{name: values.get(name, lambda x: jnp.array(x, jnp.int32))(x) for name, x in arguments.items()})
    return q, key, v, mask, bias


def visible(mask, t, s):
    """The mask's definition, one query and one key at a time."""
    seen = np.ones((B, t, s), bool)
    for b, i, j in np.ndindex(B, t, s):
        at = i + (0 if mask.offset is None else int(mask.offset))
        if mask.causal and j > at:
            seen[b, i, j] = False
        if mask.window is not None and (at - j >= mask.window or (not mask.causal and j - at >= mask.window)):
            seen[b, i, j] = False
        if mask.keys is not None and not mask.keys[b, j]:
            seen[b, i, j] = False
        if mask.lengths is not None and j >= mask.lengths[b]:
            seen[b, i, j] = False
        if mask.segments is not None:
            other = mask.segments if mask.key_segments is None else mask.key_segments
            seen[b, i, j] &= bool(mask.segments[b, i] == other[b, j])
    return seen


def reference(q, k, v, mask, bias):
    """softmax(q k^T / sqrt(H) + bias) v in float64; rows that see nothing are left at 0."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, N // x.shape[2], axis=2) for x in (k, v))
    logits = np.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(H) + (0 if bias is None else np.asarray(bias, np.float64))
    seen = visible(jax.device_get(mask), q.shape[1], k.shape[1])[:, None]
    p = np.where(seen, np.exp(logits - logits.max(-1, keepdims=True)), 0)
    p = p / np.maximum(p.sum(-1, keepdims=True), 1e-300)
    return np.einsum("bnts,bsnh->btnh", p, v), seen.any(-1)[:, 0]


@functools.cache
def results(name):
    """implementation -> (values, gradients) against a random target, of all that a case has; and that target."""
    *inputs, mask, bias = case(name)
    inputs = inputs if bias is None else [*inputs, bias]
    sees = reference(*inputs[:3], mask, bias)[1][..., None, None]
    target = np.random.default_rng(1).standard_normal(inputs[0].shape, np.float32) * sees

    def loss(implementation, inputs):
        out = attend(*inputs[:3], mask, *inputs[3:], implementation=implementation)
        return (out * target).sum(), out

    run = jax.jit(lambda inputs: {name: jax.grad(loss, 1, has_aux=True)(name, inputs)[::-1] for name in ("eager", "xla")})
    return jax.device_get(run(inputs)), target


@pytest.mark.parametrize("implementation", ["eager", "xla"])
@pytest.mark.parametrize("name", CASES)
def test_matches_float64(name, implementation):
    q, k, v, mask, bias = case(name)
    expected, sees = reference(q, k, v, mask, bias)
    out = results(name)[0][implementation][0]
    assert sees.any() and np.isfinite(out).all()
    np.testing.assert_allclose(out[sees], expected[sees], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "xla"])
@pytest.mark.parametrize("name", CASES)
def test_gradient_along_a_direction(name, implementation):
    """It is the central difference of the float64 reference."""
    *inputs, mask, bias = case(name)
    inputs = inputs if bias is None else [*inputs, bias]
    both, target = results(name)
    random = np.random.default_rng(2)
    direction = [random.standard_normal(x.shape) for x in inputs]

    def value(step):
        moved = [x + step * d for x, d in zip(inputs, direction, strict=True)]
        return (reference(*moved[:3], mask, *(moved[3:] or [None]))[0] * target).sum()

    slope = sum((np.float64(grad) * d).sum() for grad, d in zip(both[implementation][1], direction, strict=True))
    np.testing.assert_allclose(slope, (value(1e-5) - value(-1e-5)) / 2e-5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_xla_has_the_gradients_of_eager(name):
    both, _ = results(name)
    for one, other in zip(both["eager"][1], both["xla"][1], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("implementation", ["eager", "xla"])
def test_bfloat16_is_close(implementation):
    q, k, v, mask, bias = case("grouped heads")
    low = attend(*(jnp.bfloat16(x) for x in (q, k, v)), mask, bias, implementation=implementation)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(low), reference(q, k, v, mask, bias)[0], atol=0.04)


@pytest.mark.parametrize("implementation", ["eager", "xla"])
def test_a_row_that_sees_nothing_is_finite(implementation):
    q, k, v, _, _ = case("all")
    mask = Mask(causal=True, keys=jnp.zeros((B, S), bool))
    call = lambda inputs: attend(*inputs, mask, implementation=implementation)
    out, grads = jax.jit(lambda inputs: (call(inputs), jax.grad(lambda x: call(x).sum())(inputs)))((q, k, v))
    assert all(np.isfinite(x).all() for x in (out, *grads))


def test_soft_cap_bounds_the_logits():
    q, k, v, mask, _ = case("all")
    capped = attend(100 * q, k, v, mask, softcap=1e-6)
    np.testing.assert_allclose(capped, np.broadcast_to(v.mean(1, keepdims=True), v.shape), atol=1e-4)


def test_scale_replaces_the_default():
    q, k, v, mask, _ = case("causal")
    np.testing.assert_allclose(attend(q, k, v, mask, scale=0.5), attend(q * 0.5 * H**0.5, k, v, mask), atol=1e-5)


def test_auto_takes_what_can():
    q, k, v, mask, _ = case("packed causal")
    np.testing.assert_array_equal(attend(q, k, v, mask), attend(q, k, v, mask, implementation="eager"))
    drop = (0.5, jax.random.key(0))
    np.testing.assert_array_equal(attend(q, k, v, mask, drop=drop), attend(q, k, v, mask, implementation="eager", drop=drop))


@pytest.mark.parametrize(
    ("implementation", "mask", "arguments", "dtype", "words"),
    [
        ("cudnn", Mask(segments=jnp.ones((B, T), jnp.int32)), {}, jnp.bfloat16, "segment ids"),
        ("cudnn", Mask(causal=True, offset=jnp.int32(1)), {}, jnp.bfloat16, "a cache"),
        ("cudnn", Mask(), {}, jnp.float32, "float32"),
        ("cudnn", Mask(), {}, jnp.bfloat16, "cpu devices"),
        ("cudnn", Mask(), {"softcap": 5.0}, jnp.bfloat16, "a soft cap"),
        ("xla", Mask(), {"softcap": 5.0}, jnp.float32, "a soft cap"),
        ("xla", Mask(), {"drop": (0.1, 0)}, jnp.float32, "dropout"),
        ("flash", Mask(), {}, jnp.float32, "not one of auto, eager, xla, cudnn"),
    ],
)
def test_refuses_by_name(implementation, mask, arguments, dtype, words):
    q, k, v, _, _ = case("all")
    with pytest.raises(ConfigError, match=words) as error:
        attend(*(x.astype(dtype) for x in (q, k, v)), mask, implementation=implementation, **arguments)
    assert implementation in str(error.value) and "\n" not in str(error.value)


def test_cudnn_refuses_head_sizes():
    q = jnp.zeros((B, T, N, 12), jnp.bfloat16)
    with pytest.raises(ConfigError, match="heads of size 12"):
        attend(q, q, q, implementation="cudnn")
