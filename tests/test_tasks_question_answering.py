"""Question answering: windows beside Hugging Face's, targets, spans, and SQuAD's scores beside another library's."""

import json
import os
import random
import types
from pathlib import Path

import numpy as np
import pytest

from jaxlm.config import Loss, Records
from jaxlm.errors import ConfigError, DataError
from jaxlm.tasks import question_answering as qa
from jaxlm.tasks import squad_scores
from jaxlm.text.tokenizer import load_tokenizer

PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] who led the norm ##ans ##an rollo , in 10 ##th century a b c d e f g ? . ##c".split()
CONTEXT = "The Normans, led by Rollo, a b c d e f g. In the 10th century a b c d e."
RECORD = {"id": "q1", "question": "Who led the Normans?", "context": CONTEXT, "answers": {"text": ["Rollo"], "answer_start": [20]}}
SMALL = Records(stride=4, question=8, n_best=5, answer=3)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    return load_tokenizer(folder), folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A byte-level BPE with RoBERTa's template, which has no token types, and two separators in the middle."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    engine.train_from_iterator([CONTEXT] * 3, trainers.BpeTrainer(vocab_size=265, special_tokens=marks, show_progress=False))
    engine.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    folder = tmp_path_factory.mktemp("roberta")
    engine.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}))
    return load_tokenizer(folder), folder


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize(("length", "stride"), [(18, 4), (22, 0), (26, 7), (200, 9)])
def test_windows_equal_hugging_faces(name, length, stride, request):
    from transformers import BertTokenizerFast, PreTrainedTokenizerFast

    ours, folder = request.getfixturevalue(name)
    file = {"tokenizer_file": str(folder / "tokenizer.json"), "pad_token": "<pad>"}
    theirs = BertTokenizerFast(str(folder / "vocab.txt")) if name == "bert" else PreTrainedTokenizerFast(**file)
    question = "who led ?"
    length += 4 if name == "roberta" else 0
    record = {"question": question, "context": CONTEXT}
    windows = qa.features(record, ours, Records(stride=stride, question=len(ours.encode(question, add_special_tokens=False))), length)
    options = {"truncation": "only_second", "max_length": length, "stride": stride, "return_overflowing_tokens": True}
    wanted = theirs(question, CONTEXT, **options, return_offsets_mapping=True, return_token_type_ids=True)
    assert [window["tokens"] for window in windows] == wanted["input_ids"] and (len(windows) > 1) == (length < 100)
    assert [window["token_types"] for window in windows] == wanted["token_type_ids"]
    for i, window in enumerate(windows):
        sides, about = wanted.sequence_ids(i), window["about"]
        assert [side == 1 for side in sides][1:] == [mark == 1.0 for mark in window["candidates"]][1:]
        assert window["candidates"][0] == 1.0 and sides.index(1) == about["first"]
        assert about["offsets"] == [list(span) for span, side in zip(wanted["offset_mapping"][i], sides, strict=True) if side == 1]


def test_targets_stand_on_the_answer_or_on_the_first_token(bert):
    windows = qa.features(RECORD, bert[0], SMALL, 19)
    assert len(windows) > 2
    found = []
    for window in windows:
        assert sum(window["start"]) == sum(window["end"]) == 1.0
        place = window["start"].index(1.0)
        assert place == window["end"].index(1.0)
        found.append(bert[0].piece(window["tokens"][place]))
    assert set(found) == {"[CLS]", "rollo"}
    several = dict(RECORD, answers={"text": ["the 10th century"], "answer_start": [45]})
    (whole,) = qa.features(several, bert[0], SMALL, 60)
    span = slice(whole["start"].index(1.0), whole["end"].index(1.0) + 1)
    assert [bert[0].piece(i) for i in whole["tokens"][span]] == ["the", "10", "##th", "century"]
    windows = [window for length in range(17, 23) for window in qa.features(several, bert[0], SMALL, length)]
    halves = [window for window in windows if len({"10", "century"} & {bert[0].piece(i) for i in window["tokens"]}) == 1]
    assert halves and all(window["start"][0] == window["end"][0] == 1.0 for window in halves)  # half an answer is none


