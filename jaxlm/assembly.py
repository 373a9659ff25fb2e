"""From a configuration to the parts of a run: tokenizer, stores, model, loss, state. Every command that trains or plans starts here.

Read next: `training/loop.py`, which is given these parts.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm import sharding
from jaxlm.config import Run
from jaxlm.data import batches, loader, prepare, sources
from jaxlm.data.store import MANIFEST, Store
from jaxlm.errors import ConfigError
from jaxlm.models import axis_sizes, dims, init_params, input_table, make_model, settings
from jaxlm.overrides import choose
from jaxlm.tasks import task_named
from jaxlm.text.embeddings.embedding_init import fill_embeddings
from jaxlm.text.embeddings.vector_files import load_vectors
from jaxlm.text.tokenizer import Tokenizer, keep_tokenizer, load_tokenizer
from jaxlm.text.training import train_tokenizer
from jaxlm.training.optimizer import make_optimizer
from jaxlm.training.step import init_state

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is optimized, as pure functions and shapes; no array exists yet."""

    run: Run
    mesh: jax.sharding.Mesh | None
    model: Any
    task: Any
    loss: Callable[[Any, Any, Any], tuple[jax.Array, jax.Array]]
    rule: Any
    schedule: Callable[[int], float]
    init: Callable[[jax.Array], Any]  # key -> state
    abstract: Any  # the state's shapes and shardings


def make_problem(run: Run, mesh: jax.sharding.Mesh | None) -> Problem:
    """The parts of a resolved run. Sizes that the mesh does not divide are refused before anything is traced."""
    check_run(run, mesh)
    model, task = make_model(run.model, run.compute, run.task), task_named(run.task)
    rule, schedule = make_optimizer(run.optimizer, run.steps)
    loss = lambda params, batch, key: task.loss(model, params, batch, key, run.loss)
    rows = sharding.mesh_size(mesh, "batch")

    def init(key: jax.Array) -> Any:
        return init_state(init_params(model, key, rows), rule, run.optimizer.ema)

    with sharding.use(mesh):
        abstract = jax.eval_shape(lambda: init(jax.random.key(run.seed)))
    return Problem(run, mesh, model, task, loss, rule, schedule, init, abstract)


def check_run(run: Run, mesh: jax.sharding.Mesh | None) -> None:
    """Refuse what cannot be, with the key to change."""
    check_ranges(run)
    if run.batch_size % run.accumulate:
        raise ConfigError(f"batch_size={run.batch_size} is not divisible by accumulate={run.accumulate}")
    sizes = {**axis_sizes(run.model), "batch": run.batch_size // run.accumulate}
    sharding.check_sizes(sizes, mesh, {**settings(run.model), "batch": "batch_size / accumulate"})
    length, limit = run.data.sequence_length, dims(run.model).context
    if limit is not None and length > limit:
        raise ConfigError(f"data.sequence_length={length} exceeds the model's {limit} positions: lower it or raise the model's")
    if run.loss.chunk is not None and length % run.loss.chunk:
        raise ConfigError(f"loss.chunk={run.loss.chunk} does not divide data.sequence_length={length}")
    choose("compute.dtype", run.compute.dtype, ("float32", "bfloat16", "float16"))
    choose("data.loader", run.data.loader, loader.LOADERS)
    choose("data.packing", run.data.packing, batches.PACKINGS)
    traced = run.profile.steps
    if traced and not (len(traced) == 2 and 0 <= traced[0] < traced[1]):
        raise ConfigError(f"profile.steps={list(traced)} names no steps: give the first and the last, as in profile.steps=[10,15]")


COUNTS = """steps batch_size accumulate data.sequence_length data.prefetch evaluation.every evaluation.batches evaluation.patience
    checkpoint.every checkpoint.keep logging.every loss.chunk optimizer.decay""".split()  # each at least 1, or None
POSITIVE = ("optimizer.learning_rate", "optimizer.clip", "optimizer.eps")
SHARES = ("loss.label_smoothing", "optimizer.b1", "optimizer.b2", "optimizer.momentum", "optimizer.ema")  # in [0, 1)


def check_ranges(run: Run) -> None:
    """Refuse a number outside the range of its key."""
    value = lambda key: functools.reduce(getattr, key.split("."), run)
    for keys, fits, range_ in (
        (COUNTS, lambda x: x >= 1, "at least 1"),
        (POSITIVE, lambda x: 0 < x < math.inf, "a positive number"),
        (SHARES, lambda x: 0 <= x < 1, "at least 0 and less than 1"),
        (("optimizer.warmup", "logging.samples"), lambda x: x >= 0, "at least 0"),
    ):
        for key in keys:
            if value(key) is not None and not fits(value(key)):
                raise ConfigError(f"{key}={value(key)}: it is {range_}")


def named_sources(run: Run) -> list[tuple[str, float]]:
    """The run's sources with their weights: one of weight 1, or a mixture."""
    source = run.data.source
    if isinstance(source, str):
        return [(source, 1.0)]
    if not source or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in source):
        raise ConfigError(f"data.source={source!r} is neither a name nor a mixture ((source, weight), ...)")
    return [(name, float(weight)) for name, weight in source]


