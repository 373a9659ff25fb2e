"""Measure, beside a peer, on this machine: `python -m jaxlm.bench train [options]`.

train: a step of GPT-2, tokens/s, FLOP/s, peak memory, time to the first step; where torch and transformers are installed,
the same shapes in torch, alternating, with the ratio and its spread. Options: --size gpt2 (or shakespeare), --batch 2, --length 256,
--dropout 0, --dtype float32, --layout unrolled, --rounds 7, --steps 2, --compile (torch.compile too), --alone (no peer).
"""

import argparse
import importlib.util

from jaxlm.benchmarks import train
from jaxlm.command import OptionParser, run_command
from jaxlm.config import choose


def main(arguments: list[str]) -> None:
    """Run the named benchmark."""
    options = parse(arguments)
    choose("the benchmark", options.what, ("train",))
    choose("--size", options.size, train.SIZES)
    alone = options.alone or not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"))
    shape = train.Shape(options.size, options.batch, options.length, options.dropout, options.dtype, options.layout)
    train.run(shape, options.rounds, options.steps, options.compile, alone)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = OptionParser(prog="python -m jaxlm.bench", add_help=False)
    parser.add_argument("what")
    parser.add_argument("--size", default="gpt2")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layout", default="unrolled")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--alone", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main, __doc__)
