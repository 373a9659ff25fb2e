"""What a run tells before its first step: parameters, memory, operations, data."""

import dataclasses
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import sharding
from jaxlm.models import dims, make_model
from jaxlm.planning.flops import FORMULA, peak_flops, training_flops
from jaxlm.planning.memory import Memory, device_limit, estimate, human, residual_bytes
from jaxlm.training.report import Rates


def print_banner(problem: Any, stores: list, held: list, say: Any) -> Rates:
    """Say what the run is and what it will need; returns what turns tokens into FLOP/s."""
    run, params = problem.run, problem.abstract["params"]
    say("\n".join(parameter_lines(params)))
    say("\n".join(memory_lines(plan_memory(problem))))
    rates = Rates(training_flops(problem.model, params, run.data.sequence_length), *peak_flops(run.compute.dtype))
    say(
        f"FLOPs: {rates.flops_per_token / 1e6:,.1f} million a token ({FORMULA}); peak {rates.peak / 1e12:.3g} TFLOP/s ({rates.peak_source})"
    )
    tokens, texts = sum(store.tokens for store in stores), sum(len(store.lengths) for store in stores)
    outside = sum(store.tokens for store in held)
    batch = run.batch_size * run.data.sequence_length
    say(
        f"data: {texts:,} documents of {tokens:,} tokens to train on, {outside:,} tokens held out; {batch:,} tokens a batch, "
        f"{run.steps:,} steps, {run.steps * batch / max(tokens, 1):.2f} epochs"
    )
    return rates


def plan_memory(problem: Any) -> Memory:
    """Memory of a training step on one device."""
    run, length = problem.run, problem.run.data.sequence_length
    rows = run.batch_size // run.accumulate
    with sharding.use(problem.mesh):
        batch = jax.eval_shape(lambda: _zeros(rows, length, run.data.packing == "documents"))
        parts = sharding.mesh_size(problem.mesh, "batch")
        logits = (rows // parts * (run.loss.chunk or length), run.model.vocab_size // sharding.mesh_size(problem.mesh, "vocab"))
        memory = estimate(problem.loss, problem.abstract, batch, logits)
        return dataclasses.replace(memory, recomputed=_recomputed(problem, batch, memory.activations))


def _recomputed(problem: Any, batch: dict[str, Any], kept: int) -> int:
    """Bytes of one layer that rematerialization makes again: its share of what would be kept without."""
    run = problem.run
    if run.compute.remat == "none":
        return 0
    model = make_model(run.model, dataclasses.replace(run.compute, remat="none"), run.task)
    loss = lambda params, batch, key: problem.task.loss(model, params, batch, key, run.loss)
    layers = dims(run.model).layers
    return (residual_bytes(loss, problem.abstract["params"], batch) - kept) // layers


def _zeros(rows: int, length: int, packed: bool) -> dict[str, jax.Array]:
    layout = sharding.spec("batch", None)
    ids = jnp.zeros((rows, length), jnp.int32, out_sharding=layout)
    batch = {"tokens": ids, "targets": ids, "weights": jnp.zeros((rows, length), jnp.float32, out_sharding=layout)}
    return {**batch, "segments": ids} if packed else batch


def parameter_lines(params: Any) -> list[str]:
    """A table of the parameters, layers of one shape counted together."""
    groups: dict[tuple[str, tuple[int, ...]], int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join("*" if entry.key.isdigit() else entry.key for entry in path)
        groups[name, leaf.shape] = groups.get((name, leaf.shape), 0) + 1
    width = max(len(name) for name, _ in groups)
    lines = []
    for (name, shape), count in groups.items():
        times = f"{count} x " if count > 1 else ""
        lines.append(f"  {name:<{width}}  {times + str(list(shape)):<20} {count * prod(shape):>14,}")
    total = int(np.sum([leaf.size for leaf in jax.tree.leaves(params)]))
    return [*lines, f"  {'parameters':<{width}}  {'':<20} {total:>14,}"]


def memory_lines(memory: Memory) -> list[str]:
    """The estimate, and whether the device has as much."""
    parts = (
        f"parameters {human(memory.parameters)}, gradients {human(memory.gradients)}, optimizer {human(memory.optimizer)}, "
        f"activations {human(memory.activations)}, logits {human(memory.logits)}"
    )
    limit = device_limit()
    line = f"memory a device: {human(memory.total)} ({parts})"
    if limit is None:
        return [line]
    if memory.total > limit:
        mend = "lower batch_size, raise accumulate, set compute.remat=full or loss.chunk, or divide with mesh.fsdp"
        return [line, f"WARNING: the device has {human(limit)}: {mend}"]
    return [f"{line} of {human(limit)}"]
