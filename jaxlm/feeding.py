"""From sources to batches on their devices: prepared stores of documents or of labelled examples, and batch(step) of either.

Read first: `data/batches.py`, `data/example_batches.py`. Read next: `training/loop.py`, `evaluation.py`.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm import labelled, sharding
from jaxlm.config import Run
from jaxlm.data import batches, example_batches, loader, prepare
from jaxlm.data.batches import Batches, Kind
from jaxlm.data.example_batches import ExampleBatches, Noise
from jaxlm.data.store import MANIFEST, Store
from jaxlm.errors import ConfigError
from jaxlm.ops.noise import Vocabulary, make_vocabulary
from jaxlm.tasks import task_named
from jaxlm.text.tokenizer import Tokenizer

Say = Callable[[str], None]
Stores = list[Any]  # data.store.Store, or data.examples.Examples


def named_sources(run: Run) -> list[tuple[str, float]]:
    """The run's sources with their weights: one of weight 1, or a mixture."""
    source = run.data.source
    if isinstance(source, str):
        return [(source, 1.0)]
    if not source or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in source):
        raise ConfigError(f"data.source={source!r} is neither a name nor a mixture ((source, weight), ...)")
    return [(name, float(weight)) for name, weight in source]


def make_stores(run: Run, tokenizer: Tokenizer, say: Say) -> tuple[Stores, Stores]:
    """Prepared training and validation stores, one a source."""
    if task_named(run.task).RECORDS:
        train, held = labelled.make_examples(run, tokenizer, say)
        return [train], [held] if held is not None else []
    if run.data.validation_source:
        whole = dataclasses.replace(run.data, validation=0.0, validation_source=None)
        stores = [prepare.prepare(whole, name, tokenizer, say)[0] for name, _ in named_sources(run)]
        return stores, [prepare.prepare(whole, run.data.validation_source, tokenizer, say)[0]]
    pairs = [prepare.prepare(run.data, name, tokenizer, say) for name, _ in named_sources(run)]
    return [train for train, _ in pairs], [held for _, held in pairs if held is not None and held.tokens > 0]


def data_digest(stores: Stores) -> str:
    """A digest of what the stores hold, wherever they lie."""
    digest = hashlib.sha256()
    for store in stores:
        digest.update((store.directory / MANIFEST).read_bytes())
    return digest.hexdigest()


def held_out_texts(run: Run) -> Iterator[str]:
    """The validation documents of all sources."""
    if run.data.validation_source:
        return prepare.training_documents(dataclasses.replace(run.data, validation=0.0), run.data.validation_source)
    return (text for name, _ in named_sources(run) for text in prepare.validation_documents(run.data, name))


def with_steps(run: Run, stores: Stores, tokenizer: Tokenizer) -> Run:
    """The run with the steps that its epochs take, where it counts in epochs."""
    if run.epochs is None:
        return run
    return dataclasses.replace(run, steps=max(1, math.ceil(run.epochs / make_batches(run, stores, tokenizer).epoch(1) - 1e-9)))


def make_batches(run: Run, stores: Stores, tokenizer: Tokenizer) -> Batches | ExampleBatches:
    """batch(step) of a run."""
    if task_named(run.task).RECORDS:
        buckets = example_batches.plan(stores[0], run.data.packing or example_batches.PACKED, run.data.sequence_length, run.seed)
        return ExampleBatches(stores[0], buckets, run.batch_size, run.seed, _noise(run, tokenizer))
    weights = [weight for _, weight in named_sources(run)]
    return batches.make_batches(stores, weights, run.data, run.batch_size, run.seed, kind_of(run, tokenizer))


def _noise(run: Run, tokenizer: Tokenizer) -> Noise | None:
    if not run.records.noise:
        return None
    token = tokenizer.unk_id if tokenizer.mask_id is None else tokenizer.mask_id
    if token is None:
        raise ConfigError(f"records.noise={run.records.noise} needs a mask or unknown token, which the tokenizer lacks: leave it out")
    return Noise(run.records.noise, token, tuple(tokenizer.controls.values()), run.seed)


def kind_of(run: Run, tokenizer: Tokenizer) -> Kind:
    """What a task over documents learns from."""
    rows = getattr(task_named(run.task), "ROWS", run.task)
    return Kind(rows, vocabulary_of(run, tokenizer), run.masking.swap)


def vocabulary_of(run: Run, tokenizer: Tokenizer) -> Vocabulary | None:
    """What the noise of masked language modelling needs; None for tasks without."""
    return None if run.task == "causal-lm" or task_named(run.task).RECORDS else _vocabulary(tokenizer)


@functools.lru_cache(1)
def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    return make_vocabulary(tokenizer)


def training_batches(problem: Any, stores: Stores, tokenizer: Tokenizer) -> tuple[Any, Callable[[int], Iterator[Any]]]:
    """The batches of a run, and (first step) -> iterator over them, placed on their devices."""
    run = problem.run
    made = make_batches(run, stores, tokenizer)
    place, make = placer(problem, made, tokenizer, run.accumulate)
    steps = lambda first: range(first, run.steps)
    return made, lambda first: map(place, loader.load(run.data.loader, make, steps(first), run.data.prefetch))


def placer(problem: Any, made: Batches | ExampleBatches, tokenizer: Tokenizer, accumulate: int = 1):
    """place: this host's rows -> arrays over all devices; make: step -> this host's rows."""
    lead = () if accumulate == 1 else (accumulate,)
    layout = sharding.batch_sharding(problem.mesh, len(lead))
    micro = made.batch_size // accumulate
    start, stop = sharding.host_rows(layout, micro)
    finish = _features(problem, made, tokenizer)

    def make(step: int) -> dict[str, np.ndarray]:
        parts = [finish(step, i * micro + start, i * micro + stop) for i in range(accumulate)]
        return parts[0] if accumulate == 1 else {name: np.stack([part[name] for part in parts]) for name in parts[0]}

    def place(rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        if layout is None:
            return jax.device_put(rows)
        whole = lambda array: (*lead, micro, *array.shape[len(lead) + 1 :])
        return {name: jax.make_array_from_process_local_data(layout, array, whole(array)) for name, array in rows.items()}

    return place, make


def _features(problem: Any, made: Batches | ExampleBatches, tokenizer: Tokenizer) -> Callable[[int, int, int], dict[str, np.ndarray]]:
    """(step, first row, last row) -> what the model is given."""
    run, task = problem.run, problem.task
    if task.RECORDS:
        typed = getattr(run.model, "type_vocab_size", 0) > 1
        named = lambda rows: {name: values for name, values in rows.items() if typed or name != "token_types"}
        return lambda step, start, stop: named(made.rows(step, start, stop))
    vocabulary = vocabulary_of(run, tokenizer)
    return lambda step, start, stop: task.features(made.rows(step, start, stop), vocabulary, made.draws(step, start, stop), run)


def whole(array: jax.Array) -> np.ndarray:
    """An array of any layout, all of it, on this host."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def validation_batches(problem: Any, stores: list[Store], tokenizer: Tokenizer) -> list[Any]:
    """The batches of an evaluation, of every store its own."""
    run, rows = problem.run, sharding.mesh_size(problem.mesh, "batch")
    size = -(-run.batch_size // (run.accumulate * rows)) * rows
    if problem.task.RECORDS:
        plan = lambda store: example_batches.plan(store, run.data.packing or example_batches.PACKED, run.data.sequence_length, None)
        return [ExampleBatches(store, plan(store), size, None) for store in stores]
    return [batches.evaluation_batches(store, run.data, size, tokenizer.eos_id, kind_of(run, tokenizer)) for store in stores]
