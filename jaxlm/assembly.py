"""From a configuration to the parts of a run: tokenizer, stores, model, loss, state. Every command that trains or plans starts here.

Read next: `training/loop.py`, which is given these parts.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxlm import sharding
from jaxlm.config import Run
from jaxlm.data import batches, example_batches, loader, prepare, sources
from jaxlm.errors import ConfigError
from jaxlm.feeding import named_sources, whole
from jaxlm.labelled import read_texts, resolve_records, source_of
from jaxlm.models import axis_sizes, dims, family, init_params, input_table, make_model, settings
from jaxlm.overrides import choose
from jaxlm.pretrained import load_body, new_parameters
from jaxlm.tasks import head_of, task_named
from jaxlm.text.embeddings.embedding_init import fill_embeddings
from jaxlm.text.embeddings.vector_files import load_vectors
from jaxlm.text.tokenizer import Tokenizer, keep_tokenizer, load_tokenizer
from jaxlm.text.training import train_tokenizer
from jaxlm.training.optimizer import make_optimizer
from jaxlm.training.resume import trained_beside_lora
from jaxlm.training.step import init_state
from jaxlm.training.tuning import check_tuning, divide, with_layer_decay

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
    begin: Callable[[Any, jax.Array], Any]  # the whole model's parameters, key -> state
    abstract: Any  # the state's shapes and shardings


def make_problem(run: Run, mesh: jax.sharding.Mesh | None) -> Problem:
    """The parts of a resolved run. Sizes that the mesh does not divide are refused before anything is traced."""
    check_run(run, mesh)
    check_tuning(run.tuning, run.pretrained)
    model, task = make_model(run.model, run.compute, head_of(run.task), run.masking), task_named(run.task)
    plain_rule, schedule = make_optimizer(run.optimizer, run.steps)
    loss = lambda params, batch, key: task.loss(model, params, batch, key, run.loss)
    rows = sharding.mesh_size(mesh, "batch")
    fresh = lambda key: init_params(model, key, rows)

    def begin(params: Any, key: jax.Array) -> Any:
        trained, frozen = divide(params, run.tuning, new, jax.random.fold_in(key, 1))
        return init_state(trained, rule, run.optimizer.ema, frozen)

    with sharding.use(mesh):
        shapes = jax.eval_shape(lambda: fresh(jax.random.key(run.seed)))
        rule = with_layer_decay(plain_rule, run.tuning.layer_decay, shapes)
        new = _new_parameters(run, model) if run.tuning.lora_rank else ()
        abstract = jax.eval_shape(lambda params: begin(params, jax.random.key(run.seed)), shapes)
    return Problem(run, mesh, model, task, loss, rule, schedule, lambda key: begin(fresh(key), key), begin, abstract)


def _new_parameters(run: Run, model: Any) -> set[str]:
    """What a run with low-rank updates trains beside them: as it has begun, or what the pretrained model does not have."""
    begun = trained_beside_lora(run.workdir)
    return new_parameters(run.pretrained, model) if begun is None else begun


def check_run(run: Run, mesh: jax.sharding.Mesh | None) -> None:
    """Refuse what cannot be, with the key to change."""
    check_ranges(run)
    check_task(run)
    if run.batch_size % run.accumulate:
        raise ConfigError(f"batch_size={run.batch_size} is not divisible by accumulate={run.accumulate}")
    sizes = {**axis_sizes(run.model), "batch": run.batch_size // run.accumulate}
    sharding.check_sizes(sizes, mesh, {**settings(run.model), "batch": "batch_size / accumulate"})
    if run.task == "replaced-tokens":
        generator = make_model(run.model, run.compute, run.task, run.masking).generator.config
        sharding.check_sizes(
            axis_sizes(generator), mesh, {axis: f"masking.generator times {key}" for axis, key in settings(generator).items()}
        )
    length, limit = run.data.sequence_length, dims(run.model).context
    if limit is not None and length > limit:
        raise ConfigError(f"data.sequence_length={length} exceeds the model's {limit} positions: lower it or raise the model's")
    if run.evaluation.batches is not None and task_named(run.task).RECORDS:
        raise ConfigError(
            f"evaluation.batches={run.evaluation.batches} is of running text: labelled records are measured all; leave it out"
        )
    if run.loss.chunk is not None and run.task != "causal-lm":
        raise ConfigError(f"loss.chunk={run.loss.chunk} is of task=causal-lm; task={run.task} has few logits: leave it out")
    if run.loss.chunk is not None and length % run.loss.chunk:
        raise ConfigError(f"loss.chunk={run.loss.chunk} does not divide data.sequence_length={length}")
    choose("compute.dtype", run.compute.dtype, ("float32", "bfloat16", "float16"))
    choose("data.loader", run.data.loader, loader.LOADERS)
    if run.masking.mask + run.masking.random > 1:
        raise ConfigError(f"masking.mask={run.masking.mask} and masking.random={run.masking.random} are shares of one whole: lower one")
    if (run.data.fold or run.data.fraction != 1) and not task_named(run.task).RECORDS:
        raise ConfigError(f"data.fold and data.fraction divide labelled records; task={run.task} learns from running text: leave them out")
    plans = example_batches.PLANS if task_named(run.task).RECORDS else batches.PACKINGS
    choose("data.packing", run.data.packing or next(iter(plans)), plans)
    traced = run.profile.steps
    if traced and not (len(traced) == 2 and 0 <= traced[0] < traced[1]):
        raise ConfigError(f"profile.steps={list(traced)} names no steps: give the first and the last, as in profile.steps=[10,15]")


COUNTS = """steps batch_size accumulate data.sequence_length data.prefetch evaluation.every evaluation.batches evaluation.patience
    checkpoint.every checkpoint.keep logging.every loss.chunk optimizer.decay
    records.question records.answer records.n_best""".split()  # each at least 1, or None
POSITIVE = ("optimizer.learning_rate", "optimizer.clip", "optimizer.eps", "epochs")
SHARES = ("loss.label_smoothing", "optimizer.b1", "optimizer.b2", "optimizer.momentum", "optimizer.ema", "records.noise")  # in [0, 1)


def check_ranges(run: Run) -> None:
    """Refuse a number outside the range of its key."""
    value = lambda key: functools.reduce(getattr, key.split("."), run)
    for keys, fits, range_ in (
        (COUNTS, lambda x: x >= 1, "at least 1"),
        (POSITIVE, lambda x: 0 < x < math.inf, "a positive number"),
        (SHARES, lambda x: 0 <= x < 1, "at least 0 and less than 1"),
        (
            ("optimizer.warmup", "logging.samples", "records.stride", "loss.r_drop", "loss.z_loss", "masking.detection"),
            lambda x: x >= 0,
            "at least 0",
        ),
        (("masking.rate", "masking.mask", "masking.random", "masking.swap", "masking.generator"), lambda x: 0 <= x <= 1, "from 0 to 1"),
    ):
        for key in keys:
            if value(key) is not None and not fits(value(key)):
                raise ConfigError(f"{key}={value(key)}: it is {range_}")


def make_tokenizer(run: Run, say: Say, workers: int = 0) -> Tokenizer:
    """The tokenizer of a run: loaded from `tokenizer.path`, found in the cache, or trained on the training documents.

    `workers`: processes that clean those documents; fewer than two: this one.
    """
    begun = Path(run.workdir).expanduser() / "tokenizer"
    if run.pretrained and not run.tokenizer.path:
        return load_tokenizer(begun if begun.is_dir() else run.pretrained)
    if run.tokenizer.path:
        return load_tokenizer(run.tokenizer.path)
    records = task_named(run.task).RECORDS
    names = [source_of(run, "train")] if records else [name for name, _ in named_sources(run)]
    marks = [sources.fingerprint(name, run.data.data_dir) for name in names]
    parts = [names, marks, run.data.column, run.data.split, run.data.validation, run.tokenizer.kind, run.tokenizer.vocab_size]
    parts += [[prepare.cleaning_digest(run.data, name, say, workers) for name in names]] if run.data.clean else []
    parts += [run.task, run.records.columns] if records else []
    folder = Path(run.data.cache).expanduser() / "tokenizers" / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    if folder.is_dir():
        return load_tokenizer(folder)
    say(f"training a {run.tokenizer.kind} tokenizer of {run.tokenizer.vocab_size:,} tokens on {', '.join(names)}")
    texts = (text for name in names for text in prepare.training_documents(run.data, name, say, workers))
    tokenizer = train_tokenizer(run.tokenizer.kind, read_texts(run) if records else texts, run.tokenizer.vocab_size)
    keep_tokenizer(tokenizer, folder)
    return tokenizer


def check_task(run: Run, tokenizer: Tokenizer | None = None) -> None:
    """Refuse a task that the model's family, as it is configured, cannot learn."""
    names = family(run.model).NAMES
    if head_of(run.task) == "pretraining" and not any("relation/" in str(row.ours) for row in names.heads):
        raise ConfigError(f"task={run.task} needs a head over pairs of texts: {run.model.model_type} has none, BERT and ALBERT have")
    if run.task == "causal-lm" and not getattr(run.model, "is_decoder", True):
        raise ConfigError(
            f"task=causal-lm: this {run.model.model_type} sees what comes after; set model.is_decoder=true, or task=masked-lm"
        )
    ends = getattr(run.model, "eos_token_id", None)
    if run.task == "sequence-classification" and "seq2seq-lm" in names.architectures and tokenizer and ends != tokenizer.eos_id:
        raise ConfigError(
            f"model.eos_token_id={ends}: texts are read at their end, which is {tokenizer.eos_id} in this tokenizer; set it so"
        )


