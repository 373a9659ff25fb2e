"""ROUGE beside Google's rouge-score, on word salads and, where they are at hand, on real summaries."""

import gzip
import os
import random
from pathlib import Path

import pytest

from jaxlm.tasks.rouge import NAMES, common_length, common_places, rouge, words

WORDS = "the a Cats cat sitting sat. on 3 mats, Happily\nrunning é \n runs-off x_y".split(" ")


def salads(count, seed=0):
    """Pairs of texts of few words, so that many are shared; some are empty, some have several lines."""
    draw = random.Random(seed)
    text = lambda: " ".join(draw.choice(WORDS) for _ in range(draw.choice([0, 1, 3, 9, 25])))
    return [(text(), text()) for _ in range(count)]


def largest_difference(pairs, stem=None):
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(NAMES), use_stemmer=stem is not None)
    apart = []
    for hypothesis, reference in pairs:
        ours, theirs = rouge(hypothesis, reference, stem), scorer.score(reference, hypothesis)
        apart += [abs(ours[name] - theirs[name].fmeasure) for name in NAMES]
    return max(apart)


def test_equal_to_rouge_score_on_a_thousand_pairs():
    assert largest_difference(salads(1000)) < 1e-12


def test_equal_with_its_stemmer():
    from nltk.stem.porter import PorterStemmer

    stem = PorterStemmer().stem
    assert largest_difference(salads(300, 1), stem) < 1e-12
    assert words("This was cats", stem) == ["thi", "was", "cat"] and stem("was") == "wa", "three letters stay"
    assert rouge("cats sitting", "cat sits", stem)["rouge1"] == 1.0 > rouge("cats sitting", "cat sits")["rouge1"]


def test_equal_on_real_summaries():
    folder = os.environ.get("JAXLM_SHARED")
    if not folder:
        pytest.skip("JAXLM_SHARED names no folder of real data")
    with gzip.open(Path(folder) / "summarization" / "test.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][:1000]
    assert largest_difference([(source.split(". ")[0], target) for source, target in rows]) < 1e-12


def test_of_nothing_it_is_zero():
    for pair in (("", ""), ("a", ""), ("", "a"), ("é", "é")):
        assert set(rouge(*pair).values()) == {0.0}


def test_one_longest_common_subsequence():
    draw = random.Random(3)
    for _ in range(200):
        one, other = ([draw.choice("abc") for _ in range(draw.randrange(80))] for _ in "12")
        places = common_places(one, other)
        assert places == sorted(places, reverse=True) and len(places) == common_length(one, other) == common_length(other, one)
        kept = iter(one)
        assert all(other[place] in kept for place in reversed(places)), "in order on both sides"
