"""Predict: `python -m jaxlm.predict DIR [DIR ...] [--samples K] < lines`, a line of JSON for every line of text.

DIR is a run directory; several are an ensemble. A line is a text (classification; a pair with a tab between), a sentence (tagging),
question and context or text and choices with tabs between, an object of JSON with the records' columns, or, for a masked language
model, a text with its mask token. Options: --samples K (Monte-Carlo dropout), --top 5 (masked words), --batch-size N.
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
from jaxlm.finished import Member, Wanted, open_members, predict_records
from jaxlm.inference.fill import fill_mask

AHEAD = 256  # lines that are read before the first is predicted


def main(arguments: list[str]) -> None:
    """Load, then print a prediction for each line, in order."""
    options = parse(arguments)
    wanted = Wanted(tuple(options.directories), samples=options.samples, batch_size=options.batch_size)
    members = open_members(wanted)
    lines = (line.rstrip("\n") for line in sys.stdin)
    for row in _masked(members[0], lines, options.top) if members[0].run.task == "masked-lm" else _records(members, lines, wanted):
        print(json.dumps(row, ensure_ascii=False))


def _records(members: list[Member], lines: Iterable[str], wanted: Wanted) -> Iterator[dict[str, Any]]:
    run = members[0].run
    if not members[0].task.RECORDS:
        raise ConfigError(f"a run of task={run.task} predicts no records: python -m jaxlm.generate {members[0].directory}")
    numbered = enumerate(lines, 1)
    while group := list(itertools.islice(numbered, AHEAD)):
        yield from predict_records(members, [(f"line {n}", line_record(line, n, run)) for n, line in group], wanted)


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
    parser.add_argument("--batch-size", type=int)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main, __doc__)
