"""From sources to batches on their devices: prepared stores of documents or of labelled examples, and batch(step) of either.

Read first: `data/batches.py`, `data/example_batches.py`. Read next: `training/loop.py`, `evaluation.py`.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm import labelled, sharding
from jaxlm.config import Data, Run
from jaxlm.data import batches, example_batches, loader, prepare
from jaxlm.data.batches import Batches, Kind
from jaxlm.data.example_batches import Bucket, ExampleBatches, Noise
from jaxlm.data.examples import Examples
from jaxlm.data.mixed_batches import MixedBatches, mix
from jaxlm.data.pair_rows import PairShape
from jaxlm.data.store import MANIFEST, Store
from jaxlm.errors import ConfigError
from jaxlm.ops.noise import Vocabulary, make_vocabulary
from jaxlm.tasks import scheduled_sampling, task_named
from jaxlm.tasks.pair_sides import target_length
from jaxlm.text.tokenizer import Tokenizer

Say = Callable[[str], None]
Stores = list[Any]  # data.store.Store, or data.examples.Examples


def named_sources(run: Run) -> list[tuple[str, float]]:
    """The run's sources with their weights: one of weight 1, or a mixture."""
    return [(name, weight) for name, weight, _ in labelled.entries(run)]


def make_stores(run: Run, tokenizer: Tokenizer, say: Say) -> tuple[Stores, Stores]:
    """Prepared training and validation stores, one a source."""
    if task_named(run.task).RECORDS:
        made = [labelled.make_examples(part, tokenizer, say) for part in labelled.parts(run)]
        return [train for train, _ in made], [held for _, held in made if held is not None]
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


def with_steps(run: Run, stores: Stores, tokenizer: Tokenizer, mesh: jax.sharding.Mesh | None = None) -> Run:
    """The run with the steps that its epochs take, where it counts in epochs."""
    if run.epochs is None:
        return run
    return dataclasses.replace(run, steps=max(1, math.ceil(run.epochs / make_batches(run, stores, tokenizer, mesh).epoch(1) - 1e-9)))


def make_batches(
    run: Run, stores: Stores, tokenizer: Tokenizer, mesh: jax.sharding.Mesh | None = None
) -> Batches | ExampleBatches | MixedBatches:
    """batch(step) of a run. A batch of a fixed number of tokens has as many rows as the mesh and the micro-batches divide."""
    if task_named(run.task).RECORDS:
        plan = lambda store, seed: plan_rows(run, store, seed, rows_multiple(run, mesh))
        made = [
            ExampleBatches(s, plan(s, seed), run.batch_size, seed, _noise(run, tokenizer, seed)) for seed, s in enumerate(stores, run.seed)
        ]
        return made[0] if len(made) == 1 else mix(made, [weight for _, weight in named_sources(run)], run.seed)
    weights = [weight for _, weight in named_sources(run)]
    return batches.make_batches(stores, weights, row_data(run), run.batch_size, run.seed, kind_of(run, tokenizer))


def plan_rows(run: Run, examples: Examples, seed: int | None, multiple: int = 1) -> tuple[Bucket, ...]:
    """Which examples stand in which rows; `seed` None: of an evaluation, whose batches are as large as micro-batches.

    Args:
      multiple: of how many rows a batch of a fixed number of tokens is made.
    """
    data = run.data
    tokens = data.batch_tokens and data.batch_tokens // (1 if seed is not None else run.accumulate)
    shape = PairShape(target_length(run), tokens, run.batch_size if tokens is None else multiple)
    return example_batches.plan(examples, data.packing or example_batches.PACKED, data.sequence_length, seed, shape)


def rows_multiple(run: Run, mesh: jax.sharding.Mesh | None) -> int:
    """What the rows of a batch of a fixed number of tokens are a multiple of, so that mesh and micro-batches divide them.

    8, or 4 or 2 where no more rows have room, for all that divide these: so a run goes on with the same batches on another mesh.
    """
    needed = sharding.mesh_size(mesh, "batch") * run.accumulate
    room = (run.data.batch_tokens or 0) // (run.data.sequence_length + target_length(run))
    usual = 2 ** min(3, max(room, 1).bit_length() - 1)
    return needed if usual % needed else usual