def test_a_record_without_a_label_weighs_nothing_and_none_at_all_is_a_label(bert):
    unlabelled = {role: RECORD[role] for role in ("question", "context")}
    (window,) = qa.features(unlabelled, bert[0], SMALL, 60)
    assert not any(window["start"] + window["end"]) and window["about"]["answers"] is None
    nothing = dict(RECORD, answers={"text": [], "answer_start": []})
    (window,) = qa.features(nothing, bert[0], Records(stride=4, question=8, unanswerable=True), 60)
    assert window["start"][0] == window["end"][0] == 1.0 and window["about"]["answers"] == []
    with pytest.raises(DataError, match="no answer in its context: set records.unanswerable=true"):
        qa.features(nothing, bert[0], SMALL, 60)


def test_a_long_question_is_cut_and_counted(bert):
    long = dict(RECORD, question="who led the normans in 10th century a b c")
    windows = qa.features(long, bert[0], SMALL, 20)
    assert [window["cut"] for window in windows] == [4] + [0] * (len(windows) - 1)
    assert all(window["about"]["first"] == 10 and len(window["tokens"]) <= 20 for window in windows)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": "  "}, "the question is empty"),
        ({"context": ""}, "the context is empty"),
        ({"answers": {"text": ["Rollo"], "answer_start": [19]}}, "'Rollo' is not at character 19 of its context"),
        ({"answers": {"text": ["Rollo"], "answer_start": [-52]}}, "'Rollo' is not at character -52"),
        ({"answers": "Harold"}, "'Harold' is not in its context"),
        ({"answers": {"text": ["Rollo"]}}, "answers are {'text': .* give"),
        ({"answers": 3}, "answers are 3"),
        ({"answers": {"text": ["The"], "answer_start": [-1]}}, "'The' is not at character -1 of its context"),
        ({"answers": {"text": [""], "answer_start": [4]}}, "the answer '' is no text: .* lists are empty"),
        ({"answers": {"text": [3], "answer_start": [4]}}, "the answer 3 is no text"),
        ({"answers": {"text": ["Rollo"], "answer_start": [20.0]}}, "'Rollo' starts at 20.0: answer_start is a character's number"),
        ({"answers": {"text": ["Rollo"], "answer_start": ["20"]}}, "'Rollo' starts at '20'"),
        ({"answers": {"text": ["he"], "answer_start": [True]}}, "'he' starts at True"),
        ({"question": 5}, "the question is 5, no text"),
    ],
)
def test_bad_records_are_named(bert, changed, message):
    with pytest.raises(DataError, match=message):
        qa.features({**RECORD, **changed}, bert[0], SMALL, 60)


def test_answers_as_plain_texts_are_meant_where_they_first_stand(bert):
    wanted = qa.features(RECORD, bert[0], SMALL, 60)
    for answers in ("Rollo", ["Rollo"], ["", "Rollo"]):
        assert qa.features(dict(RECORD, answers=answers), bert[0], SMALL, 60) == wanted
    with pytest.raises(ConfigError, match="records.stride=4: .* only 4 tokens of context.* raise data.sequence_length"):
        qa.features(RECORD, bert[0], SMALL, 15)


def logits_of(window, spans, null=0.0):
    """Logits of a window: 5 at the given (start, end) tokens of the context, -5 elsewhere, `null` / 2 at the first token."""
    logits = np.full((len(window["tokens"]), 2), -5.0, np.float32)
    logits[0] = null / 2
    for start, end in spans:
        logits[window["about"]["first"] + start, 0] = logits[window["about"]["first"] + end, 1] = 5.0
    return logits


def record_windows(tokenizer, options, length=60, **changed):
    windows = qa.features({**RECORD, **changed}, tokenizer, options, length)
    for window in windows:
        window["about"]["record"] = changed.get("number", 0)
    return windows


def test_the_best_span_over_all_windows(bert):
    windows = record_windows(bert[0], SMALL, 19)
    place = [window["start"].index(1.0) for window in windows]
    assert place[0] > 0  # the answer is in the first window, and the others know nothing of it
    outputs = [logits_of(window, []) for window in windows]
    outputs[0][place[0]] = [4.0, 3.0]
    outputs[1][0] = [-1.0, -2.0]
    (found,) = qa.predictions(outputs, windows, SMALL)
    assert (found["id"], found["text"], found["score"]) == ("q1", "Rollo", 7.0)
    assert found["null_difference"] == -10.0  # the lowest of the windows' first tokens
    best = found["n_best"]
    assert len(best) == 5 and best[0]["start"] == 20 and abs(sum(row["probability"] for row in best) - 1) < 0.05
    assert len({(row["start"], row["text"]) for row in best}) == 5  # neighbouring windows give the same span once
    json.dumps(found)


