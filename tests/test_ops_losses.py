"""The fused cross-entropy against the formulas written out, in value and gradients, whole, chunked and on a mesh."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.ops.losses import group_cross_entropy, plain_cross_entropy, token_cross_entropy

B, T, D, V = 4, 6, 16, 24
OPTIONS = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 1e-2},
    "both": {"label_smoothing": 0.2, "z_loss": 1e-2},
}


def problem():
    random = np.random.default_rng(0)
    hidden, table = random.standard_normal((B, T, D), np.float32), random.standard_normal((V, D), np.float32)
    labels = random.integers(0, V, (B, T)).astype(np.int32)
    labels[0, :2] = 0, V - 1
    weights = random.choice([0.0, 0.5, 1.0], (B, T)).astype(np.float32)
    assert (weights == 0).any()
    return hidden, table, labels, weights


def written_out(hidden, table, labels, weights, label_smoothing=0.0, z_loss=0.0):
    """(1 - e)(-log p[y]) + e mean_v(-log p[v]) + z log(Z)^2, one term after the other."""
    logits = hidden @ table.T
    log_p = jax.nn.log_softmax(logits)
    own = -jnp.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    log_z = jnp.log(jnp.exp(logits).sum(-1))
    each = (1 - label_smoothing) * own + label_smoothing * -log_p.mean(-1) + z_loss * log_z**2
    return (each * weights).sum()


def fused(options):
    return lambda hidden, table, labels, weights: token_cross_entropy(hidden, table, labels, weights, **options)[0]


@functools.cache
def compiled(**options):
    return jax.jit(fused(options)), jax.jit(jax.value_and_grad(fused(options), (0, 1)))


@functools.cache
def expected(name):
    return jax.jit(jax.value_and_grad(lambda *arrays: written_out(*arrays, **OPTIONS[name]), (0, 1)))(*problem())


@pytest.mark.parametrize(("name", "chunk"), [*((name, chunk) for name in OPTIONS for chunk in (None, 3)), ("both", 1), ("both", T)])
def test_equals_the_formula(name, chunk):
    arrays, (want, want_grads) = problem(), expected(name)
    value, graded = compiled(**OPTIONS[name], chunk=chunk)
    loss, grads = graded(*arrays)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    np.testing.assert_allclose(value(*arrays), want, rtol=1e-5)  # without a gradient it is another program
    for grad, wanted in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(grad, wanted, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_plain_equals_the_formula_and_weights_are_summed(name):
    hidden, table, labels, weights = problem()
    loss, weight = plain_cross_entropy(hidden @ table.T, labels, weights, **OPTIONS[name])
    np.testing.assert_allclose(loss, expected(name)[0], rtol=1e-5)
    assert weight == weights.sum() == token_cross_entropy(hidden, table, labels, weights)[1]


def test_the_gradient_follows_the_cotangent():
    arrays = problem()
    grads = jax.jit(jax.grad(lambda hidden, scale: scale * fused({})(hidden, *arrays[1:])))
    np.testing.assert_allclose(3 * grads(arrays[0], 1.0), grads(arrays[0], 3.0), rtol=1e-5)


def test_a_token_of_weight_zero_counts_for_nothing():
    hidden, table, labels, weights = problem()
    other = np.where(weights == 0, 5, labels)
    loss, (grad, _) = compiled(chunk=None)[1](hidden, table, other, weights)
    assert loss == compiled(chunk=None)[1](hidden, table, labels, weights)[0]
    assert (np.abs(grad).max(-1) > 0).tolist() == (weights > 0).tolist()


@pytest.mark.parametrize("label", [-1, V, V + 7, -100])
@pytest.mark.parametrize("chunk", [None, 3])
def test_a_label_outside_is_nan_never_another_class(label, chunk):
    hidden, table, labels, weights = problem()
    wrong, counted, ignored = labels.copy(), weights.copy(), weights.copy()
    wrong[1, 2], counted[1, 2], ignored[1, 2] = label, 1.0, 0.0
    loss, grads = compiled(chunk=chunk)[1](hidden, table, wrong, counted)
    assert np.isnan(loss) and np.isnan(grads[0][1, 2]).all() and np.isnan(grads[1]).all()
    assert np.isnan(plain_cross_entropy(hidden @ table.T, wrong, counted)[0])
    harmless = compiled(chunk=chunk)[1](hidden, table, wrong, ignored)[0]  # weight 0: it may hold anything
    assert harmless == compiled(chunk=chunk)[1](hidden, table, labels, ignored)[0]
    np.testing.assert_allclose(plain_cross_entropy(hidden @ table.T, wrong, ignored)[0], harmless, rtol=1e-5)


@pytest.mark.parametrize("chunk", [None, 3])
def test_a_mesh_changes_nothing(chunk):
    arrays = problem()
    want, want_grads = expected("both")
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))
    with jax.set_mesh(mesh):
        rows = NamedSharding(mesh, P(("data", "fsdp"), None))
        places = (NamedSharding(mesh, P(("data", "fsdp"), None, None)), NamedSharding(mesh, P("tensor", None)), rows, rows)
        loss, grads = compiled(**OPTIONS["both"], chunk=chunk)[1](*map(jax.device_put, arrays, places))
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert grads[1].sharding.spec == P("tensor", None)
    for grad, wanted in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(grad, wanted, atol=1e-5)


@pytest.mark.parametrize(("chunk", "softcap"), [(None, None), (3, 5.0)])
@pytest.mark.parametrize("divided", [False, True])
def test_a_fixed_bias_is_added_and_takes_no_gradient(chunk, softcap, divided):
    arrays, bias = problem(), np.random.default_rng(1).standard_normal(V, np.float32)
    capped = lambda logits: logits if softcap is None else softcap * jnp.tanh(logits / softcap)
    plain = lambda h, t, b, y, w: plain_cross_entropy(capped(h @ t.T + b), y, w, label_smoothing=0.1)[0]
    options = {"label_smoothing": 0.1, "chunk": chunk, "softcap": softcap}
    fused = lambda h, t, b, y, w: token_cross_entropy(h, t, y, w, bias=b, **options)[0]
    want, want_grads = jax.jit(jax.value_and_grad(plain, (0, 1)))(*arrays[:2], bias, *arrays[2:])
    graded = jax.jit(jax.value_and_grad(fused, (0, 1, 2)))
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))
    with jax.set_mesh(mesh) if divided else contextlib.nullcontext():
        rows, words = P(("data", "fsdp")), P("tensor")
        lay = lambda x, place: jax.device_put(x, NamedSharding(mesh, place)) if divided else x
        loss, grads = graded(*map(lay, (*arrays[:2], bias, *arrays[2:]), (rows, words, words, rows, rows)))
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert not np.any(grads[2])
    for grad, wanted in zip(grads, want_grads, strict=False):
        np.testing.assert_allclose(grad, wanted, atol=1e-5)


@pytest.mark.parametrize("chunk", [None, 3])
def test_bfloat16_hidden_states(chunk):
    hidden, table, labels, weights = problem()
    low = jnp.bfloat16(hidden)
    loss, grads = compiled(chunk=chunk)[1](low, table, labels, weights)
    assert (loss.dtype, grads[0].dtype, grads[1].dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    want, want_grads = expected("plain")
    np.testing.assert_allclose(loss, want, rtol=0.02)
    for grad, wanted in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(np.float32(grad), wanted, atol=0.05)


def test_chunked_logits_are_never_whole():
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in problem()]
    text = {c: jax.jit(jax.value_and_grad(fused({"chunk": c}), (0, 1))).lower(*shapes).as_text() for c in (None, 2)}
    whole, part = f"tensor<{B * T}x{V}xf32>", f"tensor<{B * 2}x{V}xf32>"
    assert whole in text[None] and whole not in text[2] and part in text[2]
    assert f"{B}x{T}x{V}x" not in text[None] + text[2]


def test_a_chunk_must_divide_the_row():
    with pytest.raises(ValueError, match="chunk=4 does not divide the 6 tokens"):
        token_cross_entropy(*problem(), chunk=4)


GROUPS = np.array([[1, 1, 1, 2, 2, 0], [1, 2, 2, 2, 2, 0]], np.int32)
CANDIDATES = np.array([[1, 0, 1, 1, 1, 0], [1, 1, 1, 0, 1, 0]], np.float32)
TARGETS = np.array([[0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 1, 0]], np.float32)
graded_groups = jax.jit(jax.value_and_grad(lambda scores, targets: group_cross_entropy(scores, GROUPS, CANDIDATES, targets), has_aux=True))


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_place_is_chosen_among_the_candidates_of_its_group(scale):
    """Also where one group's scores are far from another's, and beside candidates whose scores are of no account."""
    scores = scale * np.random.default_rng(0).standard_normal(GROUPS.shape).astype(np.float32)
    wanted, want_grad = 0.0, np.zeros_like(scores)
    for row, place in zip(*np.nonzero(TARGETS), strict=True):
        among = np.flatnonzero((GROUPS[row] == GROUPS[row, place]) & (CANDIDATES[row] > 0))
        shares = jax.nn.softmax(np.float64(scores[row, among]))
        wanted += jax.nn.logsumexp(np.float64(scores[row, among])) - scores[row, place]
        want_grad[row, among] += shares
        want_grad[row, place] -= 1
    (total, weight), grad = graded_groups(scores, TARGETS)
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    np.testing.assert_allclose(grad, want_grad, atol=1e-5)
    assert weight == 4.0 and (grad[CANDIDATES == 0] == 0).all()


def test_without_a_target_there_is_no_loss_and_no_gradient():
    scores = np.full(GROUPS.shape, 1e4, np.float32)
    (total, weight), grad = graded_groups(scores, np.zeros_like(TARGETS))
    assert (total, weight) == (0.0, 0.0) and (grad == 0).all()
    low = group_cross_entropy(jnp.bfloat16(scores), GROUPS, CANDIDATES, TARGETS)
    assert low[0].dtype == low[1].dtype == jnp.float32


def test_a_mesh_chooses_alike():
    scores = np.random.default_rng(0).standard_normal(GROUPS.shape).astype(np.float32)
    (want, _), want_grad = graded_groups(scores, TARGETS)
    with jax.set_mesh(jax.make_mesh((2,), ("data",))):
        arrays = [jax.device_put(x, P("data", None)) for x in (scores, GROUPS, CANDIDATES, TARGETS)]
        loss, grad = jax.jit(jax.value_and_grad(lambda *arrays: group_cross_entropy(*arrays)[0]))(*arrays)
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    np.testing.assert_allclose(grad, want_grad, atol=1e-6)