def resolve(run: Run, tokenizer: Tokenizer) -> Run:
    """The run with what the tokenizer and the data decide: the model's vocabulary, the labels."""
    size = run.model.vocab_size
    if size is not None and size < tokenizer.vocab_size:
        raise ConfigError(f"model.vocab_size={size} is smaller than the tokenizer's {tokenizer.vocab_size}: raise it, or leave it out")
    if size is None:
        run = dataclasses.replace(run, model=dataclasses.replace(run.model, vocab_size=tokenizer.vocab_size))
    check_task(run, tokenizer)
    return resolve_records(run)


def first_state(problem: Problem, tokenizer: Tokenizer, say: Say) -> Any:
    """The state before the first batch: fresh, or from the pretrained model; `model.embedding_init` fills the input embeddings from
    a file of word vectors."""
    run, key = problem.run, jax.random.key(problem.run.seed)
    if run.pretrained:
        params, _ = load_body(run.pretrained, problem.model, key, say)
        state = jax.jit(problem.begin, donate_argnums=0)(params, key)
    else:
        state = jax.jit(problem.init)(key)
    path = run.model.extra.get("embedding_init")
    if not path:
        return state
    name = input_table({**state.get("frozen", {}), **state["params"]})
    copies = [group for group in ("params", "frozen", "ema") if name in state.get(group, {})]
    old = state[copies[0]][name]
    table, coverage = fill_embeddings(whole(old), tokenizer, load_vectors(path), run.seed)
    say(f"embeddings from {path}: {coverage}")
    new = jax.make_array_from_callback(old.shape, old.sharding, lambda part: table[part])
    return {**state, **{group: {**state[group], name: jax.numpy.array(new)} for group in copies}}
