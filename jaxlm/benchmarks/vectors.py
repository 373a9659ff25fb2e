"""Training word vectors, ours and gensim's, turn by turn on the same sentences: words/s, and quality over seeds.

Both take the same sizes, windows, negatives, subsampling, learning rate and epochs, gensim with a worker a core. A word is
one of the corpus, rare ones too, in one epoch. GloVe, which gensim has not, is set beside gensim's skip-gram.
"""

import dataclasses
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxlm.data.sources import documents
from jaxlm.text.embeddings import glove, vector_corpus, vector_evaluation, vector_training
from jaxlm.text.embeddings.vector_training import Settings
from jaxlm.text.vectors import Vectors

WARM = 1 << 18  # words of the run that compiles


@dataclasses.dataclass(frozen=True)
class Corpora:
    """The sentences, and what ours makes of them."""

    lines: list[list[str]]
    vocabulary: vector_corpus.Vocabulary
    ids: vector_corpus.Corpus


def ours(corpora: Corpora, settings: Settings) -> tuple[float, Vectors]:
    """Seconds of training, and the vectors."""
    make = glove.train if settings.kind == "glove" else vector_training.train
    start = time.perf_counter()
    vectors = make(corpora.ids, corpora.vocabulary, settings).vectors
    return time.perf_counter() - start, vectors


def theirs(corpora: Corpora, settings: Settings) -> tuple[float, Vectors]:
    """The same by gensim; building its vocabulary is not counted."""
    from gensim.models import FastText, Word2Vec

    same = {"vector_size": settings.size, "window": settings.window, "negative": settings.negative, "sample": settings.sample}
    rest = {"min_count": 5, "sg": int(settings.kind != "cbow"), "workers": os.cpu_count(), "seed": settings.seed}
    grams = {"bucket": settings.buckets, "min_n": settings.shortest, "max_n": settings.longest}
    model = FastText(**same, **rest, **grams) if settings.kind == "fasttext" else Word2Vec(**same, **rest)
    model.build_vocab(corpora.lines)
    start = time.perf_counter()
    model.train(corpora.lines, total_examples=model.corpus_count, epochs=settings.epochs)
    return time.perf_counter() - start, Vectors(tuple(model.wv.index_to_key), model.wv.vectors)


def run(files: list[str], kind: str = "skipgram", seeds: int = 3, epochs: int = 5) -> None:
    """Print a line a training, then the ratio of the speeds and the mean WordSim-353 of both."""
    lines = list(vector_corpus.sentences(text for source in files for text in documents(source)))
    vocabulary = vector_corpus.count_words(lines, report=print)
    corpora = Corpora(lines, vocabulary, vector_corpus.encode(lines, vocabulary))
    settings = Settings(kind=kind, epochs=epochs)
    few = vector_corpus.Corpus(corpora.ids.ids[:WARM], corpora.ids.ends[corpora.ids.ends <= WARM])
    ours(dataclasses.replace(corpora, ids=few), dataclasses.replace(settings, epochs=1))
    sides = {"jaxlm": ours} | ({"gensim": theirs} if importlib.util.find_spec("gensim") else {})
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for seed in range(1, seeds + 1):
        for name, make in sides.items():
            seconds, vectors = make(corpora, dataclasses.replace(settings, seed=seed))
            speed = vocabulary.total * epochs / seconds
            scores = list(_scores(vectors))
            results[name].append((speed, scores[0].spearman if scores else float("nan")))
            quality = "  ".join(f"Spearman {score.spearman:.3f} on {score.covered} of {score.pairs} pairs" for score in scores)
            print(f"{name:<7} {kind} seed {seed}  {speed:10,.0f} words/s  {quality}  load {os.getloadavg()[0]:.1f}", flush=True)
    _summary({name: np.array(rows) for name, rows in results.items()})


def _scores(vectors: Vectors) -> Iterator[vector_evaluation.Similarity]:
    """WordSim-353, then SimLex-999, where gensim's package holds them."""
    if found := importlib.util.find_spec("gensim"):
        folder = Path(found.submodule_search_locations[0]) / "test" / "test_data"
        for name in ("wordsim353.tsv", "simlex999.txt"):
            yield vector_evaluation.similarity(vectors, vector_evaluation.read_pairs(folder / name))


def _summary(results: dict[str, np.ndarray]) -> None:
    for name, rows in results.items():
        print(f"{name}: WordSim-353 {rows[:, 1].mean():.3f} +- {rows[:, 1].std():.3f}, {np.median(rows[:, 0]):,.0f} words/s")
    if "gensim" in results:
        ratios = results["jaxlm"][:, 0] / results["gensim"][:, 0]
        print(f"jaxlm / gensim: {np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}] median [least, most]")
