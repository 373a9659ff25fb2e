"""Measure, beside a peer: `python -m jaxlm.bench train | forward | load | tokenize | prepare | vectors | classify | translate | decode |
quantize`.

train: a step of GPT-2, tokens/s, FLOP/s, peak memory, time to the first step. forward: hidden states of bert-base or minilm,
logits of gpt2; with --mixed 64, of so many texts of mixed lengths. Where torch and transformers are installed, the same
shapes in torch, alternating, with the ratio and its spread. load: a safetensors model, beside the format's own load_file.
tokenize: batches of texts, beside the bare tokenizers library, on one core and on all. prepare: a corpus of --megabytes 300
by --workers (one a core), with --clean '("unicode", ...)'. vectors FILES: --kind skipgram (or cbow, fasttext, glove) over --seeds 3 and
--epochs 5, beside gensim: words/s and WordSim-353. classify MODEL TRAIN TEST: fine-tuning on label TAB text, an epoch to
warm up and one a round (of 2; --examples N of them), real tokens/s and the accuracy of both. translate [SOURCE TARGET]: a step of
a small Transformer on --batch 64 padded pairs of --length 32 tokens, of two aligned files or drawn; --curve N: N steps of both sides from
the same weights, and how far their losses are apart. decode: --new 64 tokens after --batch 1 prompts of --length 16 by --size gpt2 or
t5-small, --beams 1, with the share of the memory's bandwidth. quantize MODEL TEXT: size and perplexity with weights and caches of few
bits, on --examples 8 windows of --length 512 tokens.
Options: --size gpt2 (or shakespeare, bert-base, minilm, t5-small), --batch 2, --length 256, --dropout 0, --dtype float32, --layout
unrolled, --mixed 0, --rounds 7 (classify: 2), --steps 2, --compile (torch.compile too), --alone (no peer).
"""

import argparse
import importlib.util
import os

from jaxlm.benchmarks import classify, decode, forward, load, prepare, quantize, tokenize, train, translate, vectors
from jaxlm.command import OptionParser, run_command
from jaxlm.overrides import choose

KNOWN = ("train", "forward", "load", "tokenize", "prepare", "vectors", "classify", "translate", "decode", "quantize")


def main(arguments: list[str]) -> None:
    """Run the named benchmark."""
    options = parse(arguments)
    choose("the benchmark", options.what, KNOWN)
    alone = options.alone or not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"))
    rest = options.rounds, options.steps, options.compile, alone
    if options.what == "train":
        size = choose("--size", options.size or "gpt2", train.SIZES)
        train.run(train.Shape(size, options.batch or 2, options.length or 256, options.dropout, options.dtype, options.layout), *rest)
    elif options.what == "forward":
        size = choose("--size", options.size or "bert-base", forward.SIZES)
        forward.run(forward.Shape(size, options.batch or 2, options.length or 256, options.dtype, options.mixed), *rest)
    elif options.what == "translate":
        shape = translate.Shape(options.batch or 64, options.length or 32, options.dropout, options.dtype, tuple(options.files))
        translate.curve(shape, options.curve) if options.curve else translate.run(shape, *rest)
    elif options.what == "decode":
        size = choose("--size", options.size or "gpt2", decode.SIZES)
        decode.run(decode.Shape(size, options.batch or 1, options.length or 16, options.new, options.beams, options.dtype), *rest)
    elif options.what == "quantize":
        quantize.run(*options.files, options.length or 512, options.examples or 8)
    elif options.what == "load":
        load.run(options.rounds, options.steps, options.dtype)
    elif options.what == "tokenize":
        tokenize.run(options.rounds, options.steps)
    elif options.what == "prepare":
        prepare.run(options.megabytes, options.workers, options.clean)
    elif options.what == "classify":
        recipe = classify.Recipe(*options.files, options.examples, options.rounds + 1, options.seed, packing=options.packing)
        classify.run(recipe, options.rounds, alone)
    else:
        vectors.run(options.files, options.kind, options.seeds, options.epochs)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = OptionParser(prog="python -m jaxlm.bench", add_help=False)
    parser.add_argument("what")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--size")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--length", type=int)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layout", default="unrolled")
    parser.add_argument("--mixed", type=int, default=0)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--clean")
    parser.add_argument("--kind", default="skipgram")
    parser.add_argument("--examples", type=int)
    parser.add_argument("--packing", default="packed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--curve", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_intermixed_args(arguments)
    options.rounds = options.rounds or (2 if options.what == "classify" else 7)  # an epoch each, of a recipe of three
    return options


if __name__ == "__main__":
    run_command(main, __doc__)
