"""Texts that a model writes for examples, beside their references: what they are worth, and how sure that is.

Read first: `inference/generate.py`, `tasks/text_scores.py`, `tasks/bootstrap.py`. Read next: `evaluation.py`, `finished.py`.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxlm.config import Run
from jaxlm.data.examples import Examples
from jaxlm.errors import ConfigError, DataError
from jaxlm.inference.generate import generate
from jaxlm.inference.score import padded
from jaxlm.inference.texts import ends_of, spell, until
from jaxlm.models import dims
from jaxlm.ops.special_ids import said
from jaxlm.tasks import bootstrap, text_scores
from jaxlm.tasks.text_scores import Score
from jaxlm.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Writer:
    """Who writes; `finished.Member` is one too."""

    run: Run
    model: Any
    tokenizer: Tokenizer


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How texts are written; None is what the run says."""

    num_beams: int | None = None
    max_new_tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class Written:
    """Texts, how many tokens they took with their ends, and how many seconds, those of compilation among them.

    Attributes:
      most: tokens that a text may have.
      cut: how many texts had not ended there.
    """

    texts: list[str]
    tokens: int
    seconds: float
    most: int = 0
    cut: int = 0


@dataclasses.dataclass(frozen=True)
class Answers:
    """Outputs beside the texts that they are of."""

    records: list[int]
    sources: list[str]
    references: list[str | list[str]]  # several of a text that has several
    outputs: list[str]


def write(writer: Writer, params: Any, sources: Sequence[Int[np.ndarray, "S"]], how: Decoding = Decoding()) -> Written:
    """A text for each source, greedily or by beam search.

    The longest sources come first, `batch_size` together: a program is compiled for each bucket of lengths, and a run that is out of
    memory is so at once.

    Args:
      sources: ids, special tokens among them.
    """
    begun, run, target = time.perf_counter(), writer.run, writer.tokenizer.as_target()
    ends, rows, most = ends_of(writer.model, target, {}), min(run.batch_size, len(sources)), _most(writer, how)
    beams = run.evaluation.num_beams if how.num_beams is None else how.num_beams
    named = {"num_beams": beams, "max_new_tokens": most, "eos_token_id": ends}
    forced = said(writer.model.config, "forced_eos_token_id") is not None  # then an end at the limit is none
    order = sorted(range(len(sources)), key=lambda number: -len(sources[number]))
    texts, count, cut = [""] * len(sources), 0, 0
    for at in range(0, len(order), max(rows, 1)):
        numbers = order[at : at + rows]
        filled = numbers + numbers[-1:] * (rows - len(numbers))
        tokens, mask = padded([sources[number] for number in filled], len(sources[numbers[0]]))
        new = generate(writer.model, params, tokens, mask=mask, **named)
        for number, row, length in zip(numbers, new.tokens, new.lengths, strict=False):
            texts[number], count = spell(target, row[:length], ends).strip(), count + int(length)
            cut += int(length) == most and (forced or len(until(row, ends)) == most)
    return Written(texts, count, time.perf_counter() - begun, most, cut)


def _most(writer: Writer, how: Decoding) -> int:
    run = writer.run
    asked = how.max_new_tokens or run.evaluation.max_new_tokens
    if asked is not None:
        return asked
    usual = run.data.target_length or run.data.sequence_length
    return min(usual, dims(writer.model.config).context or usual)