def row_data(run: Run) -> Data:
    """How running text becomes rows: as long as the task wants them, where that is not what the model is given."""
    length = getattr(task_named(run.task), "row_length", lambda run: run.data.sequence_length)(run)
    return dataclasses.replace(run.data, sequence_length=length)


def _noise(run: Run, tokenizer: Tokenizer, seed: int) -> Noise | None:
    if not run.records.noise:
        return None
    token = tokenizer.unk_id if tokenizer.mask_id is None else tokenizer.mask_id
    if token is None:
        raise ConfigError(f"records.noise={run.records.noise} needs a mask or unknown token, which the tokenizer lacks: leave it out")
    return Noise(run.records.noise, token, tuple(tokenizer.controls.values()), seed)


def kind_of(run: Run, tokenizer: Tokenizer) -> Kind:
    """What a task over documents learns from."""
    rows = getattr(task_named(run.task), "ROWS", run.task)
    return Kind(rows, vocabulary_of(run, tokenizer), run.masking.swap)


def vocabulary_of(run: Run, tokenizer: Tokenizer) -> Vocabulary | None:
    """What a task's noise needs to know of the tokens; None for tasks without."""
    task = task_named(run.task)
    if run.task == "causal-lm" or task.RECORDS:
        return None
    return make_vocabulary(tokenizer, getattr(task, "needs", lambda run: ("mask",))(run))


def training_batches(problem: Any, stores: Stores, tokenizer: Tokenizer) -> tuple[Any, Callable[[int], Iterator[Any]]]:
    """The batches of a run, and (first step) -> iterator over them, placed on their devices."""
    run = problem.run
    made = make_batches(run, stores, tokenizer, problem.mesh)
    place, make = placer(problem, made, tokenizer, run.accumulate)
    make = with_sampling_rate(run, make) if run.loss.scheduled_sampling else make
    steps = lambda first: range(first, run.steps)
    return made, lambda first: map(place, loader.load(run.data.loader, make, steps(first), run.data.prefetch))


def with_sampling_rate(run: Run, make: Callable[[int], dict[str, np.ndarray]]) -> Callable[[int], dict[str, np.ndarray]]:
    """The same rows, each with the share of its decoder's inputs that are to be predictions at this step."""

    def made(step: int) -> dict[str, np.ndarray]:
        rows, share = make(step), scheduled_sampling.rate(step, run.steps, run.loss)
        return {**rows, "sampling_rate": np.full(rows["tokens"].shape[:-1], share, np.float32)}

    return made


def placer(problem: Any, made: Batches | ExampleBatches | MixedBatches, tokenizer: Tokenizer, accumulate: int = 1):
    """place: this host's rows -> arrays over all devices; make: step -> this host's rows."""
    lead, parts = () if accumulate == 1 else (accumulate,), sharding.mesh_size(problem.mesh, "batch")
    layout = sharding.batch_sharding(problem.mesh, len(lead))
    first, last = sharding.host_rows(layout, parts)  # this host's parts of every micro-batch
    rows_of = getattr(made, "rows_of", lambda step: made.batch_size)
    finish = _features(problem, made, tokenizer)

    def make(step: int) -> dict[str, np.ndarray]:
        micro = rows_of(step) // accumulate
        start, stop = (part * micro // parts for part in (first, last))
        pieces = [finish(step, i * micro + start, i * micro + stop) for i in range(accumulate)]
        return pieces[0] if accumulate == 1 else {name: np.stack([piece[name] for piece in pieces]) for name in pieces[0]}

    def place(rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        if layout is None:
            return jax.device_put(rows)
        micro = lambda array: array.shape[len(lead)] * parts // (last - first)
        whole = lambda array: (*lead, micro(array), *array.shape[len(lead) + 1 :])
        return {name: jax.make_array_from_process_local_data(layout, array, whole(array)) for name, array in rows.items()}

    return place, make


def _features(
    problem: Any, made: Batches | ExampleBatches | MixedBatches, tokenizer: Tokenizer
) -> Callable[[int, int, int], dict[str, np.ndarray]]:
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
        return [ExampleBatches(store, plan_rows(run, store, None, rows), size, None) for store in stores]
    return [batches.evaluation_batches(store, row_data(run), size, tokenizer.eos_id, kind_of(run, tokenizer)) for store in stores]
