"""What a model makes of held-out data: a loss over documents or pairs, texts written for some of these, or the outputs and metrics of
labelled examples.

Read first: `feeding.py`, a task, `outputs.py`. Read next: `training/loop.py`, which asks for it, and `evaluate.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import outputs as texts
from jaxlm.data import loader
from jaxlm.data.example_batches import ExampleBatches
from jaxlm.data.examples import Examples
from jaxlm.errors import DataError
from jaxlm.feeding import Stores, placer, validation_batches, whole
from jaxlm.tasks.inputs import logits_of
from jaxlm.text.tokenizer import Tokenizer

Outputs = list[np.ndarray]  # of every example the logits of its tokens, float32 [n, ...]


def make_validation(problem: Any, stores: Stores, tokenizer: Tokenizer) -> Callable[[Any], dict[str, float]]:
    """params -> the task's metrics over the validation stores, every token or example of them once."""
    if not stores:
        return lambda params: {}
    if generates(problem.task):
        return _over_pairs(problem, stores, tokenizer)
    if not problem.task.RECORDS:
        return token_metrics(problem, stores, tokenizer)
    made = validation_batches(problem, stores, tokenizer)
    examples = [read_example(stores[0], i) for i in range(len(stores[0]))]
    forward = make_forward(problem)

    def evaluate(params: Any) -> dict[str, float]:
        outputs, loss = collect(problem, made[0], forward, params, tokenizer)
        if loss is None:
            raise DataError(
                "the validation records have no labels: name their column in records.columns, or another data.validation_source"
            )
        return {"loss": loss, **problem.task.metrics(outputs, examples, problem.run.records)}

    return evaluate


def generates(task: Any) -> bool:
    """Whether a task's outputs are texts, which are written, and not logits."""
    return getattr(task, "GENERATES", False)


def _over_pairs(problem: Any, stores: Stores, tokenizer: Tokenizer) -> Callable[[Any], dict[str, float]]:
    """The loss of all targets, and, of `evaluation.generate` examples evenly spread, the scores of what is written for them."""
    measure, numbers = token_metrics(problem, stores, tokenizer), texts.chosen(stores[0], problem.run.evaluation.generate or 0)
    writer = texts.Writer(problem.run, problem.model, tokenizer)
    if numbers.size:
        texts.check_scores(problem.run)

    def evaluate(params: Any) -> dict[str, float]:
        if not numbers.size:
            return measure(params)
        answers, _ = texts.answer(writer, params, stores[0], numbers)
        return measure(params) | texts.corpus(texts.scores_of(answers, problem.run))

    return evaluate


def token_metrics(problem: Any, stores: Stores, tokenizer: Tokenizer) -> Callable[[Any], dict[str, float]]:
    """params -> the metrics of a task that counts in tokens, over all of the stores."""
    made, measure = validation_batches(problem, stores, tokenizer), _measure(problem)
    return lambda params: _over_documents(problem, made, measure, params, tokenizer)


def _measure(problem: Any) -> Callable[[Any, Any], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]:
    """The jitted (params, batch) -> (sum of losses, sum of weights, what else the task counts), without dropout."""
    if hasattr(problem.task, "measure"):
        return jax.jit(lambda params, batch: problem.task.measure(problem.model, params, batch, problem.run.loss))
    return jax.jit(lambda params, batch: (*problem.loss(params, batch, None), {}))


def _over_documents(problem: Any, made: list[Any], measure: Callable, params: Any, tokenizer: Tokenizer) -> dict[str, float]:
    sums, complete = [], True
    for one in made:
        place, make = placer(problem, one, tokenizer)
        count = min(one.count, problem.run.evaluation.batches or one.count)
        complete = complete and count == one.count
        for batch in map(place, loader.threads(make, range(count), 2)):
            sums.append(measure(params, batch))
            _hold_back(sums)
    add = lambda values: float(np.sum([float(value) for value in values], dtype=np.float64))
    counted = {name: add(row[2][name] for row in sums) for name in (sums[0][2] if sums else ())}
    if complete and not problem.task.RECORDS:
        counted["bytes"] = sum(store.bytes for one in made for store in one.stores)
    return problem.task.metrics(add(row[0] for row in sums), add(row[1] for row in sums), counted)


def _hold_back(sums: list) -> None:
    """Keep two evaluation steps in flight, no more: their batches wait in memory."""
    if len(sums) > 2:
        jax.block_until_ready(sums[-3])


def make_forward(problem: Any, dropout: bool = False) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """The jitted (params, batch, key) -> (sum of losses, sum of weights, logits [B, T, ...]); the key is of dropout, if any."""

    def forward(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits = logits_of(problem.model, params, batch, key if dropout else None)
        return *problem.loss(params, batch, None), logits.astype(jnp.float32)

    return jax.jit(forward)


def collect(
    problem: Any, made: ExampleBatches, forward: Callable, params: Any, tokenizer: Tokenizer, seed: int = 0
) -> tuple[Outputs, float | None]:
    """The outputs of all examples, in their order, and the mean loss (None where nothing has a label)."""
    place, make = placer(problem, made, tokenizer)
    outputs: dict[int, np.ndarray] = {}
    total = weight = 0.0
    key = jax.random.key(seed)
    for step, batch in enumerate(map(place, loader.threads(make, range(made.count), 2))):
        loss, count, logits = forward(params, batch, jax.random.fold_in(key, step))
        total, weight = total + float(loss), weight + float(count)
        outputs |= _cut_out(whole(logits), made, step)
    return [outputs[i] for i in range(len(made.examples))], total / weight if weight else None


def _cut_out(logits: np.ndarray, made: ExampleBatches, step: int) -> dict[int, np.ndarray]:
    found = {}
    for line, row in zip(logits, made.members(step)[0], strict=True):
        at = 0
        for example in row:
            stop = at + int(made.examples.lengths[example])
            found[example] = line[at:stop].copy()
            at = stop
    return found


def read_example(examples: Examples, number: int) -> dict[str, Any]:
    """An example as tasks want it: its columns, and "about"."""
    return {name: examples.column(name, number) for name in examples.columns} | {"about": examples.about(number)}