def test_spans_are_in_order_and_short(bert):
    (window,) = record_windows(bert[0], SMALL)
    for start, end, allowed in ((6, 4, False), (4, 6, True), (4, 7, False)):
        (found,) = qa.predictions([logits_of(window, [(start, end)])], [window], SMALL)
        assert (found["score"] == 10.0) == allowed


def test_all_spans_are_tried(bert):
    """Beside a plain search through every pair of tokens."""
    draw = np.random.default_rng(0)
    (window,) = record_windows(bert[0], SMALL)
    about = window["about"]
    for _ in range(5):
        logits = draw.standard_normal((len(window["tokens"]), 2)).astype(np.float32)
        inside = np.float64(logits[about["first"] : about["first"] + len(about["offsets"])])
        every = [(inside[i, 0] + inside[j, 1], i, j) for i in range(len(inside)) for j in range(i, min(i + SMALL.answer, len(inside)))]
        wanted = [CONTEXT[about["offsets"][i][0] : about["offsets"][j][1]] for _, i, j in sorted(every, reverse=True)[: SMALL.n_best]]
        assert [row["text"] for row in qa.predictions([logits], [window], SMALL)[0]["n_best"]] == wanted


def test_the_null_threshold(bert):
    (window,) = record_windows(bert[0], SMALL)
    for threshold, null, text in ((0.0, 10.5, ""), (1.0, 10.5, "Rollo"), (0.0, 9.5, "Rollo"), (None, 99.0, "Rollo")):
        options = Records(stride=4, question=8, unanswerable=True, null_threshold=threshold)
        span = window["start"].index(1.0) - window["about"]["first"]
        (found,) = qa.predictions([logits_of(window, [(span, span)], null)], [window], options)
        assert (found["text"], found["null_difference"]) == (text, null - 10.0)
    assert qa.predictions([logits_of(window, [(span, span)], 99.0)], [window], SMALL)[0]["text"] == "Rollo"


def test_metrics_with_and_without_answers(bert):
    options = Records(stride=4, question=8, unanswerable=True)
    windows, outputs = [], []
    nulls, kinds = [12.0, 9.0, 13.0, 11.0], [True, True, False, False]  # the second answer and both refusals are right
    for number, (null, known) in enumerate(zip(nulls, kinds, strict=True)):
        answers = RECORD["answers"] if known else {"text": [], "answer_start": []}
        (window,) = record_windows(bert[0], options, number=number, answers=answers)
        place = window["about"]["offsets"].index([20, 25])
        windows.append(window)
        outputs.append(logits_of(window, [(place, place)], null))
    found = qa.metrics(outputs, windows, options)
    assert (found["exact"], found["HasAns_exact"], found["NoAns_f1"]) == (75.0, 50.0, 100.0)
    assert (found["best_exact"], found["best_exact_threshold"]) == (75.0, -1.0)
    (unlabelled,) = record_windows(bert[0], options, number=9, answers=None)
    assert qa.metrics([*outputs, outputs[0]], [*windows, unlabelled], options) == found
    assert qa.fit_threshold(outputs, windows, options) == found["best_f1_threshold"]
    assert qa.metrics(outputs[:1], [unlabelled], options) == {}
    del unlabelled["about"]["answers"]
    assert qa.metrics([*outputs, outputs[0]], [*windows, unlabelled], options) == found and qa.metrics([], [], SMALL) == {}
    with pytest.raises(DataError, match="no question has answers"):
        qa.fit_threshold(outputs[:1], [unlabelled], options)
    assert qa.metrics(outputs[:2], windows[:2], SMALL) == {"exact": 100.0, "f1": 100.0}


WORDS = "The a an Norman normans, Rollo's 10th - century!".split()


@pytest.mark.filterwarnings("default")
def test_scores_equal_torchmetrics():
    """SQuAD 1.1's exact match and F1, the best over the gold answers."""
    pytest.importorskip("torchmetrics")
    from torchmetrics.functional.text import squad

    draw = random.Random(0)
    text = lambda: " ".join(draw.choices(WORDS, k=draw.randint(1, 4))) + " x"
    pairs = [(text(), [text() for _ in range(draw.randint(1, 3))]) for _ in range(200)]
    pairs += [(gold[0].upper(), gold) for _, gold in pairs[:20]]
    scores = [squad_scores.answer_scores(golds, answer) for answer, golds in pairs]
    given = [{"prediction_text": answer, "id": str(i)} for i, (answer, _) in enumerate(pairs)]
    known = [{"answers": {"text": gold, "answer_start": [0] * len(gold)}, "id": str(i)} for i, (_, gold) in enumerate(pairs)]
    wanted = squad(given, known)
    assert abs(squad_scores.mean([s[0] for s in scores]) - float(wanted["exact_match"])) < 1e-3
    assert abs(squad_scores.mean([s[1] for s in scores]) - float(wanted["f1"])) < 1e-3
    assert 5 < float(wanted["exact_match"]) < 50


