"""python -m jaxlm.prepare [configs/x.py] [a.b=c ...] [--workers N] [--runner NAME and further flags of Apache Beam]

Raw text to a prepared store: cleaned by `data.clean`, without duplicates, tokenized, written shard by shard, with a data card
of what was dropped and why; labelled records and pairs to the examples that their task makes of them. An interrupted preparation
goes on: the same line again. `python -m jaxlm.train` with the same config finds the store.

  --workers N     processes (default: one a core)
  --runner NAME   run on Apache Beam instead: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner; further --flag=value
                  are Beam's (pip install "jaxlm[beam]")
"""

import os
import sys
from pathlib import Path

from jaxlm.command import OptionParser, run_command


def main(arguments: list[str]) -> None:
    """Prepare every source of a run, and say where the stores lie."""
    parser = OptionParser(prog="jaxlm.prepare", add_help=False, allow_abbrev=False)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--runner")
    options, rest = parser.parse_known_args(arguments)
    flags = [argument for argument in rest if argument.startswith("--")]
    if flags and not options.runner:
        parser.error(f"{flags[0]} is no option of this command, and Beam's need --runner NAME")
    from jaxlm import assembly, config, default, labelled  # not at the top: worker processes import this module again, and need no JAX
    from jaxlm.pretrained import read_model
    from jaxlm.tasks import task_named

    run = config.parse([argument for argument in rest if argument not in flags], default.config, read_model)
    say = lambda line: print(line, file=sys.stderr, flush=True)
    tokenizer = assembly.make_tokenizer(run, say, options.workers)
    if task_named(run.task).RECORDS:
        if options.runner:
            parser.error(f"--runner is of running text: task={run.task} is prepared here, leave it out")
        train, _ = labelled.make_examples(assembly.resolve(run, tokenizer), tokenizer, say)
        print(train.directory.parent)
        return
    for name, _ in assembly.named_sources(run):
        if options.runner:
            show(_on_beam(run.data, name, tokenizer, [f"--runner={options.runner}", *flags], say))
        else:
            show(_here(run.data, name, tokenizer, options.workers, say))


def _here(data, name, tokenizer, workers, say) -> Path:
    from jaxlm.data.prepare import prepare

    return prepare(data, name, tokenizer, say, workers)[0].directory.parent


def _on_beam(data, name, tokenizer, flags, say) -> Path:
    from jaxlm.data.beam import prepare_on_beam

    return prepare_on_beam(data, name, tokenizer, flags, say)


def show(store: Path) -> None:
    """Print a store's data card and its folder."""
    print((store / "card.md").read_text(encoding="utf-8"))
    print(store)


if __name__ == "__main__":
    run_command(main, __doc__)
