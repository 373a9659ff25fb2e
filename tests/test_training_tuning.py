"""What of a model is trained: freezing, LoRA, layer-wise learning rates; on a mesh, in both layouts, in the plan."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxlm import assembly, pretrained, sharding
from jaxlm.config import Compute, Data, Mesh, Optimizer, Run, Tuning
from jaxlm.errors import ConfigError
from jaxlm.layers.block import stack, unstack
from jaxlm.models import FAMILIES, family_named, gpt2, init_params, make_model
from jaxlm.models.names import LABELS, entries
from jaxlm.planning.banner import model_lines, plan_memory, token_flops
from jaxlm.training.step import best_params, init_state, make_step
from jaxlm.training.tuning import BELOW, assemble, check_tuning, divide, find, nested, paths, with_layer_decay

MODEL = gpt2.Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=2, n_head=2, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0)
RATE = Optimizer(learning_rate=0.02, warmup=0, schedule="constant", weight_decay=0.0)
RUN = Run(model=MODEL, steps=10, batch_size=4, data=Data(sequence_length=8), optimizer=RATE, workdir="no/such/run")
LORA = Tuning(lora_rank=2, lora_alpha=6.0, lora_targets=("q", "attn/o", "mlp/up"))
KEY = jax.random.key(0)
SHARDED = Mesh(data=2, fsdp=2, tensor=2)


@functools.cache
def parameters(layout="unrolled"):
    """Fresh ones, which tests do not change."""
    model = make_model(MODEL, Compute(layout=layout))
    return jax.jit(lambda: init_params(model, KEY))()


def problem(monkeypatch, tuning, mesh=None, layout="unrolled", **changes):
    """A problem whose pretrained model would lack a norm."""
    monkeypatch.setattr(assembly, "new_parameters", lambda path, model: {"ln_f/scale"})
    run = dataclasses.replace(RUN, tuning=tuning, pretrained="given", compute=Compute(layout=layout), **changes)
    return assembly.make_problem(run, None if mesh is None else sharding.make_mesh(mesh))


def trained(this, steps=4):
    """The state after a few steps, and their losses."""
    tokens = np.random.default_rng(0).integers(0, 16, (4, 8)).astype(np.int32)
    batch = {"tokens": tokens, "targets": tokens, "weights": np.ones((4, 8), np.float32)}
    with sharding.use(this.mesh):
        state, losses = jax.jit(this.init)(KEY), []
        if this.mesh is not None:
            batch = jax.device_put(batch, sharding.batch_sharding(this.mesh))
        step = make_step(this.loss, this.rule, this.schedule, this.run.optimizer, 0)
        for _ in range(steps):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
    return state, losses


def same(one, other):
    one, other = paths(one), paths(other)
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path], path)


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(freeze=("wte", "h/0", "ln_1")), LORA])
def test_what_is_divided_is_put_together_again(tuning):
    params, frozen = divide(parameters(), tuning, {"ln_f/scale"}, KEY)
    same(assemble(params, frozen), parameters())  # B is 0: the model starts as it was


def test_frozen_parameters_stay_and_cost_neither_gradient_nor_optimizer(monkeypatch):
    this = problem(monkeypatch, Tuning(freeze=("wte", "h/0", "ln_1")), optimizer=dataclasses.replace(RATE, ema=0.5))
    state, losses = trained(this)
    frozen = {"wte", *(path for path in paths(parameters()) if path.startswith("h/0/") or "/ln_1/" in path)}
    assert paths(state["frozen"]).keys() == frozen and losses[-1] < losses[0]
    assert paths(state["params"]).keys() == paths(state["ema"]).keys() == paths(parameters()).keys() - frozen
    start = paths(jax.jit(this.init)(KEY)["frozen"])
    same(nested(start), state["frozen"])
    moments = [leaf for leaf in jax.tree.leaves(state["optimizer"]) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    same(best_params(state), nested({**start, **paths(state["ema"])}))


def test_frozen_parameters_are_not_copied(monkeypatch):
    this = problem(monkeypatch, Tuning(freeze=("wte", "h")))
    state = jax.jit(this.init)(KEY)
    step = make_step(this.loss, this.rule, this.schedule, this.run.optimizer, 0)
    tokens = jnp.ones((4, 8), jnp.int32)
    where = {path: leaf.unsafe_buffer_pointer() for path, leaf in paths(state["frozen"]).items()}
    state, _ = step(state, {"tokens": tokens, "targets": tokens, "weights": jnp.ones((4, 8))})
    assert {path: leaf.unsafe_buffer_pointer() for path, leaf in paths(state["frozen"]).items()} == where


def test_low_rank_updates_are_the_formula_and_all_that_is_trained(monkeypatch):
    state, losses = trained(problem(monkeypatch, LORA))
    assert losses[-1] < losses[0]
    start = paths(jax.jit(problem(monkeypatch, LORA).init)(KEY)["frozen"])
    assert {path for path in paths(state["params"]) if not path.startswith("lora/")} == {"ln_f/scale"}
    same(state["frozen"], nested(start))
    whole, low, count = paths(best_params(state)), paths(state["params"]["lora"]), 0
    for name, flat in (("q", (8, 8)), ("o", (8, 8)), ("up", (8, 32))):
        path = f"h/1/{'mlp' if name == 'up' else 'attn'}/{name}/kernel"
        a, b = np.asarray(low[f"{path}/a"]), np.asarray(low[f"{path}/b"])
        update = a.reshape(-1, 2) @ b.reshape(2, -1) * 6.0 / 2
        np.testing.assert_allclose(np.reshape(whole[path] - start[path], flat), update, atol=1e-6)
        assert np.abs(update).max() > 1e-3 and np.abs(a).max() <= 8**-0.5 + 0.25
        count += a.size + b.size
    moments = sum(leaf.size for leaf in jax.tree.leaves(state["optimizer"]) if leaf.ndim)
    assert moments == 2 * (2 * count + 8)  # two layers, a norm


def test_both_layouts_draw_the_same_and_learn_the_same(monkeypatch):
    (one, losses), (other, same_losses) = (trained(problem(monkeypatch, LORA, layout=layout)) for layout in ("unrolled", "stacked"))
    np.testing.assert_allclose(losses, same_losses, rtol=1e-4)
    assert one["params"]["lora"]["h"]["0"]["attn"]["q"]["kernel"]["a"].shape == (8, 2)
    for part in ("params", "frozen"):
        mine, theirs = paths(one[part]), paths(unstack(other[part]))
        assert mine.keys() == theirs.keys()
        for path in mine:
            np.testing.assert_allclose(mine[path], theirs[path], rtol=1e-3, atol=1e-5, err_msg=path)
    a = [divide(parameters(layout), LORA, (), KEY)[0]["lora"] for layout in ("unrolled", "stacked")]
    same(stack(a[0]), a[1])


@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
def test_a_mesh_divides_the_updates_as_their_matrices(monkeypatch, layout):
    alone = trained(problem(monkeypatch, LORA))[1]
    state, losses = trained(problem(monkeypatch, LORA, SHARDED, layout))
    np.testing.assert_allclose(losses, alone, rtol=1e-4)
    leaf = {path.replace("/stacked/", "/0/"): leaf.sharding.spec for path, leaf in paths(state["params"]["lora"]).items()}
    first = (None,) * (layout == "stacked")
    wanted = {"q/kernel/a": ("fsdp", None), "q/kernel/b": (None, "tensor", None)}
    wanted |= {"o/kernel/a": ("tensor", None, None), "o/kernel/b": (None, "fsdp")}
    for path, names in wanted.items():
        assert leaf[f"h/0/attn/{path}"] == PartitionSpec(*first, *names)
    whole = paths(best_params(state))  # outside the mesh's context too
    with sharding.use(sharding.make_mesh(SHARDED)):
        plain = paths(pretrained.abstract_params(make_model(MODEL, Compute(layout=layout))))
    assert {path: leaf.sharding.spec for path, leaf in whole.items()} == {path: leaf.sharding.spec for path, leaf in plain.items()}


@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
def test_a_table_that_is_tied_learns_by_a_low_rank_update(monkeypatch, layout):
    state, losses = trained(problem(monkeypatch, Tuning(lora_rank=2, lora_alpha=2.0, lora_targets=("wte",)), layout=layout))
    assert losses[-1] < losses[0]
    low = state["params"]["lora"]["wte"]
    rows, width = state["frozen"]["wte"].shape
    assert low["a"].shape == (rows, 2) and low["b"].shape == (2, width)
    whole = best_params(state)["wte"]
    np.testing.assert_allclose(whole - state["frozen"]["wte"], np.asarray(low["a"]) @ np.asarray(low["b"]), atol=1e-6)
    assert np.abs(low["b"]).max() > 1e-3 and 0.5 < np.abs(low["a"]).max() < 1.3


def test_experts_are_updated_one_by_one():
    expert = {"layers": {"0": {"mlp": {"up": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)), jnp.float32)}}}}
    params, frozen = divide(expert, Tuning(lora_rank=2, lora_targets=("up",)), (), KEY)
    low = params["lora"]["layers"]["0"]["mlp"]["up"]
    assert low["a"].shape == (3, 4, 2) and low["b"].shape == (3, 2, 5)
    low["b"] = low["b"] + 1
    update = assemble(params, frozen)["layers"]["0"]["mlp"]["up"] - expert["layers"]["0"]["mlp"]["up"]
    np.testing.assert_allclose(update, 8 * low["a"] @ low["b"], rtol=1e-5, atol=1e-6)


def test_what_freeze_names_gets_no_update_and_no_new_head():
    params, _ = divide(parameters(), dataclasses.replace(LORA, freeze=("h/0", "ln_f")), {"ln_f/scale"}, KEY)
    assert {path.split("/")[2] for path in paths(params)} == {"1"}


def test_a_name_is_whole_parts_side_by_side():
    leaves = paths(parameters())
    assert find(leaves, ["h/1/ln_1"], "x") == {"h/1/ln_1/scale", "h/1/ln_1/bias"} and find(leaves, ["wte"], "x") == {"wte"}
    assert find(paths(parameters("stacked")), ["ln_1"], "x") == {"h/stacked/ln_1/scale", "h/stacked/ln_1/bias"}
    eleven = dict.fromkeys((f"layers/{i}/q/kernel" for i in range(11)), jnp.ones(1))
    assert find(eleven, ["layers/1"], "x") == {"layers/1/q/kernel"}


@pytest.mark.parametrize(
    ("tuning", "layout", "message"),
    [
        (Tuning(freeze=("wtte",)), "unrolled", "tuning.freeze: 'wtte' names nothing here: did you mean wte"),
        (Tuning(freeze=("n_1",)), "unrolled", "did you mean ln_1"),
        (Tuning(freeze=("zzzzzzz",)), "unrolled", "there are h, ln_f, wpe, wte"),
        (Tuning(freeze=("h/0",)), "stacked", "'h/0' is a part of h/stacked/.*: set compute.layout=unrolled"),
        (Tuning(freeze=("h", "ln_f", "wpe", "wte")), "unrolled", "leaves nothing to train"),
        (Tuning(lora_rank=2, lora_targets=("quer",)), "unrolled", "tuning.lora_targets: 'quer' names nothing here"),
        (Tuning(lora_rank=2, lora_targets=("ln_f",)), "unrolled", "tuning.lora_targets: 'ln_f' names nothing here"),
    ],
)
def test_names_that_fit_nothing_are_refused(tuning, layout, message):
    with pytest.raises(ConfigError, match=message):
        divide(parameters(layout), tuning, (), KEY)


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (Tuning(lora_rank=-1), "lora_rank=-1"),
        (Tuning(lora_alpha=0.0), "lora_alpha=0.0"),
        (Tuning(layer_decay=0.0), "layer_decay=0.0"),
        (Tuning(layer_decay=1.5), "layer_decay=1.5"),
        (Tuning(lora_rank=8), "pretrained=PATH"),
    ],
)
def test_numbers_out_of_their_range_are_refused(tuning, message):
    with pytest.raises(ConfigError, match=message):
        check_tuning(tuning, None)


@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
@pytest.mark.parametrize("tuning", [Tuning(), LORA])
def test_a_layer_learns_slower_than_the_one_above(layout, tuning):
    params, _ = divide(parameters(layout), tuning, {"ln_f/scale"}, KEY)
    rule = with_layer_decay(optax.sgd(1.0), 0.5, parameters(layout))
    updates = rule.update(jax.tree.map(jnp.ones_like, params), rule.init(params), params)[0]
    found = {path.removeprefix("lora/"): leaf for path, leaf in paths(unstack(updates)).items()}
    wanted = {"h/0": 0.25, "h/1": 0.5, "ln_f": 1.0, "wte": 0.125, "wpe": 0.125}
    for path, leaf in found.items():
        rate = next(rate for start, rate in wanted.items() if path.startswith(start))
        np.testing.assert_allclose(leaf, -rate, err_msg=path)


def test_a_frozen_top_layer_still_counts():
    params, _ = divide(parameters(), Tuning(freeze=("h/1",)), (), KEY)
    rule = with_layer_decay(optax.sgd(1.0), 0.5, parameters())
    updates = rule.update(params, rule.init(params), params)[0]
    np.testing.assert_allclose(updates["h"]["0"]["attn"]["q"]["kernel"], -0.25 * params["h"]["0"]["attn"]["q"]["kernel"])


ABOVE = {"ln_f", "norm", "ln_out", "pooler", "head", "final_logits_bias"}  # of a body, over its layers


@pytest.mark.parametrize("name", FAMILIES)
def test_every_part_of_every_body_is_below_the_layers_in_them_or_above(name):
    known = family_named(name)
    for task in known.NAMES.architectures:
        model = make_model(next(iter(known.SIZES.values()), known.Config()), task=task)
        shapes = {path: leaf.shape for path, leaf in paths(pretrained.abstract_params(model)).items()}
        body = [path for entry in entries(known.NAMES.body, shapes) for path in entry.ours]
        outside = [path.split("/") for path in body if not any(part.isdecimal() for part in path.split("/"))]
        assert [names for names in outside if bool(BELOW & set(names)) == bool(ABOVE & set(names))] == []
        if task in LABELS:
            heads = shapes.keys() - set(body)
            assert not [path for path in heads if BELOW & set(path.split("/"))]


def test_the_plan_counts_what_is_trained(monkeypatch):
    full, low = problem(monkeypatch, Tuning()), problem(monkeypatch, LORA)
    size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    memory, whole = plan_memory(low), plan_memory(full)
    assert memory.parameters == size(low.abstract["params"]) + size(low.abstract["frozen"]) > whole.parameters == whole.gradients
    assert memory.gradients == size(low.abstract["params"]) and memory.optimizer < whole.optimizer / 3
    lines = model_lines(low)
    assert lines[:-1] == model_lines(full) and "low-rank" in lines[-1] and "trained: " in lines[-1]
    frozen = problem(monkeypatch, Tuning(freeze=("wte", "h")))
    assert token_flops(full) > token_flops(low) > token_flops(frozen) > 0.6 * token_flops(full)
    assert plan_memory(frozen).activations < whole.activations


def test_muon_takes_low_rank_updates_too(monkeypatch):
    state, losses = trained(problem(monkeypatch, LORA, optimizer=dataclasses.replace(RATE, name="muon")))
    assert losses[-1] < losses[0]


def test_a_state_without_frozen_parameters_is_as_before():
    state = init_state({"w": jnp.ones(2)}, optax.sgd(1.0))
    assert "frozen" not in state and best_params(state) is state["params"]
