"""Predict: `python -m jaxlm.predict DIR [DIR ...] [--samples K] < lines`, a line of JSON for every line of text.

DIR is a run directory; several are an ensemble. A line is a text (classification; a pair with a tab between), a sentence (tagging),
question and context or text and choices with tabs between, an object of JSON with the records' columns, or, for a masked language
model, a text with its mask token; of text to text the source. Options: --samples K (Monte-Carlo dropout), --top 5 (masked words),
--batch-size N; of text to text --num-beams 5, --max-new-tokens 64, and --plain: each output as a plain line beside its source's, an
empty one of an empty line, to be trained on (back-translation) as data.source=outputs.en::lines.de.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from jaxlm.command import OptionParser, run_command
from jaxlm.data.record_lines import line_record
from jaxlm.errors import ConfigError, DataError
from jaxlm.evaluation import generates
from jaxlm.finished import Member, Wanted, check_wanted, open_members, predict_records
from jaxlm.inference.fill import fill_mask
from jaxlm.outputs import Decoding

AHEAD = 256  # lines that are read before the first is predicted


def main(arguments: list[str]) -> None:
    """Load, then print a prediction for each line, in order."""
    options = parse(arguments)
    decoding = Decoding(options.num_beams, options.max_new_tokens)
    wanted = Wanted(tuple(options.directories), None, samples=options.samples, batch_size=options.batch_size, decoding=decoding)
    members = open_members(wanted)
    if members[0].run.task == "masked-lm" and (len(members) > 1 or options.samples):
        raise ConfigError("masked words are predicted by one run without --samples: leave the others out")
    if members[0].task.RECORDS or decoding != Decoding():
        check_wanted(members, wanted)
    lines = (line.rstrip("\n") for line in _stdin())
    if options.top < 1:
        raise ConfigError(f"--top {options.top}: it is at least 1")
    if options.plain and not generates(members[0].task):
        raise ConfigError(f"--plain is of texts that are written; task={members[0].run.task} writes none: leave it out")
    for row in _masked(members[0], lines, options.top) if members[0].run.task == "masked-lm" else _records(members, lines, wanted):
        print(" ".join(row["output"].splitlines()) if options.plain else json.dumps(row, ensure_ascii=False))


def _stdin() -> Iterator[str]:
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not UTF-8 text ({error}): convert it") from error


def _records(members: list[Member], lines: Iterable[str], wanted: Wanted) -> Iterator[dict[str, Any]]:
    run, say = members[0].run, lambda text: print(text, file=sys.stderr)
    if not members[0].task.RECORDS:
        mend = f"python -m jaxlm.generate {members[0].directory}" if run.task == "causal-lm" else "python -m jaxlm.evaluate measures it"
        raise ConfigError(f"a run of task={run.task} predicts no records: {mend}")
    numbered, writes = enumerate(lines, 1), generates(members[0].task)
    while group := list(itertools.islice(numbered, AHEAD)):
        full = [(n, line) for n, line in group if line.strip() or not writes]
        rows = predict_records(members, [(f"line {n}", line_record(line, n, run)) for n, line in full], wanted, say) if full else []
        found = dict(zip((n for n, _ in full), rows, strict=True))
        yield from (found.get(n, {"output": ""}) for n, _ in group)  # so that outputs stay beside their lines


def _masked(member: Member, lines: Iterable[str], top: int) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            yield {"text": line, "masks": fill_mask(member.model, member.params, member.tokenizer, line, top)}
        except DataError as error:
            raise DataError(f"line {number}: {error}") from error


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = OptionParser(prog="python -m jaxlm.predict", add_help=False)
    parser.add_argument("directories", nargs="+", metavar="DIR")
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--num-beams", type=int)
    parser.add_argument("--max-new-tokens", type=int)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main, __doc__)
