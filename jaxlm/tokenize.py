"""Train a tokenizer and use it: `python -m jaxlm.tokenize train|encode|decode|stats ...`.

train --kind wordpiece|bpe|unigram|word|char --vocab-size N --out DIR FILES... [--column text] [--lower] [--seed 0]: from txt, jsonl,
csv, tsv, parquet, also .gz, .xz, .zst, in bounded memory: words are counted, the rarest dropped above --distinct 2000000; unigram
learns from a sample of --sample 8192 pieces of 1,024 characters. DIR must not exist, or be empty; jaxlm and AutoTokenizer open it.
encode DIR [FILES]: a line of ids a line of text (standard input without FILES); --tokens prints pieces, --bare no [CLS] and the like.
decode DIR [FILES]: lines of ids back into text.
stats DIR FILES... [--by COLUMN]: tokens a word, bytes a token, unknown tokens, words covered, by file (or by the column) and script.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from jaxlm.command import OptionParser, run_command
from jaxlm.data import lines
from jaxlm.errors import Stopped
from jaxlm.overrides import choose
from jaxlm.text import statistics, training
from jaxlm.text.learning.folder import free, new_folder
from jaxlm.text.tokenizer import load_tokenizer


def main(arguments: list[str]) -> None:
    """Run the verb."""
    verb = choose("the verb", arguments[0] if arguments else "", VERBS)
    options = parse(verb, arguments[1:])
    try:
        VERBS[verb](options)
    except KeyboardInterrupt:
        raise Stopped(f"{verb}: interrupted; nothing half-written was left") from None


def train(options: argparse.Namespace) -> None:
    """Learn, then write the folder, whole or not at all."""
    free(options.out)  # said before the learning, which may take long
    say, kind = lambda line: print(line, file=sys.stderr, flush=True), choose("--kind", options.kind, training.KINDS)
    settings = training.Settings(options.lower, options.seed, options.distinct, options.sample, say)
    texts = (text for _, text in lines.file_texts(options.files, options.column))
    with lines.in_a_commands_words():
        tokenizer = training.train_tokenizer(kind, lines.reported(texts, say), options.vocab_size, settings)
    with new_folder(options.out) as folder:
        training.save_for_transformers(tokenizer, folder)
    say(f"{options.out}: {kind}, {tokenizer.vocab_size:,} tokens")


def encode(options: argparse.Namespace) -> None:
    """Ids, or pieces, a line a text."""
    tokenizer = load_tokenizer(options.directory)
    show = (lambda i: tokenizer.piece(i) or "") if options.tokens else str
    for batch in lines.batches(options.files, options.column):
        rows = tokenizer.encode_batch(batch, add_special_tokens=not options.bare)
        sys.stdout.write("".join(" ".join(map(show, ids)) + "\n" for ids in rows))


def decode(options: argparse.Namespace) -> None:
    """The text of each line of ids."""
    tokenizer = load_tokenizer(options.directory)
    for ids in lines.numbers(lines.batches(options.files, options.column)):
        print(tokenizer.decode(ids))


def stats(options: argparse.Namespace) -> None:
    """A table by group and one by script."""
    groups, scripts = statistics.measure(load_tokenizer(options.directory), _groups(options))
    for title, rows in {options.by or "file": groups, "script": scripts}.items():
        print(*statistics.table(title, rows), sep="\n")


def _groups(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if options.by:
        return lines.file_rows(options.files, options.by, options.column)
    return ((str(path), text) for path, text in lines.file_texts(options.files, options.column))


VERBS = {"train": train, "encode": encode, "decode": decode, "stats": stats}


def parse(verb: str, arguments: list[str]) -> argparse.Namespace:
    """The options of a verb."""
    parser = OptionParser(prog="python -m jaxlm.tokenize", add_help=False)
    parser.add_argument("--column", default="text")
    if verb == "train":
        parser.add_argument("--kind", required=True)
        parser.add_argument("--out", required=True, type=Path)
        for name, value in {"vocab-size": 8192, "seed": 0, "distinct": training.DISTINCT, "sample": training.SAMPLE}.items():
            parser.add_argument(f"--{name}", type=int, default=value)
    else:
        parser.add_argument("directory")
    if verb == "stats":
        parser.add_argument("--by")
    for name in {"train": ("--lower",), "encode": ("--tokens", "--bare")}.get(verb, ()):
        parser.add_argument(name, action="store_true")
    parser.add_argument("files", nargs="*" if verb in ("encode", "decode") else "+")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    run_command(main, __doc__)
