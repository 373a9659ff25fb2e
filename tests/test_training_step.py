"""The step on a toy problem (accumulation, what is not finite, clipping, EMA), the optimizers and the schedules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import Compute, Optimizer
from jaxlm.errors import ConfigError
from jaxlm.models import gpt2, make_model
from jaxlm.tasks import causal_lm
from jaxlm.training.optimizer import OPTIMIZERS, decays, make_optimizer, matrices
from jaxlm.training.schedule import SCHEDULES, make_schedule
from jaxlm.training.step import best_params, init_state, make_step

PLAIN = Optimizer(schedule="constant", warmup=0, weight_decay=0.0, clip=None, learning_rate=0.1)


def toy_loss(params, batch, key):
    """Sum of squared errors of a two-layer linear model, and the number of rows that count."""
    out = batch["x"] @ params["up"]["kernel"] @ params["down"]["kernel"] + params["down"]["bias"]
    return (batch["weights"] * ((out - batch["y"]) ** 2).sum(-1)).sum(), batch["weights"].sum()


def toy_params():
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(0.3 * random.standard_normal(shape), jnp.float32)
    return {"up": {"kernel": draw(4, 8)}, "down": {"kernel": draw(8, 2), "bias": jnp.zeros(2)}}


def toy_batch(seed=0, rows=8):
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, 4)).astype(np.float32)
    weights = random.choice([0.0, 1.0], rows, p=[0.25, 0.75]).astype(np.float32)
    return {"x": x, "y": x[:, :2] * [2, -3] + 1, "weights": weights, "segments": weights.astype(np.int32)}


def machine(config=PLAIN, accumulate=1, steps=100, loss=toy_loss):
    rule, schedule = make_optimizer(config, steps)
    return init_state(toy_params(), rule, config.ema), make_step(loss, rule, schedule, config, 0, accumulate)


def copy(tree):
    return jax.tree.map(np.array, tree)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def test_one_step_of_sgd_is_the_formula():
    state, step = machine(dataclasses.replace(PLAIN, name="sgd", momentum=0.0))
    before, batch = copy(state["params"]), toy_batch()
    grads = jax.grad(lambda p: toy_loss(p, batch, None)[0] / batch["weights"].sum())(before)
    state, metrics = step(state, batch)
    close(state["params"], jax.tree.map(lambda p, g: p - 0.1 * g, before, grads))
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], toy_loss(before, batch, None)[0] / batch["weights"].sum(), rtol=1e-5)
    assert metrics["tokens"] == batch["weights"].sum() and state["step"] == 1 and metrics["learning_rate"] == np.float32(0.1)


@pytest.mark.parametrize("pieces", [2, 4])
def test_accumulated_is_one_batch(pieces):
    """Although the micro-batches' weights differ."""
    batch = toy_batch()
    divided = {name: x.reshape(pieces, -1, *x.shape[1:]) for name, x in batch.items()}
    assert len(set(divided["weights"].sum(1))) > 1
    (whole, step), (parts, step_parts) = machine(), machine(accumulate=pieces)
    (whole, metrics), (parts, metrics_parts) = step(whole, batch), step_parts(parts, divided)
    close(parts, whole)
    close(metrics_parts, metrics)


def poisoned(kind):
    batch = toy_batch(1)
    batch["weights"][0] = 7 if kind == "infinite gradient" else 1
    if kind != "infinite gradient":
        batch["y"][0] = {"nan loss": np.nan, "infinite loss": np.inf}[kind]
    return batch


@jax.custom_vjp
def sour(x):
    return x


sour.defvjp(lambda x: (x, None), lambda _, g: (jnp.where(g == 0, 0.0, jnp.inf),))


def sour_loss(params, batch, key):
    """A finite loss whose gradient is infinite where the batch says so."""
    total, weight = toy_loss(params, batch, key)
    return total + jnp.where(batch["weights"][0] == 7, sour(params["down"]["bias"].sum()), 0.0), weight


