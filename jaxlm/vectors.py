"""Word vectors: `python -m jaxlm.vectors train | similar | evaluate ...`.

train --kind skipgram|cbow|fasttext|glove --out FILE FILES... [--column text] [--size 100] [--window 5] [--negative 5]
  [--sample 1e-3] [--min-count 5] [--epochs 5] [--learning-rate 0.025 (glove: 0.2)] [--seed 0] [--buckets 200000] [--shortest 3]
  [--longest 6] [--keep-case]: FILES are txt, jsonl, csv, tsv, parquet, plain or compressed, and globs. FILE ends in .txt
  or .vec (word2vec's text) or .bin (word2vec's binary; for fasttext, fastText's own, which keeps the n-grams).
similar FILE WORD... [--count 10]; similar FILE --analogy A B C: what is to C as B is to A.
evaluate FILE [--pairs TSV]... [--analogies TXT] [--limit 100000]: without sets, WordSim-353, SimLex-999 and the Google
  analogies of gensim's package, where it is installed.
"""

import argparse
import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from jaxlm.command import OptionParser, run_command
from jaxlm.data.sources import documents
from jaxlm.errors import ConfigError
from jaxlm.overrides import choose
from jaxlm.text.embeddings import glove, vector_corpus, vector_evaluation, vector_files, vector_training
from jaxlm.text.embeddings.vector_training import Settings

ENDINGS = (".txt", ".vec", ".bin")


def main(arguments: list[str]) -> None:
    """Run one verb."""
    verbs = {"train": train, "similar": similar, "evaluate": evaluate}
    if not arguments:
        raise ConfigError(f"say what to do: python -m jaxlm.vectors {' | '.join(verbs)}; see --help")
    verbs[choose("the verb", arguments[0], tuple(verbs))](arguments[1:])


def train(arguments: list[str]) -> None:
    """Count, train, write."""
    parser = OptionParser(prog="python -m jaxlm.vectors train", add_help=False)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument("--min-count", type=int, default=5)
    parser.add_argument("--keep-case", action="store_true")
    for field in dataclasses.fields(Settings):
        kind = float if field.name == "learning_rate" else type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    options = parser.parse_args(arguments)
    settings = Settings(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)})
    if options.out.suffix not in ENDINGS or not options.out.absolute().parent.is_dir():
        raise ConfigError(f"--out {options.out} cannot be written: give a file in a folder that is there, ending in {', '.join(ENDINGS)}")
    if options.min_count < 1:
        raise ConfigError(f"--min-count {options.min_count} is out of range: give at least 1")
    vocabulary = vector_corpus.count_words(_lines(options), options.min_count, print)
    corpus = vector_corpus.encode(_lines(options), vocabulary)
    make = glove.train if settings.kind == "glove" else vector_training.train
    vector_files.save_trained(options.out, make(corpus, vocabulary, settings, print), vocabulary.counts)
    print(f"wrote {len(vocabulary.words):,} vectors of width {settings.size} to {options.out}")


def _lines(options: argparse.Namespace) -> Iterator[list[str]]:
    texts = (text for source in options.files for text in documents(source, options.column))
    return vector_corpus.sentences(texts, lower=not options.keep_case)


def similar(arguments: list[str]) -> None:
    """Print the nearest words, or the answers to an analogy."""
    parser = OptionParser(prog="python -m jaxlm.vectors similar", add_help=False)
    parser.add_argument("file")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--analogy", nargs=3)
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args(arguments)
    vectors = vector_files.load_vectors(options.file)
    for word, found in zip(options.words, vectors.most_similar(options.words, options.count), strict=True):
        print(word, *(f"  {score:.3f}  {other}" for other, score in found), sep="\n")
    if options.analogy:
        print("{} : {} = {} : ?".format(*options.analogy))
        print(*(f"  {score:.3f}  {other}" for other, score in vectors.analogy(*options.analogy, options.count)), sep="\n")


def evaluate(arguments: list[str]) -> None:
    """Print Spearman's rho of each set of pairs, and the accuracy of analogies by section."""
    parser = OptionParser(prog="python -m jaxlm.vectors evaluate", add_help=False)
    parser.add_argument("file")
    parser.add_argument("--pairs", action="append")
    parser.add_argument("--analogies")
    parser.add_argument("--limit", type=int, default=100_000)
    options = parser.parse_args(arguments)
    gensim = importlib.util.find_spec("gensim")
    if not (gensim or options.pairs or options.analogies):
        raise ConfigError("no set to evaluate on: give --pairs FILE or --analogies FILE, or install gensim, which has them")
    if not (options.pairs or options.analogies):
        sets = Path(gensim.submodule_search_locations[0]) / "test" / "test_data"
        options.pairs, options.analogies = [sets / "wordsim353.tsv", sets / "simlex999.txt"], sets / "questions-words.txt"
    for line in vector_evaluation.report(vector_files.load_vectors(options.file), options.pairs or (), options.analogies, options.limit):
        print(line)


if __name__ == "__main__":
    run_command(main, __doc__)
