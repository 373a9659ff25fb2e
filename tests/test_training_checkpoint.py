"""Checkpoints: bit-equal round trips on any mesh, and nothing lost to a kill or a full disk (damage: `test_training_manifest.py`)."""

import errno
import functools
import os
import shutil
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxlm.errors import CheckpointError
from jaxlm.training import checkpoint, manifest

OPTIMIZERS = {
    "adamw": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(1e-3, 10))),
    "adafactor": optax.adafactor(1e-3, min_dim_size_to_factor=4),
    "muon": optax.contrib.muon(1e-3),
}
AXES = ("data", "fsdp", "tensor")


@functools.partial(jax.jit, static_argnums=0)
def make_state(optimizer: str = "adamw", seed: int = 0) -> dict:
    """A state after one update, so that counters and moments are not all zero."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {"wte": jax.random.normal(keys[0], (16, 8)), "h": ({"w": jax.random.normal(keys[1], (8, 8))}, {"b": jnp.ones(8)})}
    transform = OPTIMIZERS[optimizer]
    updates, moments = transform.update(jax.tree.map(jnp.sin, params), transform.init(params), params)
    params = optax.apply_updates(params, updates)
    ema = {"wte": jax.random.normal(keys[2], (16, 8), jnp.bfloat16)}
    return {"params": params, "ema": ema, "opt": moments, "step": jnp.int32(7), "skipped": jnp.uint32(3)}


def shard(tree, mesh):
    """Divide what can be divided: matrices along both axes, vectors along one."""
    specs = {0: PartitionSpec(), 1: PartitionSpec("tensor"), 2: PartitionSpec(("data", "fsdp"), "tensor")}

    def place(x):
        fits = all(size % 8 == 0 for size in x.shape)
        return jax.device_put(x, NamedSharding(mesh, specs[x.ndim] if fits else PartitionSpec()))

    return jax.tree.map(place, tree)


def same_bits(one, other) -> bool:
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.dtype == b.dtype and a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def write(workdir, steps=(1,), keep: int = 9, losses=None) -> None:
    writer = checkpoint.Writer(workdir, keep, {"config.json": b"{}"})
    for step in steps:
        writer.save(step, make_state(seed=step), best=(losses or {}).get(step))
    writer.close()


def newest(workdir) -> tuple[int | None, list[str]]:
    said: list[str] = []
    path = checkpoint.latest(workdir, said.append)
    return path and int(path.name), said


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_comes_back_bit_by_bit_with_its_types(tmp_path, optimizer):
    state = make_state(optimizer)
    writer = checkpoint.Writer(tmp_path, 1, {})
    writer.save(7, state, block=True)
    writer.close()
    back = checkpoint.restore(tmp_path / "checkpoints/7", jax.eval_shape(lambda: state), None)
    assert same_bits(state, back)


def test_a_state_saved_on_one_mesh_is_restored_on_others_and_on_none(tmp_path):
    state = make_state()
    saved_on = jax.make_mesh((2, 2, 2), AXES)
    writer = checkpoint.Writer(tmp_path, 1, {})
    with jax.set_mesh(saved_on):
        writer.save(1, shard(state, saved_on), block=True)
    writer.close()
    path = tmp_path / "checkpoints/1"
    for sizes in ((8, 1, 1), (1, 4, 2)):
        mesh = jax.make_mesh(sizes, AXES)
        with jax.set_mesh(mesh):
            target = jax.eval_shape(lambda tree: tree, shard(state, mesh))
            back = checkpoint.restore(path, target, mesh)
        assert same_bits(state, back)
        assert back["params"]["wte"].sharding == NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "tensor"))
    assert same_bits(state, checkpoint.restore(path, target, None))


def test_a_part_is_restored_without_knowing_the_rest(tmp_path):
    write(tmp_path)
    state, path = make_state(seed=1), tmp_path / "checkpoints/1"
    back = checkpoint.restore_part(path, {"ema": jax.eval_shape(lambda: state["ema"])}, None)
    assert same_bits({"ema": state["ema"]}, back)
    assert checkpoint.leaves(path)["params/h/0/w"] == jax.ShapeDtypeStruct((8, 8), jnp.float32)


@pytest.mark.parametrize("sizes", [None, (2, 2, 2)])
def test_a_donated_state_is_saved_as_it_was(tmp_path, sizes):
    mesh = sizes and jax.make_mesh(sizes, AXES)
    state = {f"w{i}": jnp.full((256, 256), float(i)) for i in range(8)}
    state = shard(state, mesh) if mesh else state
    zero = jax.jit(lambda tree: jax.tree.map(lambda x: x - 100, tree), donate_argnums=0)
    target = jax.eval_shape(lambda: state)
    jax.block_until_ready(zero(jax.tree.map(jnp.copy, state)))  # compiled before: the race starts at once
    writer = checkpoint.Writer(tmp_path, 1, {})
    writer.save(1, state)
    for _ in range(3):
        state = zero(state)
    jax.block_until_ready(state)
    writer.close()
    back = checkpoint.restore(tmp_path / "checkpoints/1", target, mesh)
    assert all((np.asarray(back[f"w{i}"]) == i).all() for i in range(8))


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda t: t["ema"].update(wte=jax.ShapeDtypeStruct((16, 8), jnp.float32)),
            r"ema/wte as bfloat16\[16, 8\] and this run has float32\[16, 8\]",
        ),
        (
            lambda t: t["params"].update(wte=jax.ShapeDtypeStruct((9, 8), jnp.float32)),
            r"params/wte as float32\[16, 8\] and this run has float32\[9, 8\]",
        ),
        (lambda t: t.update(more=jax.ShapeDtypeStruct((), jnp.int32)), "it has no more;"),
        (lambda t: t.pop("skipped"), "it holds skipped, which this run has not"),
    ],
)
def test_another_shape_dtype_or_leaf_is_refused_by_name(tmp_path, change, words):
    write(tmp_path)
    target = jax.eval_shape(make_state)
    change(target)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.restore(tmp_path / "checkpoints/1", target, None)


def test_the_newest_and_the_best_are_kept(tmp_path):
    write(tmp_path, (1, 2, 3, 4, 5, 6), keep=2, losses={1: 3.0, 2: 2.5})
    assert checkpoint.checkpoint_steps(tmp_path) == [2, 5, 6]
    assert manifest.best(tmp_path) == (2, 2.5)
    write(tmp_path, (6, 7), keep=2, losses={6: 2.0})  # 6 is there already: only marked
    assert checkpoint.checkpoint_steps(tmp_path) == [6, 7]
    assert manifest.best(tmp_path) == (6, 2.0)
    shutil.rmtree(tmp_path / "checkpoints/6")
    assert manifest.best(tmp_path) is None
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["7", "best.json"]


def test_a_save_that_fails_at_once_leaves_no_thread_that_keeps_the_process_alive(tmp_path):
    before, gone = set(threading.enumerate()), jnp.ones(8)
    gone.delete()
    writer = checkpoint.Writer(tmp_path, 1, {})
    with pytest.raises(CheckpointError, match="checkpoint 1 cannot be written"):
        writer.save(1, {"w": jnp.ones(8), "gone": gone})
    writer.close()
    for thread in set(threading.enumerate()) - before:
        threading.Thread.join(thread, timeout=5)  # Orbax's own join raises what its write met where the folder is gone
        assert thread.daemon or not thread.is_alive(), thread
    checkpoint.Writer(tmp_path, 1, {}).close()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("surfaces", ["save", "check", "close"])
def test_a_full_disk_is_told_at_the_next_call_and_loses_nothing(tmp_path, monkeypatch, surfaces):
    write(tmp_path)
    writer = checkpoint.Writer(tmp_path, 2, {})
    monkeypatch.setattr(manifest, "write_digest", no_space)
    writer.save(2, make_state(seed=2))
    calls = {"save": lambda: writer.save(3, make_state(seed=3)), "check": lambda: check_until(writer), "close": writer.close}
    mend = "checkpoint 2 cannot be written to .*: the disk is full; free some space and run the same command again: it goes on from step 1"
    with pytest.raises(CheckpointError, match=mend):
        calls[surfaces]()
    monkeypatch.undo()
    assert newest(tmp_path) == (1, []) and not list((tmp_path / "checkpoints").glob("*.tmp"))
    if surfaces != "close":
        writer.save(2, make_state(seed=2), block=True)  # room again: the same writer goes on
        assert newest(tmp_path) == (2, [])
        writer.close()


def check_until(writer) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        writer.check()


FULL_DISK = """
import subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", sys.argv[1]], check=True)
print("mounted", flush=True)
import jax, jax.numpy as jnp
from jaxlm.errors import exits
from jaxlm.training import checkpoint
def state(rows):
    return {"w": jax.random.normal(jax.random.key(0), (rows, 256))}