@pytest.mark.parametrize("kind", ["nan loss", "infinite loss", "infinite gradient"])
def test_a_step_that_is_not_finite_changes_nothing_but_its_number(kind):
    config = dataclasses.replace(PLAIN, name="adamw", schedule="linear", weight_decay=0.1, ema=0.9, clip=1.0)
    state, step = machine(config, loss=sour_loss if kind == "infinite gradient" else toy_loss)
    state, _ = step(state, toy_batch(0))
    before = copy(state)
    state, metrics = step(state, poisoned(kind))
    assert np.isfinite(metrics["loss"]) == (kind == "infinite gradient")
    for part in ("params", "optimizer", "ema"):
        same(state[part], before[part])
    assert (state["step"], state["skipped"], state["skipped_in_a_row"]) == (2, 1, 1) and metrics["skipped"] == 1
    after, metrics = step(state, toy_batch(2))
    assert after["skipped_in_a_row"] == 0 and after["skipped"] == 1
    healthy, other = machine(config)  # the same, had the bad batch never been
    for seed in (0, 2):
        healthy, healthy_metrics = other(healthy, toy_batch(seed))
    assert metrics["learning_rate"] == healthy_metrics["learning_rate"] < config.learning_rate  # the schedule stood still
    for part in ("params", "optimizer", "ema"):
        close(after[part], healthy[part])


def test_the_old_state_is_given_away():
    state, step = machine()
    step(state, toy_batch())
    assert state["params"]["up"]["kernel"].is_deleted()


def test_ema_follows_and_is_what_is_evaluated():
    state, step = machine(dataclasses.replace(PLAIN, ema=0.75))
    before = copy(state["params"])
    state, _ = step(state, toy_batch())
    close(state["ema"], jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, before, state["params"]))
    assert best_params(state) is state["ema"] and best_params({"params": 1}) == 1


def test_clipping_bounds_the_update_and_reports_the_true_norm():
    moved = {}
    for clip in (None, 0.5, 1e6):
        state, step = machine(dataclasses.replace(PLAIN, name="sgd", momentum=0.0, clip=clip))
        before = copy(state["params"])
        state, metrics = step(state, toy_batch())
        moved[clip] = float(optax.tree.norm(jax.tree.map(jnp.subtract, state["params"], before))) / 0.1
        assert metrics["grad_norm"] > 1
    np.testing.assert_allclose(moved[0.5], 0.5, rtol=1e-4)
    np.testing.assert_allclose(moved[None], moved[1e6], rtol=1e-5)
    assert moved[None] > 1


def test_weight_decay_pulls_matrices_only():
    layer = {"ln_1": {"scale": jnp.ones(3), "bias": jnp.ones(3)}, "up": {"kernel": jnp.ones((3, 3))}}
    params = {"wte": jnp.ones((2, 3)), "h": {"0": layer}}
    assert decays(params) == {"wte": True, "h": {"0": {"ln_1": {"scale": False, "bias": False}, "up": {"kernel": True}}}}
    zero = jax.tree.map(jnp.zeros_like, params)
    for name in set(OPTIMIZERS) - {"adam"}:
        rule, _ = make_optimizer(dataclasses.replace(PLAIN, name=name, weight_decay=0.5), 10)
        updates, _ = jax.jit(lambda rule=rule: rule.update(zero, rule.init(params), params))()
        assert (updates["h"]["0"]["up"]["kernel"] < 0).all() and (updates["wte"] < 0).all(), name
        assert all((updates["h"]["0"]["ln_1"][leaf] == 0).all() for leaf in ("scale", "bias")), name


