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

from jaxlm import config, sharding
from jaxlm.config import Run
from jaxlm.data import batches, example_batches, loader, prepare, sources
from jaxlm.errors import ConfigError
from jaxlm.feeding import named_sources, row_data, whole
from jaxlm.inference.generate import generate
from jaxlm.inference.texts import ends_of, spell
from jaxlm.labelled import TEXTS, parts, read_texts, resolve_records
from jaxlm.models import axis_sizes, dims, family, init_params, input_table, make_model, settings
from jaxlm.ops.special_ids import start_id, vocabulary
from jaxlm.overrides import choose
from jaxlm.pretrained import load_body, new_parameters
from jaxlm.tasks import head_of, task_named
from jaxlm.tasks.pair_sides import make_sides, with_special_ids
from jaxlm.tasks.rewards import make_reward
from jaxlm.text.embeddings.embedding_init import fill_embeddings
from jaxlm.text.embeddings.vector_files import load_vectors
from jaxlm.text.sides import Sides, load_sides, target_of
from jaxlm.text.tokenizer import Tokenizer, keep_tokenizer, load_tokenizer
from jaxlm.text.training import Settings, train_tokenizer
from jaxlm.training import risk
from jaxlm.training.optimizer import make_optimizer
from jaxlm.training.resume import trained_beside_lora
from jaxlm.training.step import init_state, make_step
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
    loss = risk.make_loss(model, loss, start_id(run.model), run.risk, run.loss) if run.risk.reward else loss
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


def training_step(problem: Problem, tokenizer: Tokenizer) -> Callable[[Any, Any], tuple[Any, dict[str, Any]]]:
    """(state, batch) -> (state, metrics). Under minimum risk the model as it is draws candidates for each batch first."""
    run, model, target = problem.run, problem.model, target_of(tokenizer)
    step = make_step(problem.loss, problem.rule, problem.schedule, run.optimizer, run.seed, run.accumulate)
    if run.risk.reward is None:
        return step
    ends = ends_of(model, target, {})
    named = {"do_sample": True, "temperature": run.risk.temperature, "num_return_sequences": run.risk.candidates, "eos_token_id": ends}
    draw = lambda params, tokens, mask, most, seed: generate(model, params, tokens, mask=mask, max_new_tokens=most, seed=seed, **named)
    return risk.wrap(step, draw, lambda ids: spell(target, ids, ends), make_reward(run.risk.reward, run.records.target_language), run)


