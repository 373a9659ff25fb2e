"""Measure runs on held-out data: `python -m jaxlm.evaluate DIR [DIR ...] [--split validation] [options] [a.b=c]`.

DIR is a run directory; several are an ensemble, whose probabilities are averaged. Options: --split train, validation or test;
--data SOURCE (instead of the split's); --output predictions.jsonl; --calibrate (fit on the validation split, and keep in DIR, a
temperature, or of unanswerable questions the null threshold); --samples K (Monte-Carlo dropout: the mean of K predictions, with their
uncertainty); --batch-size N. Questions may be read otherwise than in training: records.null_threshold=none (always answer), records.n_best,
records.answer. Texts: evaluation.scores=['bleu','chrf'], records.target_language, evaluation.max_new_tokens, records.skip,
records.prefix (of a mixture the first source's unless it is named).

Of text to text, which writes: --num-beams 5, --max-new-tokens 64; --against DIR2 or out2.jsonl (an earlier --output): a paired test.
Printed are the scores with their intervals and how they were made; --output holds source, reference, output and score a line. The mean
of a run's last checkpoints is a DIR too: python -m jaxlm.convert RUN averaged --average 5 --run.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from jaxlm.calibrate import calibrate
from jaxlm.command import OptionParser, run_command
from jaxlm.errors import ConfigError
from jaxlm.explain import calibration
from jaxlm.finished import Wanted, evaluate
from jaxlm.outputs import Decoding


def main(arguments: list[str]) -> None:
    """Evaluate, print the metrics and, of a classification, how far its probabilities can be trusted."""
    options = parse(arguments)
    say = lambda text: print(text, file=sys.stderr)
    decoding = Decoding(options.num_beams, options.max_new_tokens)
    directories, changes = ([word for word in options.directories if ("=" in word) == is_change] for is_change in (False, True))
    wanted = Wanted(tuple(directories), options.split, options.data, options.samples, options.batch_size)
    wanted = dataclasses.replace(wanted, decoding=decoding, against=options.against, changes=tuple(changes))
    if options.output and not Path(options.output).absolute().parent.is_dir():
        raise ConfigError(f"--output {options.output}: there is no folder {Path(options.output).parent}: make it first")
    if options.calibrate:
        for directory in directories:
            print(calibrate(directory, wanted, say))
    found = evaluate(wanted, say)
    print("\n".join(f"{name:<28} {value:.4f}" for name, value in found.metrics.items()))
    print("\n".join(["", calibration.draw(found.reliability), *found.lines] if found.reliability else found.lines))
    if options.output and not found.predictions:
        raise ConfigError("--output is of labelled records: running text has no predictions; leave it out")
    if options.output:
        lines = (json.dumps(row, ensure_ascii=False) for row in found.predictions)
        Path(options.output).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"{len(found.predictions):,} predictions in {options.output}")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = OptionParser(prog="python -m jaxlm.evaluate", add_help=False)
    parser.add_argument("directories", nargs="+", metavar="DIR")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--data")
    parser.add_argument("--output")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--num-beams", type=int)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--against")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    run_command(main, __doc__)