@pytest.mark.parametrize("name", ["rmsprop", "sgd", "adamw", "lion", "adafactor"])
def test_decoupled_decay_is_rate_times_decay(name):
    params = {"up": {"kernel": jnp.full((2, 2), 3.0)}}
    rule, _ = make_optimizer(dataclasses.replace(PLAIN, name=name, weight_decay=0.5), 10)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    np.testing.assert_allclose(updates["up"]["kernel"], -0.1 * 0.5 * 3.0, rtol=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
def test_adafactor_is_transformers(scaled):
    """Of a matrix large enough to be factored; the decay is of the rate alone here, as of every other rule."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    random = np.random.default_rng(0)
    start, grads = 0.1 * random.standard_normal((130, 140)), random.standard_normal((4, 130, 140))
    rule, _ = make_optimizer(dataclasses.replace(PLAIN, name="adafactor", learning_rate=0.02, multiply_by_parameter_scale=scaled), 10)
    theirs = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    peer = transformers.Adafactor([theirs], lr=0.02, scale_parameter=scaled, relative_step=False, warmup_init=False)
    params = {"kernel": jnp.asarray(start, jnp.float32)}
    state = rule.init(params)
    for grad in grads:
        updates, state = rule.update({"kernel": jnp.asarray(grad, jnp.float32)}, state, params)
        params, theirs.grad = optax.apply_updates(params, updates), torch.tensor(grad, dtype=torch.float32)
        peer.step()
    np.testing.assert_allclose(params["kernel"], theirs.detach().numpy(), atol=2e-6)


RATES = {"adadelta": 30.0, "lion": 0.01, "sgd": 0.01, "rmsprop": 0.01, "muon": 0.05}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name):
    state, step = machine(dataclasses.replace(PLAIN, name=name, learning_rate=RATES.get(name, 0.05)))
    losses = []
    for _ in range(60):
        state, metrics = step(state, toy_batch())
        losses.append(float(metrics["loss"]))
    assert state["skipped"] == 0 and losses[-1] < 0.3 * losses[0], (losses[0], losses[-1])


def test_muon_names_inputs_and_outputs_of_each_matrix():
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    layer = {"attn": {"q": {"kernel": shape(32, 4, 8)}, "o": {"kernel": shape(4, 8, 32)}}, "ln_1": {"scale": shape(32)}}
    stacked = jax.tree.map(lambda x: shape(2, *x.shape), layer)
    names = matrices({"wte": shape(96, 32), "h": {"0": layer}, "deep": {"stacked": stacked}})
    found = lambda tree: [(x["attn"]["q"]["kernel"], x["attn"]["o"]["kernel"]) for x in [tree]][0]
    numbers = optax.contrib.MuonDimensionNumbers
    assert found(names["h"]["0"]) == (numbers((0,), (1, 2)), numbers((0, 1), (2,)))
    assert found(names["deep"]["stacked"]) == (numbers((1,), (2, 3)), numbers((1, 2), (3,)))
    assert names["wte"] is None and names["h"]["0"]["ln_1"]["scale"] is None


def rate(name, update, **changes):
    config = dataclasses.replace(Optimizer(learning_rate=1.0, schedule=name, warmup=10, end=0.1), **changes)
    return float(make_schedule(config, 100)(update))


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_starts_at_work_and_reaches_the_peak(name):
    assert rate(name, 0) == pytest.approx(0.1) and rate(name, 4) == pytest.approx(0.5) and rate(name, 9) == pytest.approx(1.0)
    assert rate(name, 0, warmup=0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "update", "value"),
    [
        ("constant", 99, 1.0),
        ("linear", 55, 0.55),
        ("linear", 100, 0.1),
        ("cosine", 55, 0.55),
        ("cosine", 100, 0.1),
        ("cosine", 32, 0.1 + 0.9 * (1 + np.cos(np.pi * 22 / 90)) / 2),
        ("inverse_sqrt", 10, 1.0),
        ("inverse_sqrt", 40, 0.5),
        ("wsd", 81, 1.0),
        ("wsd", 91, 0.55),
        ("wsd", 100, 0.1),
        ("wsd", 500, 0.1),
    ],
)
def test_schedules_at_key_points(name, update, value):
    assert rate(name, update) == pytest.approx(value, rel=1e-5)


def test_decay_says_where_the_curve_ends():
    assert rate("linear", 50, decay=50) == pytest.approx(0.1) and rate("linear", 99, decay=50) == pytest.approx(0.1)
    assert make_schedule(Optimizer(warmup=100, learning_rate=1.0), 3)(2) > 0  # fewer steps than the warm-up


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "adamwx"}, "optimizer.name='adamwx'.*did you mean 'adamw'"),
        ({"schedule": "cosin"}, "optimizer.schedule='cosin'.*did you mean 'cosine'"),
    ],
)
def test_unknown_names_have_a_nearest(changes, words):
    with pytest.raises(ConfigError, match=words):
        make_optimizer(dataclasses.replace(PLAIN, **changes), 10)


def test_bfloat16_activations_keep_float32_parameters():
    config = gpt2.Config(vocab_size=96, n_positions=16, n_embd=32, n_layer=1, n_head=4)
    model, (rule, schedule) = make_model(config, Compute(dtype="bfloat16")), make_optimizer(PLAIN, 10)
    tokens = np.arange(32, dtype=np.int32).reshape(2, 16)
    batch = {"tokens": tokens, "targets": tokens + 1, "weights": np.ones((2, 16), np.float32)}
    loss = lambda params, batch, key: causal_lm.loss(model, params, batch, key)
    state = jax.jit(lambda: init_state(model.init(jax.random.key(0), tokens)["params"], rule))()
    state, metrics = make_step(loss, rule, schedule, PLAIN, 0)(state, batch)
    kinds = {leaf.dtype for leaf in jax.tree.leaves((state["params"], state["optimizer"]))}
    assert kinds == {jnp.dtype("float32"), jnp.dtype("int32")} and metrics["loss"].dtype == jnp.float32
    assert model.apply({"params": state["params"]}, tokens).hidden.dtype == jnp.bfloat16
