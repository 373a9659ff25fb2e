"""From a configuration to the parts of a run: tokenizer, stores, model, loss, state. Every command that trains or plans starts here.

Read next: `training/loop.py`, which is given these parts.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxlm import config, sharding
from jaxlm.checks import check_run, check_task
from jaxlm.config import Run
from jaxlm.data import prepare, sources
from jaxlm.data.parallel import languages
from jaxlm.errors import ConfigError
from jaxlm.feeding import named_sources, whole
from jaxlm.inference.generate import generate
from jaxlm.inference.texts import ends_of, spell
from jaxlm.labelled import TEXTS, parts, read_texts, resolve_records
from jaxlm.models import init_params, input_table, make_model
from jaxlm.ops.special_ids import start_id
from jaxlm.pretrained import load_body, new_parameters
from jaxlm.tasks import head_of, task_named
from jaxlm.tasks.pair_sides import make_sides, with_special_ids
from jaxlm.tasks.rewards import make_reward
from jaxlm.text.embeddings.embedding_init import fill_embeddings
from jaxlm.text.embeddings.vector_files import load_vectors
from jaxlm.text.sides import Sides, load_sides
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
    run, model, target = problem.run, problem.model, tokenizer.as_target()
    step = make_step(problem.loss, problem.rule, problem.schedule, run.optimizer, run.seed, run.accumulate)
    if run.risk.reward is None:
        return step
    ends = ends_of(model, target, {})
    named = {"do_sample": True, "temperature": run.risk.temperature, "num_return_sequences": run.risk.candidates, "eos_token_id": ends}
    draw = lambda params, tokens, mask, most, seed: generate(model, params, tokens, mask=mask, max_new_tokens=most, seed=seed, **named)
    return risk.wrap(step, draw, lambda ids: spell(target, ids, ends), make_reward(run.risk.reward, run.records.target_language), run)


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
    names = [part.data.source for part in parts(run)] if task.RECORDS else [name for name, _ in named_sources(run)]
    folder = _tokenizer_folder(run, [kind, size, roles], names, say, workers)
    if folder.is_dir():
        return load_tokenizer(folder)
    of = f" the {roles[0]}s of" if len(roles) == 1 else ""
    say(f"training a {kind} tokenizer of {size:,} tokens on{of} {', '.join(names)}")
    documents = (text for name in names for text in prepare.training_documents(run.data, name, say, workers))
    texts = read_texts(run, roles) if task.RECORDS else documents
    tokenizer = train_tokenizer(kind, texts, size, Settings(**getattr(task, "TOKENIZER", {})))
    keep_tokenizer(tokenizer, folder)
    return tokenizer


def _tokenizer_folder(run: Run, wanted: list[Any], names: list[str], say: Say, workers: int) -> Path:
    """Where it is kept: by a digest of all that it depends on, the texts that it learns from before all."""
    task, data, records = task_named(run.task), run.data, run.records
    marks = [sources.fingerprint(name, data.data_dir) for name in names]
    digested = [names, marks, data.column, data.split, data.validation, wanted, getattr(task, "TOKENIZER", {})]
    digested += [[prepare.cleaning_digest(data, name, say, workers) for name in names]] if data.clean else []
    if task.RECORDS:
        divided = [data.fraction, data.validation_source is None]
        digested += [run.task, records.columns, languages(records), [one.records.prefix for one in parts(run)], divided]
    return Path(data.cache).expanduser() / "tokenizers" / hashlib.sha256(json.dumps(digested).encode()).hexdigest()[:32]


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
        pairs, target = task_named(run.task).RECORDS, tokenizer.as_target()
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
