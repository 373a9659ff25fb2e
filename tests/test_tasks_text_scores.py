"""Scores of texts beside sacrebleu's own and a plain edit distance; intervals and paired tests."""

import random
import sys
from unittest import mock

import numpy as np
import pytest

from jaxlm.errors import ConfigError, DataError
from jaxlm.tasks import bootstrap
from jaxlm.tasks.text_scores import SCORES, edits, language_of, measures, of_a_sentence, scores, signatures, usual

WORDS = "ein mann hund läuft schnell über die straße und sieht den roten ball .".split()
ZH = ["这只狗在公园里跑得很快。", "两个男人在街上走。"]
JA = ["犬が公園を速く走っています。", "男性が二人、通りを歩いている。"]


def corpus(count=60, wrong=0.3, seed=0):
    """References, and texts in which a share of the words is another."""
    draw = random.Random(seed)
    references = [" ".join(draw.choice(WORDS) for _ in range(draw.randrange(4, 15))) for _ in range(count)]
    draw = random.Random(seed + 100 * wrong)
    spoil = lambda text: " ".join(draw.choice(WORDS) if draw.random() < wrong else word for word in text.split())
    return [spoil(text) for text in references], [[text] for text in references]


def test_corpus_and_sentences_are_those_of_sacrebleu():
    import sacrebleu

    texts, references = corpus()
    found = measures(texts, references, ("bleu", "chrf", "ter"), "de")
    streams = [[one for (one,) in references]]
    for name, theirs in (("bleu", sacrebleu.BLEU(force=True)), ("chrf", sacrebleu.CHRF()), ("ter", sacrebleu.TER())):
        assert found[name].corpus == pytest.approx(theirs.corpus_score(texts, streams).score, abs=1e-9)
        assert found[name].signature == str(theirs.get_signature())
    for text, reference, chrf, ter in zip(texts, references, found["chrf"].sentences, found["ter"].sentences, strict=True):
        assert chrf == pytest.approx(sacrebleu.sentence_chrf(text, reference).score, abs=1e-9)
        assert ter == pytest.approx(sacrebleu.sentence_ter(text, reference).score, abs=1e-9)
    assert signatures(found)[0] == "bleu|" + found["bleu"].signature


@pytest.mark.parametrize(
    "code,texts,tokenizer", [("zh_CN", ZH, "zh"), ("zho_Hans", ZH, "zh"), ("ja", JA, "ja-mecab"), ("jpn_Jpan", JA, "ja")]
)
def test_words_are_those_of_the_target_language(code, texts, tokenizer):
    import sacrebleu

    others = [text.replace("公园", "花园").replace("公園", "庭") for text in texts]
    found = measures(others, [[text] for text in texts], ("bleu", "ter"), code)
    named = "ja-mecab" if tokenizer == "ja" else tokenizer
    assert f"tok:{named}" in found["bleu"].signature
    assert found["bleu"].corpus == pytest.approx(sacrebleu.corpus_bleu(others, [texts], tokenize=named).score)
    assert 0 < found["ter"].corpus < 50 < found["bleu"].corpus, "by 13a's blanks each sentence were one word"
    assert scores(others, [[text] for text in texts], ("bleu",))["bleu"] != pytest.approx(found["bleu"].corpus)


def test_several_references_and_unlike_numbers_of_them():
    import sacrebleu

    texts, references = ["a b c d e", "x y z u", "x y"], [["a b c d", "a b c d f"], ["x y z u"], ["x y z u v"]]
    found = scores(texts, references, tuple(SCORES))
    streams = [["a b c d", "x y z u", "x y z u v"], ["a b c d f", None, None]]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, streams, force=True).score)
    assert found["exact"] == pytest.approx(100 / 3) and found["error_rate"] == pytest.approx(100 * (1 + 0 + 3) / (5 + 4 + 5))
    assert found["rouge1"] == pytest.approx(100 * (8 / 9 + 1 + 4 / 7) / 3), "the best reference counts"


def test_bleu_of_a_short_text_is_of_the_n_grams_that_it_has():
    import sacrebleu

    texts, references = ["the cat", "a b c d e", "no"], ["the cat", "a b c x e", "yes"]
    found = measures(texts, [[text] for text in references], ("bleu",))["bleu"]
    theirs = [sacrebleu.sentence_bleu(text, [reference]).score for text, reference in zip(texts, references, strict=True)]
    assert found.sentences == pytest.approx(theirs) and theirs[0] == pytest.approx(100)
    assert found.corpus == pytest.approx(sacrebleu.corpus_bleu(texts, [references], force=True).score)


def test_edits_are_levenshteins():
    draw = random.Random(0)
    for _ in range(300):
        one, other = ([draw.choice("abcd") for _ in range(draw.randrange(90))] for _ in "12")
        assert edits(one, other) == _plain_edits(one, other)
    assert edits([], ["a", "b"]) == 2 and edits(["a"], []) == 1 and edits([], []) == 0


def _plain_edits(one, other):
    row = np.arange(len(other) + 1)
    for i, unit in enumerate(one, 1):
        new = [i]
        for j, their in enumerate(other, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (unit != their)))
        row = new
    return row[-1]