def chosen(examples: Examples, count: int | None = None) -> Int[np.ndarray, "n"]:
    """The numbers of examples that have a target: all of them, or `count`, evenly spread. Raises DataError where none has."""
    known = np.flatnonzero(examples.target_lengths)
    if not known.size:
        mend = "name their column in records.columns, or another source; python -m jaxlm.predict only predicts"
        raise DataError(f"the records have no targets, and nothing can be measured: {mend}")
    count = len(known) if count is None else min(count, len(known))
    return known[np.arange(count) * len(known) // max(count, 1)]


def answer(writer: Writer, params: Any, examples: Examples, numbers: Sequence[int], how: Decoding = Decoding()) -> tuple[Answers, Written]:
    """Outputs for these examples."""
    about = [examples.about(int(number)) for number in numbers]
    column = lambda name: [one[name] for one in about]
    written = write(writer, params, [examples.column("tokens", int(number)) for number in numbers], how)
    return Answers(column("record"), column("source"), column("target"), written.texts), written


def scores_of(answers: Answers, run: Run) -> dict[str, Score]:
    """The scores that a run asks for, or those usual for its task."""
    names = run.evaluation.scores or text_scores.usual(run.task)
    references = [[texts] if isinstance(texts, str) else texts for texts in answers.references]
    return text_scores.measures(answers.outputs, references, names, run.records.target_language)


def check_scores(run: Run) -> None:
    """Meet a wrong name, an unknown language or a missing library before the first text is written, not after."""
    scores_of(Answers([0], ["a"], ["a"], ["a"]), run)


def check_decoding(how: Decoding) -> None:
    """Refuse what writes nothing."""
    for name, number in dataclasses.asdict(how).items():
        if number is not None and number < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {number}: it is at least 1")


def corpus(found: dict[str, Score]) -> dict[str, float]:
    """Of all texts together, by name."""
    return {name: score.corpus for name, score in found.items()}


def rows_of(answers: Answers, found: dict[str, Score]) -> list[dict[str, Any]]:
    """A row an output, with the score that says most about a single one."""
    single = found[text_scores.of_a_sentence(found)].sentences
    names = ("record", "source", "reference", "output", "score")
    columns = (answers.records, answers.sources, answers.references, answers.outputs, [round(score, 4) for score in single])
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def read_answers(path: Path) -> Answers:
    """The rows that an earlier evaluation has written. Raises DataError naming the line that is none."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # JSON leaves separators such as U+2028 as they are
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}): give a file of --output") from error
    for number, line in enumerate(lines if lines != [""] else [], 1):
        try:
            row = json.loads(line)
            rows.append(tuple(row[name] for name in ("record", "source", "reference", "output")))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number} is no output beside its reference ({error}): give a file of --output") from error
    return Answers(*map(list, zip(*rows, strict=True))) if rows else Answers([], [], [], [])


def speed_line(written: Written) -> str:
    """How much was written, and how fast."""
    rate = written.tokens / max(written.seconds, 1e-9)
    line = f"{len(written.texts):,} outputs of {written.tokens:,} tokens in {written.seconds:.1f} s: {rate:,.0f} tokens/s, with compilation"
    return line + (f"; {written.cut:,} were cut at {written.most} tokens (--max-new-tokens)" if written.cut else "")


def told(found: dict[str, Score]) -> list[str]:
    """Of every score where it lies in 95 of 100 resamples, how it is counted, and which one the rows hold."""
    bounds = {name: bootstrap.interval(score) for name, score in found.items()}
    lines = [f"{name:<10} 95 % {low:.2f} to {high:.2f}" for name, (low, high) in bounds.items()]
    return [*lines, *text_scores.signatures(found), f"of each text: {text_scores.of_a_sentence(found)}"]


def beside(theirs: Answers, examples: Examples, name: str) -> Answers:
    """The outputs of another system, called `name`, in the order of these examples. Raises DataError where they are of other texts."""
    key = lambda record, reference: (record, json.dumps(reference))
    rows = {key(*row[:2]): row for row in zip(theirs.records, theirs.references, theirs.sources, theirs.outputs, strict=True)}
    about = [examples.about(int(number)) for number in chosen(examples)]
    keys = [key(one["record"], one["target"]) for one in about]
    missing = next((record for record, text in keys if (record, text) not in rows), None)
    if missing is not None or len(rows) != len(keys):
        where = "there are more of them" if missing is None else f"record {missing} is not among them, or has another reference"
        raise DataError(f"{name} is of other texts: {where}; compare outputs of one split of one source")
    records, references, sources, outputs = map(list, zip(*(rows[each] for each in keys), strict=True))
    return Answers(records, sources, references, outputs)


def compared(ours: tuple[Answers, dict[str, Score]], theirs: Answers, run: Run, name: str) -> list[str]:
    """A paired test a score, of ours against theirs, which are outputs for the same texts in the same order.

    Args:
      name: of theirs.
    """
    answers, found = ours
    others = scores_of(dataclasses.replace(answers, outputs=theirs.outputs), run)
    tests = {score: bootstrap.paired(found[score], others[score]) for score in found}
    line = "{}: {:+.2f} against {} ({:.2f}), better in {:.1%} of resamples, p = {:.4f}"
    return [line.format(s, test.difference, name, others[s].corpus, test.wins, test.p_value) for s, test in tests.items()]