def check_run(run: Run, mesh: jax.sharding.Mesh | None) -> None:
    """Refuse what cannot be, with the key to change."""
    check_ranges(run)
    check_task(run)
    risk.check(run)
    if run.batch_size % run.accumulate:
        raise ConfigError(f"batch_size={run.batch_size} is not divisible by accumulate={run.accumulate}")
    sizes = {**axis_sizes(run.model), "batch": run.batch_size // run.accumulate}
    sharding.check_sizes(sizes, mesh, {**settings(run.model), "batch": "batch_size / accumulate"})
    if run.task == "replaced-tokens":
        generator = make_model(run.model, run.compute, run.task, run.masking).generator.config
        sharding.check_sizes(
            axis_sizes(generator), mesh, {axis: f"masking.generator times {key}" for axis, key in settings(generator).items()}
        )
    check_sides(run, mesh)
    length, limit = run.data.sequence_length, dims(run.model).context
    if limit is not None and length > limit:
        raise ConfigError(f"data.sequence_length={length} exceeds the model's {limit} positions: lower it or raise the model's")
    if run.evaluation.batches is not None and task_named(run.task).RECORDS:
        raise ConfigError(
            f"evaluation.batches={run.evaluation.batches} is of running text: labelled records are measured all; leave it out"
        )
    if run.loss.chunk is not None and run.task != "causal-lm":
        raise ConfigError(f"loss.chunk={run.loss.chunk} is of task=causal-lm, not of task={run.task}: leave it out")
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


def check_sides(run: Run, mesh: jax.sharding.Mesh | None) -> None:
    """Refuse lengths, batches and options of encoder-decoders that cannot be, or that this task would not look at."""
    task, limit = task_named(run.task), dims(run.model).context
    pairs = hasattr(task, "make_sides")
    for key, off in PAIRS.items():
        if value_of(run, key) != off and not pairs:
            raise ConfigError(f"{key}={value_of(run, key)!r} is of pairs of texts, as in task=translation, not of {run.task}: leave it out")
    if head_of(run.task) != "seq2seq-lm":
        if run.data.target_length is not None:
            raise ConfigError(f"data.target_length={run.data.target_length} is of a decoder over an encoder: leave it out")
        return
    row_data(run)  # the task refuses what it cannot make rows of
    length = task.target_length(run)
    if limit is not None and length > limit:
        raise ConfigError(f"data.target_length={length} exceeds the model's {limit} positions: lower it or raise the model's")
    sharding.check_sizes({"vocab": vocabulary(run.model)}, mesh, {"vocab": "model.decoder_vocab_size"})
    least = (run.data.sequence_length + length) * sharding.mesh_size(mesh, "batch") * run.accumulate
    if run.data.batch_tokens is not None and run.data.batch_tokens < least:
        what = "a row of data.sequence_length and data.target_length for each part of the mesh and micro-batch"
        raise ConfigError(f"data.batch_tokens={run.data.batch_tokens} has no room for {what}, {least} tokens: raise it to that at least")


PAIRS = {"data.batch_tokens": None, "records.prefix": "", "records.source_language": None, "records.target_language": None}
PAIRS |= {"records.ratio": None, "records.skip": False, "evaluation.generate": None, "loss.scheduled_sampling": 0.0, "risk.reward": None}
COUNTS = """steps batch_size accumulate data.sequence_length data.target_length data.batch_tokens data.prefetch
    evaluation.every evaluation.batches evaluation.patience evaluation.generate evaluation.num_beams evaluation.max_new_tokens
    checkpoint.every checkpoint.keep logging.every loss.chunk optimizer.decay
    records.question records.answer records.n_best""".split()  # each at least 1, or None
POSITIVE = ("optimizer.learning_rate", "optimizer.clip", "optimizer.eps", "epochs")
SHARES = ("loss.label_smoothing", "optimizer.b1", "optimizer.b2", "optimizer.momentum", "optimizer.ema", "records.noise")  # in [0, 1)
NATURAL = ("optimizer.warmup", "logging.samples", "records.stride", "loss.r_drop", "loss.z_loss", "masking.detection")  # or fractions
WHOLES = ("masking.rate", "masking.mask", "masking.random", "masking.swap", "masking.generator", "loss.scheduled_sampling")  # in [0, 1]


def check_ranges(run: Run) -> None:
    """Refuse a number outside the range of its key."""
    for keys, fits, range_ in (
        (COUNTS, lambda x: x >= 1, "at least 1"),
        (POSITIVE, lambda x: 0 < x < math.inf, "a positive number"),
        (SHARES, lambda x: 0 <= x < 1, "at least 0 and less than 1"),
        (NATURAL, lambda x: x >= 0, "at least 0"),
        (("records.ratio",), lambda x: x >= 1, "at least 1"),
        (WHOLES, lambda x: 0 <= x <= 1, "from 0 to 1"),
    ):
        for key in keys:
            if value_of(run, key) is not None and not fits(value_of(run, key)):
                raise ConfigError(f"{key}={value_of(run, key)}: it is {range_}")


def value_of(run: Run, key: str) -> Any:
    """The value of a key such as "data.source"."""
    return functools.reduce(getattr, key.split("."), run)


def make_tokenizer(run: Run, say: Say, workers: int = 0) -> Tokenizer:
    """The tokenizer of a run: loaded from `tokenizer.path`, found in the cache, or trained on the training documents.

    Where `target_tokenizer` names another one for the targets of pairs, the two together (`text/sides.py`), each trained on its side.

    Args:
      workers: processes that clean those documents; fewer than two: this one.
    """
    begun, other = Path(run.workdir).expanduser(), run.target_tokenizer
    alone = other.kind == "same" and not other.path
    if not alone and not hasattr(task_named(run.task), "make_sides"):
        raise ConfigError(f"target_tokenizer is of pairs of texts, as in task=translation, not of task={run.task}: leave it out")
    if run.tokenizer.path:
        source = load_tokenizer(run.tokenizer.path)
    elif run.pretrained:
        source = (load_sides if alone else load_tokenizer)(begun if (begun / "tokenizer").is_dir() else run.pretrained)
    else:
        source = trained_tokenizer(run, run.tokenizer, TEXTS if alone else ("source",), say, workers)
    if alone:
        return source
    return Sides(source, load_tokenizer(other.path) if other.path else trained_tokenizer(run, other, ("target",), say, workers))


def trained_tokenizer(run: Run, wanted: config.Tokenizer, roles: tuple[str, ...], say: Say, workers: int = 0) -> Tokenizer:
    """A tokenizer of the run's training documents, or of its records' texts in these roles, from the cache if it is there."""
    task, kind, size = task_named(run.task), wanted.kind, wanted.vocab_size
    ones = parts(run) if task.RECORDS else []
    names = [name for name, _ in named_sources(run)]
    marks = [sources.fingerprint(name, run.data.data_dir) for name in names]
    digested = [names, marks, run.data.column, run.data.split, run.data.validation, kind, size]
    digested += [[prepare.cleaning_digest(run.data, name, say, workers) for name in names]] if run.data.clean else []
    digested += [run.task, run.records.columns] if task.RECORDS else []
    more = getattr(task, "TOKENIZER", {})  # control tokens that the task needs
    digested += [part for part in (more, "".join(one.records.prefix for one in ones), roles if roles != TEXTS else ()) if part]
    folder = Path(run.data.cache).expanduser() / "tokenizers" / hashlib.sha256(json.dumps(digested).encode()).hexdigest()[:32]
    if folder.is_dir():
        return load_tokenizer(folder)
    of = f" the {roles[0]}s of" if len(roles) == 1 else ""
    say(f"training a {kind} tokenizer of {size:,} tokens on{of} {', '.join(names)}")
    documents = (text for name in names for text in prepare.training_documents(run.data, name, say, workers))
    tokenizer = train_tokenizer(kind, read_texts(run, roles) if task.RECORDS else documents, size, Settings(**more))
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
    """The run with what the tokenizer and the data decide: the model's vocabularies and special tokens, the labels."""
    model = _with_vocabulary(run.model, "vocab_size", tokenizer)
    if isinstance(tokenizer, Sides):
        if getattr(model, "share_encoder_decoder_embeddings", True):
            one = not hasattr(model, "share_encoder_decoder_embeddings")
            mend = "leave it out, or take a transformer or marian" if one else "set model.share_encoder_decoder_embeddings=false"
            raise ConfigError(f"target_tokenizer makes a second vocabulary, and this {model.model_type} has one table of tokens: {mend}")
        model = _with_vocabulary(model, "decoder_vocab_size", tokenizer.target)
    if head_of(run.task) == "seq2seq-lm":
        pairs, target = task_named(run.task).RECORDS, target_of(tokenizer)
        model = with_special_ids(model, target, run.pretrained is None, make_sides(tokenizer, target, run) if pairs else None)
    run = dataclasses.replace(run, model=model)
    check_task(run, tokenizer)
    return resolve_records(run)


def _with_vocabulary(model: Any, key: str, tokenizer: Tokenizer) -> Any:
    size, least = getattr(model, key), tokenizer.vocab_size
    if size is not None and size < least:
        raise ConfigError(f"model.{key}={size} is smaller than the tokenizer's {least}: raise it, or leave it out")
    return dataclasses.replace(model, **{key: least}) if size is None else model


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
