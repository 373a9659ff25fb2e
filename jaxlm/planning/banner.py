"""What a run tells before its first step: parameters, memory, operations, data."""

import dataclasses
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import sharding
from jaxlm.models import dims, make_model
from jaxlm.ops.special_ids import vocabulary
from jaxlm.planning.blank import batch_rows, blank_batch, row_tokens
from jaxlm.planning.flops import FORMULA, peak_flops, training_flops
from jaxlm.planning.memory import Memory, device_limit, estimate, human, residual_bytes
from jaxlm.training.report import Rates
from jaxlm.training.step import best_params
from jaxlm.training.tuning import paths, updated


def print_banner(problem: Any, stores: list, held: list, say: Any) -> Rates:
    """Say what the run is and what it will need; returns what turns tokens into FLOP/s."""
    run = problem.run
    say("\n".join(model_lines(problem)))
    say("\n".join(memory_lines(plan_memory(problem))))
    rates = Rates(token_flops(problem), *peak_flops(run.compute.dtype))
    say(
        f"FLOPs: {rates.flops_per_token / 1e6:,.1f} million a token ({FORMULA}); peak {rates.peak / 1e12:.3g} TFLOP/s ({rates.peak_source})"
    )
    tokens, texts = sum(map(_tokens, stores)), sum(len(store.lengths) for store in stores)
    outside = sum(map(_tokens, held))
    batch = batch_rows(run, problem.mesh) * sum(row_tokens(run))
    of = "" if run.data.batch_tokens is None else f" of the longest rows (data.batch_tokens={run.data.batch_tokens})"
    unit = "examples" if problem.task.RECORDS else "documents"
    say(
        f"data: {texts:,} {unit} of {tokens:,} tokens to train on, {outside:,} tokens held out; {batch:,} tokens a batch{of}, "
        f"{run.steps:,} steps, {run.epochs or run.steps * batch / max(tokens, 1):.2f} epochs"
    )
    return rates


def _tokens(store: Any) -> int:
    """Tokens of a store, of pairs those of both sides."""
    targets = getattr(store, "target_lengths", None)
    return store.tokens + (0 if targets is None else int(targets.sum()))


def plan_memory(problem: Any) -> Memory:
    """Memory of a training step on one device."""
    run, length = problem.run, problem.run.data.sequence_length
    rows = batch_rows(run, problem.mesh) // run.accumulate
    with sharding.use(problem.mesh):
        batch = jax.eval_shape(lambda: _placed(blank_batch(run, rows, length)))
        logits = _logits(problem, batch)
        memory = estimate(problem.loss, problem.abstract, batch, logits)
        return dataclasses.replace(memory, recomputed=_recomputed(problem, batch, memory.activations))


def _recomputed(problem: Any, batch: dict[str, Any], kept: int) -> int:
    """Bytes of one layer that rematerialization makes again: its share of what would be kept without."""
    run = problem.run
    if run.compute.remat == "none":
        return 0
    model = make_model(run.model, dataclasses.replace(run.compute, remat="none"), problem.model.task)
    loss = lambda params, batch, key: problem.task.loss(model, params, batch, key, run.loss)
    layers = dims(run.model).layers
    return (residual_bytes(loss, problem.abstract, batch) - kept) // layers


def _logits(problem: Any, batch: dict[str, Any]) -> tuple[int, int]:
    """Rows of logits that exist at once on a device, and their classes."""
    run, parts = problem.run, sharding.mesh_size(problem.mesh, "batch")
    if "target_segments" in batch:
        *lead, length = batch["candidates" if "candidates" in batch else "targets"].shape
        rows = prod(lead)
        return rows // parts * length, vocabulary(run.model) // sharding.mesh_size(problem.mesh, "vocab")
    rows, length = batch.get("places", batch["tokens"]).shape
    if problem.task.RECORDS:
        return rows // parts * length, getattr(run.model, "num_labels", 2)
    return rows // parts * (run.loss.chunk or length), run.model.vocab_size // sharding.mesh_size(problem.mesh, "vocab")


def _placed(batch: dict[str, Any]) -> dict[str, jax.Array]:
    zeros = lambda array: jnp.zeros(array.shape, array.dtype, out_sharding=sharding.spec("batch", *[None] * (array.ndim - 1)))
    return {name: zeros(array) for name, array in batch.items()}


def token_flops(problem: Any) -> float:
    """FLOPs of a training step for one token; what is frozen gets no gradient."""
    params, state = whole_shapes(problem), problem.abstract
    fixed = paths(state.get("frozen")).keys() - updated(state["params"])
    return training_flops(problem.model, params, *row_tokens(problem.run), fixed)


def whole_shapes(problem: Any) -> Any:
    """The shapes of the whole model, of trained and frozen parameters together."""
    with sharding.use(problem.mesh):
        return jax.eval_shape(best_params, problem.abstract)


def model_lines(problem: Any) -> list[str]:
    """The table of the parameters, and how many of them are trained where that is not all."""
    lines, state = parameter_lines(whole_shapes(problem)), problem.abstract
    if "frozen" not in state:
        return lines
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    trained, low_rank = count(state["params"]), count(state["params"].get("lora"))
    share = trained / (trained + count(state["frozen"]))
    return [*lines, f"  trained: {trained:,} ({share:.2%})" + (f", {low_rank:,} of them low-rank updates" if low_rank else "")]


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