writer = checkpoint.Writer(sys.argv[1], 2, {})
writer.save(1, state(1024))
try:
    with exits():
        writer.save(2, state(4096))
        writer.close()
except SystemExit as error:
    print("code", error.code)
print(checkpoint.latest(sys.argv[1], print).name)
"""


def test_a_disk_that_is_really_full_is_one_line_and_the_older_checkpoint_stays(tmp_path):
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    if not shutil.which("unshare"):
        pytest.skip("needs unshare to mount a small disk")
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "mounted" not in ran.stdout:
        pytest.skip("this system does not let a user mount a small disk")
    assert ran.stdout.split() == ["mounted", "code", "65", "1"], ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "the disk is full; free some space and run the same command again: it goes on from step 1" in ran.stderr


KILLED = """
import os, random, signal, sys, time, warnings
import jax, jax.numpy as jnp
from orbax.checkpoint import v1
from jaxlm.training import checkpoint
warnings.simplefilter("ignore")
workdir, kills = sys.argv[1], int(sys.argv[2])
def value(step):
    return {"w": jnp.full((64, 64), step, jnp.float32), "step": jnp.int32(step)}
def child(work):  # JAX starts in the child: each is a run of its own
    ready, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        return pid, ready
    try:
        work(tell)
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
    os._exit(1)
