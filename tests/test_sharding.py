"""Meshes: every shape gives the losses of no mesh, parameters are really divided, wrong sizes are refused before tracing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import assembly, sharding
from jaxlm.config import Mesh, Optimizer, Run
from jaxlm.errors import ConfigError
from jaxlm.models.gpt2 import Config
from jaxlm.training.optimizer import OPTIMIZERS, make_optimizer
from jaxlm.training.step import make_step

MODEL = Config(vocab_size=96, n_positions=16, n_embd=32, n_layer=1, n_head=8)  # dropout 0.1 everywhere
RUN = Run(model=MODEL, steps=5, batch_size=8, data=dataclasses.replace(Run(None).data, sequence_length=16), optimizer=Optimizer(warmup=0))
MESHES = [(1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8)]


def mesh_of(sizes):
    """The mesh of these sizes over as many of the eight devices; (1, 1, 1) is a real mesh of one."""
    if sizes == (1, 1, 1):
        return jax.make_mesh(sizes, ("data", "fsdp", "tensor"), devices=jax.devices()[:1])
    return sharding.make_mesh(Mesh(*sizes))


def batch(step, mesh):
    tokens = np.random.default_rng(step).integers(0, 96, (8, 17)).astype(np.int32)
    arrays = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": np.ones((8, 16), np.float32)}
    return jax.device_put(arrays, sharding.batch_sharding(mesh))


def train(run, mesh, steps):
    problem = assembly.make_problem(run, mesh)
    step = make_step(problem.loss, problem.rule, problem.schedule, run.optimizer, run.seed)
    with sharding.use(mesh):
        state, losses = jax.jit(problem.init)(jax.random.key(run.seed)), []
        for number in range(steps):
            state, metrics = step(state, batch(number, mesh))
            losses.append(float(metrics["loss"]))
    return losses, state


@functools.cache
def alone():
    return train(RUN, None, 5)


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_every_mesh_has_the_losses_of_none(sizes):
    losses, state = train(RUN, mesh_of(sizes), 5)
    np.testing.assert_allclose(losses, alone()[0], rtol=1e-5)
    assert losses[0] != losses[1]
    kernel, parts = state["params"]["h"]["0"]["mlp"]["up"]["kernel"], sizes[1] * sizes[2]
    assert kernel.addressable_shards[0].data.size == kernel.size // parts
    moment = state["optimizer"][0].mu["h"]["0"]["mlp"]["up"]["kernel"]
    assert moment.sharding == kernel.sharding


def test_the_stacked_layout_on_a_mesh():
    stacked = dataclasses.replace(RUN, compute=dataclasses.replace(RUN.compute, layout="stacked", remat="full"))
    losses, state = train(stacked, mesh_of((2, 2, 2)), 2)
    np.testing.assert_allclose(losses, alone()[0][:2], rtol=1e-5)
    assert state["params"]["h"]["stacked"]["mlp"]["up"]["kernel"].sharding.spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")


@functools.cache
def toy():
    """Parameters of the shapes that matter (a table, kernels of two and three axes, biases), how they lie, two gradients."""
    axes = {
        "wte": (("vocab", "embed"), (96, 32)),
        "h": {
            "0": {
                "attn": {
                    "q": {"kernel": (("embed", "heads", None), (32, 8, 4)), "bias": (("heads", None), (8, 4))},
                    "o": {"kernel": (("heads", None, "embed"), (8, 4, 32)), "bias": (("embed",), (32,))},
                },
                "mlp": {"up": {"kernel": (("embed", "mlp"), (32, 256)), "bias": (("mlp",), (256,))}},
            }
        },
    }
    random = np.random.default_rng(0)
    draw = lambda: jax.tree.map(lambda x: random.standard_normal(x[1], np.float32), axes, is_leaf=lambda x: isinstance(x, tuple))
    return axes, draw(), (draw(), draw())


def update_twice(name, mesh):
    axes, params, grads = toy()
    rule, _ = make_optimizer(Optimizer(name=name, warmup=0, learning_rate=0.1), 10)

    def run(params, grads):
        state = rule.init(params)
        for grad in grads:
            updates, state = rule.update(grad, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        return params

    with sharding.use(mesh):
        if mesh is not None:
            is_leaf = lambda x: isinstance(x, tuple)
            layout = jax.tree.map(lambda x: jax.sharding.NamedSharding(mesh, sharding.spec(*x[0])), axes, is_leaf=is_leaf)
            params, grads = jax.device_put(params, layout), tuple(jax.device_put(grad, layout) for grad in grads)
        return jax.jit(run)(params, grads)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_on_a_mesh_is_as_on_none(name):
    mesh = mesh_of((2, 2, 2))
    one, other = update_twice(name, None), update_twice(name, mesh)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), one, other)
    jax.tree.map(lambda a, b: np.testing.assert_equal(np.abs(a - b).max() > 0, True), toy()[1], one)
    assert other["wte"].addressable_shards[0].data.size == 96 * 32 // 4  # still divided after the update


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_the_delicate_optimizers_run_the_whole_step(name):
    run = dataclasses.replace(RUN, optimizer=Optimizer(name=name, warmup=0, ema=0.9))
    losses, _ = train(run, mesh_of((2, 2, 2)), 2)
    np.testing.assert_allclose(losses, train(run, None, 2)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "sizes", "words"),
    [
        ({"vocab_size": 97}, (1, 1, 8), ["axis vocab", "model.vocab_size=97", "mesh.tensor=8", "works is 104"]),
        ({"n_head": 6, "n_embd": 24}, (2, 1, 4), ["axis heads", "model.n_head=6", "mesh.tensor=4", "works is 4"]),
        ({"n_embd": 36, "n_head": 1}, (1, 8, 1), ["axis embed", "model.n_embd=36", "mesh.fsdp=8", "works is 32"]),
        ({"n_inner": 130}, (2, 1, 4), ["axis mlp", "model.n_inner=130", "mesh.tensor=4", "works is 128"]),
        (None, (4, 2, 1), ["axis batch", "batch_size / accumulate=12", "mesh.data=4 x mesh.fsdp=2", "works is 8"]),
    ],
)
def test_a_wrong_divisor_is_refused_before_tracing(changes, sizes, words, monkeypatch):
    monkeypatch.setattr(assembly, "make_model", None)  # nothing may be built before the refusal
    model = dataclasses.replace(MODEL, **(changes or {}))
    run = dataclasses.replace(RUN, model=model, batch_size=8 if changes else 12)
    with pytest.raises(ConfigError) as error:
        assembly.make_problem(run, mesh_of(sizes))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((3, 1, 1), "make 3 devices and there are 8: set mesh.data=8"),
        ((4, 1, 4), "make 16 devices and there are 8: set mesh.data=2"),
        ((1, 3, 1), "whose product is 8"),
        ((-1, 3, 1), "make 6 devices and there are 8"),
        ((-1, -1, 1), "at most one is -1"),
        ((0, 1, 1), "at least 1"),
    ],
)
def test_a_mesh_that_does_not_fit_is_mended(sizes, words):
    with pytest.raises(ConfigError, match=words):
        sharding.make_mesh(Mesh(*sizes))


def test_make_mesh_takes_what_is_left():
    assert dict(sharding.make_mesh(Mesh()).shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(sharding.make_mesh(Mesh(-1, 2, 2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert sharding.make_mesh(Mesh(), jax.devices()[:1]) is None


def test_without_a_mesh_there_is_no_spec():
    assert sharding.spec("batch", None) is None and sharding.batch_sharding(None) is None and sharding.mesh_size(None, "batch") == 1
    with sharding.use(mesh_of((2, 2, 2))):
        assert sharding.spec("batch", None, "vocab") == jax.sharding.PartitionSpec(("data", "fsdp"), None, "tensor")


def test_host_rows():
    assert sharding.host_rows(None, 8) == (0, 8)
    assert sharding.host_rows(sharding.batch_sharding(mesh_of((2, 2, 2))), 8) == (0, 8)  # one process holds them all
