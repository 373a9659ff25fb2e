"""Write on from a prompt: `python -m jaxlm.generate DIR --prompt TEXT [options]`.

DIR is a run directory. The text appears as it is made. Options: --max-new-tokens 200, --temperature 0.8 (0: greedy),
--top-k 50, --top-p 0.95, --seed 0, --samples 1.
"""

import argparse
import sys

from jaxlm.command import OptionParser, run_command
from jaxlm.inference.generate import stream_text
from jaxlm.ops.sampling import Sampling
from jaxlm.pretrained import load
from jaxlm.text.tokenizer import load_tokenizer


def main(arguments: list[str]) -> None:
    """Load, then print each sample as it comes."""
    options = parse(arguments)
    sampling = Sampling(options.temperature, options.top_k, options.top_p)
    model, params = load(options.directory)
    tokenizer = load_tokenizer(options.directory)
    for number in range(options.samples):
        if number:
            print("\n-----")
        sys.stdout.write(options.prompt)
        for piece in stream_text(model, params, tokenizer, options.prompt, options.max_new_tokens, sampling, options.seed + number):
            sys.stdout.write(piece)
            sys.stdout.flush()
        print()


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = OptionParser(prog="python -m jaxlm.generate", add_help=False)
    parser.add_argument("directory")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main, __doc__)
