"""What a configuration cannot be: every mistake that can be seen before data is read, in one line with the key to change.

Read first: `config.py`. Read next: `assembly.py`, which asks for it.
"""

import functools
import math
from typing import Any

import jax

from jaxlm import sharding
from jaxlm.config import Run
from jaxlm.data import batches, example_batches, loader
from jaxlm.data.selection import holds_out
from jaxlm.errors import ConfigError
from jaxlm.feeding import row_data, rows_multiple
from jaxlm.models import axis_sizes, dims, family, make_model, settings
from jaxlm.ops.special_ids import vocabulary
from jaxlm.overrides import choose
from jaxlm.tasks import head_of, rouge, scheduled_sampling, task_named, text_scores
from jaxlm.text.tokenizer import Tokenizer
from jaxlm.training import risk


def check_run(run: Run, mesh: jax.sharding.Mesh | None) -> None:
    """Refuse what cannot be, with the key to change."""
    check_ranges(run)
    check_task(run)
    risk.check(run)
    check_scores(run)
    check_best(run)
    check_unused(run)
    by_rows = run.data.batch_tokens is None  # else their number is what mesh and micro-batches divide
    if by_rows and run.batch_size % run.accumulate:
        raise ConfigError(f"batch_size={run.batch_size} is not divisible by accumulate={run.accumulate}")
    sizes = axis_sizes(run.model) | ({"batch": run.batch_size // run.accumulate} if by_rows else {})
    sharding.check_sizes(sizes, mesh, {**settings(run.model), "batch": "batch_size / accumulate"})
    if run.data.clean and task_named(run.task).RECORDS:
        raise ConfigError(
            f"data.clean is of running text, and task={run.task} learns from records: leave it out, and clean their file first"
        )
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
    most = run.evaluation.max_new_tokens
    if limit is not None and most is not None and most > limit:
        raise ConfigError(f"evaluation.max_new_tokens={most} exceeds the model's {limit} positions: lower it")
    sharding.check_sizes({"vocab": vocabulary(run.model)}, mesh, {"vocab": "model.decoder_vocab_size"})
    if run.data.batch_multiple is not None and run.data.batch_tokens is None:
        raise ConfigError("data.batch_multiple is of batches of data.batch_tokens: leave it out, or set both")
    least = (run.data.sequence_length + length) * rows_multiple(run, mesh)
    if run.data.batch_tokens is not None and run.data.batch_tokens < least:
        what = "a row of data.sequence_length and data.target_length for each part of the mesh and micro-batch"
        raise ConfigError(f"data.batch_tokens={run.data.batch_tokens} has no room for {what}, {least} tokens: raise it to that at least")


def check_scores(run: Run) -> None:
    """Refuse scores, a language, or a metric that decides, which an evaluation of texts would only meet at its end."""
    if not getattr(task_named(run.task), "GENERATES", False):
        return
    named, best = run.evaluation.scores or text_scores.usual(run.task), run.evaluation.best
    for name in named:
        choose("evaluation.scores", name, text_scores.SCORES)
    text_scores.language_of(run.records.target_language)
    text_scores.language_of(run.records.source_language, "records.source_language")
    scored = {name: rouge.NAMES if name == "rouge" else (name.replace("-", "_"),) for name in text_scores.SCORES}
    of = next((name for name, metrics in scored.items() if best in metrics), None)
    if of is None:
        choose("evaluation.best", best, [*MEASURED, *(metric for name in named for metric in scored[name])])
    elif of not in named:
        raise ConfigError(f"evaluation.best={best} is none of the scores that are asked for: set evaluation.scores={[*named, of]}")
    elif run.evaluation.generate is None:
        raise ConfigError(f"evaluation.best={best} is a score of texts, and validation writes none: set evaluation.generate=200")


def check_best(run: Run) -> None:
    """Refuse a metric that decides, where the task has none of this name, and patience without held-out data."""
    task, best = task_named(run.task), run.evaluation.best
    if not getattr(task, "GENERATES", False):
        choose("evaluation.best", best, ("loss", *(task.measured(run.records) if task.RECORDS else task.MEASURED)))
    if run.evaluation.patience is not None and not holds_out(run.data):
        mend = "set data.validation=0.1 or data.validation_source, or leave it out"
        raise ConfigError(f"evaluation.patience={run.evaluation.patience} waits for a better validation, and nothing is held out: {mend}")


def check_unused(run: Run) -> None:
    """Refuse options that this task would not look at."""
    if run.loss.r_drop and run.task != "sequence-classification":
        raise ConfigError(f"loss.r_drop={run.loss.r_drop} is of task=sequence-classification, not of task={run.task}: leave it out")
    if run.records.noise and not task_named(run.task).RECORDS:
        raise ConfigError(f"records.noise={run.records.noise} is of labelled records, not of task={run.task}: leave it out")


MEASURED = ("loss", "perplexity", "accuracy")  # of pairs, without a text being written
PAIRS = {"data.batch_tokens": None, "data.batch_multiple": None, "records.prefix": "", "records.source_language": None}
PAIRS |= {"records.target_language": None, "records.ratio": None, "records.skip": False, "evaluation.generate": None}
PAIRS |= {"loss.scheduled_sampling": 0.0, "risk.reward": None}
COUNTS = """steps batch_size accumulate data.sequence_length data.target_length data.batch_tokens data.batch_multiple data.prefetch
    evaluation.every evaluation.batches evaluation.patience evaluation.generate evaluation.num_beams evaluation.max_new_tokens
    checkpoint.every checkpoint.keep logging.every loss.chunk optimizer.decay
    records.question records.answer records.n_best""".split()  # each at least 1, or None
POSITIVE = ("optimizer.learning_rate", "optimizer.clip", "optimizer.eps", "epochs")
SHARES = ("loss.label_smoothing", "optimizer.b1", "optimizer.b2", "optimizer.momentum", "optimizer.ema", "records.noise")  # in [0, 1)
NATURAL = ("optimizer.warmup", "logging.samples", "records.stride", "loss.r_drop", "loss.z_loss", "masking.detection")  # or fractions
WHOLES = ("masking.rate", "masking.mask", "masking.random", "masking.swap", "masking.generator", "loss.scheduled_sampling")  # in [0, 1]


def check_ranges(run: Run) -> None:
    """Refuse a number outside the range of its key, and the name of a curve that no share may follow yet."""
    choose("loss.sampling_schedule", run.loss.sampling_schedule, scheduled_sampling.KEPT)
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