def make_tokenizer(run: Run, say: Say, workers: int = 0) -> Tokenizer:
    """The tokenizer of a run: loaded from `tokenizer.path`, found in the cache, or trained on the training documents.

    `workers`: processes that clean those documents; fewer than two: this one.
    """
    if run.tokenizer.path:
        return load_tokenizer(run.tokenizer.path)
    names = [name for name, _ in named_sources(run)]
    marks = [sources.fingerprint(name, run.data.data_dir) for name in names]
    parts = [names, marks, run.data.column, run.data.split, run.data.validation, run.tokenizer.kind, run.tokenizer.vocab_size]
    parts += [[prepare.cleaning_digest(run.data, name, say, workers) for name in names]] if run.data.clean else []
    folder = Path(run.data.cache).expanduser() / "tokenizers" / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    if folder.is_dir():
        return load_tokenizer(folder)
    say(f"training a {run.tokenizer.kind} tokenizer of {run.tokenizer.vocab_size:,} tokens on {', '.join(names)}")
    texts = (text for name in names for text in prepare.training_documents(run.data, name, say, workers))
    tokenizer = train_tokenizer(run.tokenizer.kind, texts, run.tokenizer.vocab_size)
    keep_tokenizer(tokenizer, folder)
    return tokenizer


def make_stores(run: Run, tokenizer: Tokenizer, say: Say) -> tuple[list[Store], list[Store]]:
    """Prepared training and validation stores, one a source."""
    pairs = [prepare.prepare(run.data, name, tokenizer, say) for name, _ in named_sources(run)]
    return [train for train, _ in pairs], [held for _, held in pairs if held is not None and held.tokens > 0]


def data_digest(stores: list[Store]) -> str:
    """A digest of what the stores hold, wherever they lie."""
    digest = hashlib.sha256()
    for store in stores:
        digest.update((store.directory / MANIFEST).read_bytes())
    return digest.hexdigest()


def held_out_texts(run: Run) -> Iterator[str]:
    """The validation documents of all sources."""
    return (text for name, _ in named_sources(run) for text in prepare.validation_documents(run.data, name))


def resolve(run: Run, tokenizer: Tokenizer) -> Run:
    """The run with the model's vocabulary filled in from the tokenizer."""
    size = run.model.vocab_size
    if size is None:
        return dataclasses.replace(run, model=dataclasses.replace(run.model, vocab_size=tokenizer.vocab_size))
    if size < tokenizer.vocab_size:
        raise ConfigError(f"model.vocab_size={size} is smaller than the tokenizer's {tokenizer.vocab_size}: raise it, or leave it out")
    return run


def first_state(problem: Problem, tokenizer: Tokenizer, say: Say) -> Any:
    """The state before the first batch; `model.embedding_init` fills the input embeddings from a file of word vectors."""
    run = problem.run
    state = jax.jit(problem.init)(jax.random.key(run.seed))
    path = run.model.extra.get("embedding_init")
    if not path:
        return state
    name = input_table(state["params"])
    old = state["params"][name]
    table, coverage = fill_embeddings(_whole(old), tokenizer, load_vectors(path), run.seed)
    say(f"embeddings from {path}: {coverage}")
    new = jax.make_array_from_callback(old.shape, old.sharding, lambda part: table[part])
    copies = [group for group in ("params", "ema") if group in state]
    return {**state, **{group: {**state[group], name: jax.numpy.array(new)} for group in copies}}


def _whole(array: jax.Array) -> np.ndarray:
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def training_batches(problem: Problem, stores: list[Store]) -> tuple[batches.Batches, Callable[[int], Iterator[Any]]]:
    """The batches of a run, and (first step) -> iterator over them, placed on their devices."""
    run, weights = problem.run, [weight for _, weight in named_sources(problem.run)]
    made = batches.make_batches(stores, weights, run.data, run.batch_size, run.seed)
    place, make = _placer(problem, made, run.accumulate)
    steps = lambda first: range(first, run.steps)
    return made, lambda first: map(place, loader.load(run.data.loader, make, steps(first), run.data.prefetch))


def _placer(problem: Problem, made: batches.Batches, accumulate: int = 1):
    """place: this host's rows -> arrays over all devices; make: step -> this host's rows."""
    lead = () if accumulate == 1 else (accumulate,)
    layout = sharding.batch_sharding(problem.mesh, len(lead))
    micro = made.batch_size // accumulate
    start, stop = sharding.host_rows(layout, micro)

    def make(step: int) -> dict[str, np.ndarray]:
        parts = [made.rows(step, i * micro + start, i * micro + stop) for i in range(accumulate)]
        joined = parts[0] if accumulate == 1 else {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        return problem.task.features(joined)

    def place(rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        if layout is None:
            return jax.device_put(rows)
        whole = lambda array: (*lead, micro, *array.shape[len(lead) + 1 :])
        return {name: jax.make_array_from_process_local_data(layout, array, whole(array)) for name, array in rows.items()}

    return place, make


def make_validation(
    problem: Problem, stores: list[Store], tokenizer: Tokenizer, evaluate_batch: Callable
) -> Callable[[Any], dict[str, float]]:
    """params -> the task's metrics over the validation stores, every token of them once."""
    run, rows = problem.run, sharding.mesh_size(problem.mesh, "batch")
    size = -(-run.batch_size // (run.accumulate * rows)) * rows
    made = [batches.evaluation_batches(store, run.data, size, tokenizer.eos_id) for store in stores]
    text_bytes = sum(store.bytes for store in stores)

    def evaluate(params: Any) -> dict[str, float]:
        sums, seen, whole = [], 0, True
        for one in made:
            place, make = _placer(problem, one)
            count = min(one.count, run.evaluation.batches or one.count)
            seen, whole = seen + count, whole and count == one.count
            for batch in map(place, loader.threads(make, range(count), 2)):
                sums.append(evaluate_batch(params, batch))
                _hold_back(sums)
        totals = np.array([[float(x) for x in pair] for pair in sums], np.float64).reshape(-1, 2).sum(0)
        return problem.task.metrics(totals[0], totals[1], {"bytes": text_bytes if whole else 0})

    return evaluate if made else lambda params: {}


def _hold_back(sums: list) -> None:
    """Keep two evaluation steps in flight, no more: their batches wait in memory."""
    if len(sums) > 2:
        jax.block_until_ready(sums[-3])