def run(tell):
    path = checkpoint.latest(workdir, print)
    step = int(path.name) if path else 0
    if path:
        target = jax.eval_shape(lambda: value(step))
        restored = checkpoint.restore(path, target, None)
        assert (restored["w"] == step).all() and restored["step"] == step, step
    os.write(tell, b"%d " % step)
    writer = checkpoint.Writer(workdir, 2, {"config.json": b"{}"})
    while True:
        step += 1
        writer.save(step, value(step), best=1 / step)
        os.write(tell, b".")
chance = random.Random(0)
for life in range(kills):
    pid, ready = child(run)
    said = os.read(ready, 99)
    print("from", said.decode().split()[0], flush=True)
    while life % 2 and said.count(b".") < 2:  # every other life is long enough for a whole checkpoint, however slow the machine is
        said += os.read(ready, 99) or sys.exit("the run ended")
    time.sleep(chance.uniform(0.1, 0.5))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready)
"""


def test_a_run_killed_in_the_middle_of_saving_always_goes_on_from_a_good_checkpoint(tmp_path):
    kills = 6
    ran = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(kills)], capture_output=True, text=True, timeout=120)
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert all(line[0] == "from" and len(line) == 2 for line in lines) and len(lines) == kills, ran.stdout + ran.stderr
    steps = [int(line[1]) for line in lines]
    assert steps == sorted(steps) and steps[-1] > steps[0] == 0
    assert newest(tmp_path)[1] == []