def test_scores_of_nothing():
    assert squad_scores.answer_scores([], "") == (1.0, 1.0) == squad_scores.answer_scores(["the"], "")
    assert squad_scores.answer_scores([], "x") == (0.0, 0.0) == squad_scores.answer_scores(["x"], "")
    assert squad_scores.mean([]) == 0.0 and squad_scores.best_threshold([], [], []) == (0.0, 0.0)


def test_the_best_threshold_is_the_best_of_all():
    draw = random.Random(1)
    for _ in range(300):
        size = draw.randint(1, 8)
        answerable = [draw.random() < 0.5 for _ in range(size)]
        scores = [draw.choice([0.0, 0.5, 1.0]) if known else 0.0 for known in answerable]
        differences = [draw.choice([-1.0, 0.5, 2.0, draw.random()]) for _ in range(size)]

        def at(threshold, rows=tuple(zip(scores, answerable, differences, strict=True))):
            return 100 * sum((not known) if null > threshold else score for score, known, null in rows) / len(rows)

        best, threshold = squad_scores.best_threshold(scores, answerable, differences)
        assert best == pytest.approx(max(at(each) for each in [-9.0, *differences]))
        assert best == pytest.approx(at(threshold))


class Stub:
    """A model whose logits are its parameters."""

    def apply(self, variables, tokens, token_types=None, segments=None, key=None):
        return types.SimpleNamespace(logits=variables["params"])


def test_the_loss_is_the_mean_cross_entropy_of_both_ends(bert):
    import jax.numpy as jnp

    (window,) = qa.features(RECORD, bert[0], SMALL, 60)
    n = len(window["tokens"])
    draw = np.random.default_rng(0)
    logits = draw.standard_normal((1, n + 3, 2)).astype(np.float32)
    pad = lambda values: jnp.asarray([values + [0] * 3], jnp.float32)
    batch = {name: pad(window[name]) for name in qa.COLUMNS} | {"tokens": pad(window["tokens"]), "groups": pad([1] * n)}
    total, windows = qa.loss(Stub(), jnp.asarray(logits), batch, None)
    wanted = 0.0
    for i, name in enumerate(("start", "end")):
        allowed = logits[0, :n, i][np.array(window["candidates"]) > 0]
        wanted += np.log(np.exp(allowed).sum()) - logits[0, window[name].index(1.0), i]
    np.testing.assert_allclose(total, wanted / 2, rtol=1e-5)
    assert windows == 1.0
    with pytest.raises(ConfigError, match="not for task=question-answering"):
        qa.loss(Stub(), jnp.asarray(logits), batch, None, Loss(label_smoothing=0.1))


def real(name):
    places = [Path(place) for place in (os.environ.get("JAXLM_REAL"), Path(__file__).parents[2] / "shared" / "data") if place]
    found = next((path for place in places if (path := place / name).exists()), None)
    return found or pytest.skip(f"{name} is not here: fetch it, and set JAXLM_REAL to its folder")


def test_real_questions_and_a_real_vocabulary():
    """Every answer of three articles is found again in its windows' tokens, word for word but for cut words."""
    from jaxlm.config import Data
    from jaxlm.data.records import read_records

    tokenizer = load_tokenizer(next(real("minilm").rglob("vocab.txt")).parent)
    options = Records(unanswerable=True, stride=32, question=32)
    source = str(real("squad/articles_1_to_3.json.gz"))
    whole = exact = 0
    for where, record in read_records(source, "question-answering", Data(), options, qa.ROLES, (*qa.REQUIRED, "answers")):
        for window in qa.features(record, tokenizer, options, 128):
            start, end = window["start"].index(1.0), window["end"].index(1.0)
            if start:
                about = window["about"]
                span = [about["offsets"][place - about["first"]] for place in (start, end)]
                text = record["context"][span[0][0] : span[1][1]]
                whole, exact = whole + 1, exact + (text == record["answers"]["text"][0])
                assert record["answers"]["text"][0] in text, where
    assert whole > 400 and exact / whole > 0.97