def test_an_error_rate_is_of_the_whole_corpus():
    found = measures(["a b", "c"], [["a x y z"], ["c"]], ("exact", "error-rate"))
    assert found["error_rate"].corpus == 100 * 3 / 5 and found["error_rate"].sentences == [75.0, 0.0]
    assert found["exact"].corpus == 50.0 and of_a_sentence(found) == "error_rate"
    assert scores(["a"], [[" "]], ("error-rate",))["error_rate"] == 100.0, "of no units, all that is there is too much"


def test_a_signature_is_one_word_a_line():
    found = measures(["a b"], [["a b"]], tuple(SCORES))
    lines = signatures(found)
    assert len(lines) == len(found) == 9 and all(len(line.split()) == 1 for line in lines) and lines[0].startswith("bleu|nrefs:1|")


def test_what_is_usual():
    assert usual("translation")[0] == "bleu" and usual("summarization") == ("rouge",) and "error-rate" in usual("text-to-text")


@pytest.mark.parametrize(
    "given,error,message",
    [
        ((["a"], [["a"]], ("blue",)), ConfigError, "evaluation.scores='blue' is not known: did you mean 'bleu'"),
        ((["a"], [["a"]], ("exact",), "germna"), ConfigError, "records.target_language='germna' is no code"),
        ((["a"], [["a"]], ("exact",), "jap"), ConfigError, "records.target_language='jap' is no code"),
        ((["a"], [["a"]], ("exact",), "xx"), ConfigError, "records.target_language='xx' is no code of a language: .* such as xh"),
        ((["a"], [["a"]], ("exact",), "JP"), ConfigError, "such as ja, jv"),
        ((["a"], [], ("exact",)), DataError, "1 texts and 0 references"),
        (([], [], ("exact",)), DataError, "0 texts"),
        ((["a"], [[]], ("exact",)), DataError, "one reference at least"),
        ((ZH, [[text] for text in ZH], ("rouge",), "zh"), DataError, "score by chrf"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_line(given, error, message):
    with pytest.raises(error, match=message) as raised:
        measures(*given)
    assert "\n" not in str(raised.value)


def test_a_missing_library_is_named_with_its_line():
    with mock.patch.dict(sys.modules, {"sacrebleu": None}), pytest.raises(ConfigError, match=r'pip install "jaxlm\[scores\]"'):
        measures(["a"], [["a"]], ("bleu",))
    with mock.patch("sacrebleu.BLEU", side_effect=RuntimeError("long\ntext")), pytest.raises(ConfigError, match=r"sacrebleu\[ko\]"):
        measures(["a"], [["a"]], ("bleu",), "ko")


def test_language_codes():
    assert [language_of(code) for code in (None, "", "en", "ja_XX", "cmn_Hans", "deu_Latn")] == ["", "", "en", "ja", "zh", "deu"]
    assert [language_of(code) for code in ("chi", ">>afb<<", "ns", "gsw")] == ["zh", "afb", "ns", "gsw"]
    assert [language_of(code) for code in ("DE", "ZH-cn", "JPN_Jpan")] == ["de", "zh", "ja"]


def test_the_paired_test_is_that_of_sacrebleu():
    import sacrebleu
    from sacrebleu.significance import PairedTest

    texts, references = corpus(120, 0.3)
    others, _ = corpus(120, 0.34)
    one, other = (measures(side, references, ("bleu", "chrf", "ter"), "de") for side in (others, texts))
    metrics = {"BLEU": sacrebleu.BLEU(force=True), "chrF2": sacrebleu.CHRF(), "TER": sacrebleu.TER()}
    theirs = PairedTest([("a", texts), ("b", others)], metrics, [[text for (text,) in references]], "bs", n_samples=200)()[1]
    for name, score in zip(("bleu", "chrf", "ter"), ("BLEU", "chrF2", "TER"), strict=True):
        found = bootstrap.paired(one[name], other[name], samples=200)
        assert found.p_value == pytest.approx(theirs[score][1].p_value, abs=0.02)
        assert found.difference == pytest.approx(theirs[score][1].score - theirs[score][0].score)
        low, high = bootstrap.interval(one[name], samples=200)
        assert (low + high) / 2 == pytest.approx(theirs[score][1].mean, abs=0.5)
        assert (high - low) / 2 == pytest.approx(theirs[score][1].ci, rel=0.1)


def test_the_better_system_wins_whatever_better_means():
    texts, references = corpus(80, 0.1)
    others, _ = corpus(80, 0.6)
    good, bad = (measures(side, references, ("chrf", "error-rate")) for side in (texts, others))
    for name in good:
        assert bootstrap.paired(good[name], bad[name], samples=100).wins == 1.0
        assert bootstrap.paired(bad[name], good[name], samples=100).wins == 0.0
        assert bootstrap.paired(good[name], bad[name], samples=100).p_value == pytest.approx(1 / 101)
        alike = bootstrap.paired(good[name], good[name], samples=100)
        assert alike == bootstrap.Comparison(0.0, 0.5, 1.0), "ties are halves, and nothing is no difference"
    with pytest.raises(DataError, match="80 texts against 40"):
        bootstrap.paired(good["chrf"], measures(texts[:40], references[:40], ("chrf",))["chrf"])


def test_intervals_depend_on_the_seed_alone():
    score = measures(*corpus(), ("chrf",))["chrf"]
    assert bootstrap.interval(score, 50, seed=1) == bootstrap.interval(score, 50, seed=1) != bootstrap.interval(score, 50, seed=2)
    low, high = bootstrap.interval(score, 300)
    assert low < score.corpus < high
