"""Tags and entities beside seqeval's, first subwords beside transformers', and the task of tagging, cut sentences included."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Loss, Records
from jaxlm.errors import ConfigError, DataError
from jaxlm.tasks import token_classification as tagging
from jaxlm.tasks.entities import entity_scores, spans, tags_of
from jaxlm.text.tokenizer import load_tokenizer
from jaxlm.text.tokenizers import bytes as byte_tokens
from jaxlm.text.tokenizers import characters

REAL = os.environ.get("JAXLM_REAL")
PIECES = "[PAD] [UNK] [CLS] [SEP] the cat sat ##s ##ting on a - ' . un ##believ ##able mat Z ##ür ##ich i /".split()
RECORDS = Records(labels=("O", "B-X", "I-X", "B-Y", "I-Y"), scheme="bio")


def random_tags(kinds, count=200):
    random = np.random.default_rng(0)
    return [list(random.choice(kinds, random.integers(1, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wordpiece")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """GPT-2's kind: a blank belongs to the word behind it."""
    letters = [*map(chr, range(33, 127)), *map(chr, range(161, 173)), *map(chr, range(174, 256)), *map(chr, range(256, 324))]
    merges = ["c a", "ca t", "Ġ t", "Ġ cat", "s a"]
    folder = tmp_path_factory.mktemp("byte_level")
    names = [*letters, *(merge.replace(" ", "") for merge in merges)]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    return load_tokenizer(folder)


def test_random_bio_tags_equal_seqeval():
    get_entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    for tags in random_tags(["O", "B-X", "I-X", "B-Y", "I-Y", "I-Z-Z"]):
        assert spans(tags) == get_entities(tags)
    for tags in random_tags(["O", "B", "I"]):
        assert spans(tags) == get_entities(tags)


def test_random_bilou_tags_equal_seqeval():
    """seqeval's kind reading knows L and U as E and S; of right tags its strict reading of BILOU is the same."""
    get_entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    scheme = pytest.importorskip("seqeval.scheme")
    for tags in random_tags(["O", *(f"{p}-{t}" for p in "BILU" for t in "XY")]):
        other = [tag.replace("L-", "E-").replace("U-", "S-") for tag in tags]
        assert spans(tags, "bilou") == get_entities(other)
        right = tags_of(spans(tags, "bilou"), len(tags), "bilou")
        strict = scheme.Tokens(right, scheme.BILOU).entities
        assert spans(right, "bilou") == [(e.tag, e.start, e.end - 1) for e in strict]


@pytest.mark.parametrize("scheme", ["bio", "bilou"])
def test_tags_are_the_inverse_of_spans(scheme):
    for tags in random_tags(["O", "B-X", "I-X", "B-Y", "I-Y"]):
        entities = spans(tags)
        assert spans(tags_of(entities, len(tags), scheme), scheme) == entities
    assert tags_of([("_", 0, 1)], 2, scheme) == ["B", "I" if scheme == "bio" else "L"]


def test_entity_scores_equal_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics")
    tags, random = random_tags(["O", "O", "B-X", "I-X", "B-Y"]), np.random.default_rng(1)
    guesses = [[tag if random.random() < 0.7 else "I-Y" for tag in row] for row in tags]
    found = entity_scores([spans(row) for row in tags], [spans(row) for row in guesses])
    for name in ("precision", "recall", "f1"):
        assert found[name] == pytest.approx(getattr(seqeval, f"{name}_score")(tags, guesses), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(seqeval.f1_score(tags, guesses, average="macro"), abs=1e-12)
    assert 0 < found["f1"] < 1 and found["macro_f1"] != pytest.approx(found["f1"])
    assert set(entity_scores([[]], [[]]).values()) == {0.0}


def test_wrong_tags_and_spans_are_refused():
    for tag, scheme in (("PER", "bio"), ("L-PER", "bio"), ("B-", "bio"), ("", "bio"), ("E-PER", "bilou")):
        with pytest.raises(DataError, match="is not of the scheme"):
            spans([tag], scheme)
    for wrong in ([("X", 1, 2)], [("X", -1, 0)], [("X", 0, 1), ("Y", 1, 1)]):
        with pytest.raises(DataError, match="overlaps another, or is not within 2 words"):
            tags_of(wrong, 2)
    with pytest.raises(ConfigError, match="did you mean 'bilou'"):
        spans(["B-X"], "bilo")


def example(tokenizer, words, tags=None, length=64, options=RECORDS):
    return tagging.features({"tokens": words, "tags": tags}, tokenizer, options, length)[0]


def test_labels_stand_at_first_subwords(wordpiece):
    made = example(wordpiece, "the cats unbelievable sat", ["O", "B-X", "I-X", "B-Y"])
    names = [wordpiece.piece(i) for i in made["tokens"]]
    assert names == ["[CLS]", "the", "cat", "##s", "un", "##believ", "##able", "sat", "[SEP]"]
    assert made["weights"] == [0, 1, 1, 0, 1, 0, 0, 1, 0]
    assert made["labels"] == [0, 0, 1, 0, 2, 0, 0, 3, 0]
    assert made["token_types"] == [0] * 9 and made["cut"] == made["about"]["lost"] == 0
    assert json.loads(json.dumps(made)) == made


def test_a_line_of_words_and_tags(wordpiece):
    made = tagging.features({"tagged": "cat/B-X 1/2/I-X //O"}, wordpiece, RECORDS, 64)[0]
    assert (made["about"]["words"], made["about"]["tags"]) == (["cat", "1/2", "/"], ["B-X", "I-X", "O"])
    assert tagging.label_names({"tagged": "cat/B-X 1/2/I-X //O"}, RECORDS) == ["B-X", "I-X", "O"]
    assert tagging.label_names({"tokens": "the cat"}, RECORDS) == []


def test_places_equal_those_of_transformers(wordpiece, tmp_path):
    transformers = pytest.importorskip("transformers")
    wordpiece.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    random = np.random.default_rng(0)
    choices = ["the", "cats", "sat-on", "Zürich", "unbelievable", "i's", "???", "東京", "\u0301", "a b"]
    for _ in range(30):
        words = [str(word) for word in random.choice(choices, random.integers(1, 8))] + ["mat"]
        length = int(random.integers(4, 24))
        found = theirs(words, is_split_into_words=True, truncation=True, max_length=length)
        ids, made = found.word_ids(), example(wordpiece, words, length=length)
        assert made["tokens"] == found["input_ids"]
        assert made["about"]["places"] == [ids.index(n) if n in ids else None for n in range(len(words))]
        assert len(made["tokens"]) + made["cut"] == len(theirs(words, is_split_into_words=True)["input_ids"])


def test_byte_level_tokens_touch_their_word(byte_level):
    made = example(byte_level, ["cat", "cat", "☃", "the"], ["O", "B-X", "I-X", "O"])
    assert [byte_level.piece(i) for i in made["tokens"]] == ["cat", "Ġcat", "Ġ", "â", "ĺ", "ĥ", "Ġt", "h", "e"]
    assert made["about"]["places"] == [0, 1, 3, 6]  # the lone blank is of no word, though it stands before one


def test_tokenizers_without_words():
    letters = characters.train(["the cat"])
    assert example(letters, "the cat")["about"]["places"] == [0, 4]
    made = example(byte_tokens.Bytes(), ["é", "x"])
    assert made["about"]["places"] == [0, 3] and made["tokens"][-1] == 1  # two bytes and a blank in front, </s> behind


def test_a_long_sentence_is_cut_and_says_so(wordpiece):
    made = example(wordpiece, "the cats sat on the mat", ["O", "B-X", "O", "O", "O", "B-Y"], length=6)
    assert [wordpiece.piece(i) for i in made["tokens"]] == ["[CLS]", "the", "cat", "##s", "sat", "[SEP]"]
    assert (made["cut"], made["about"]["lost"], made["about"]["places"]) == (3, 3, [1, 2, 4, None, None, None])
    assert all(len(made[name]) == 6 for name in ("labels", "weights", "token_types")) and sum(made["weights"]) == 3
    assert len(example(wordpiece, "the", length=3)["tokens"]) == 3
    with pytest.raises(ConfigError, match="sequence_length=2 has no room"):
        example(wordpiece, "the", length=2)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "there are no words"),
        ({"tokens": "  "}, "the sentence is empty"),
        ({"tokens": ["the", " "]}, "word 2 is empty"),
        ({"tokens": "the cat", "tags": "O"}, "2 words but 1 tags"),
        ({"tagged": "the/O cat"}, "item 2, 'cat', is not word/tag"),
        ({"tagged": "the/O /O"}, "item 2, '/O', is not word/tag"),
        ({"tokens": "cat", "tags": ["B-Z"]}, "the tag 'B-Z' of word 1, 'cat', is not known: did you mean 'B-"),
        ({"tokens": "cat", "tags": ["nn"]}, "the tag 'nn' is not of the scheme bio"),
        ({"tokens": ["\u0301"]}, "leaves nothing of the sentence"),
    ],
)
def test_bad_records_are_one_line(wordpiece, record, message):
    with pytest.raises(DataError, match=message) as caught:
        tagging.features(record, wordpiece, RECORDS, 16)
    assert "\n" not in str(caught.value)


def test_a_scheme_that_is_none(wordpiece):
    with pytest.raises(ConfigError, match="records.scheme='bioes' is not known"):
        example(wordpiece, "cat", options=Records(scheme="bioes"))


def test_loss_equals_the_formula():
    random = np.random.default_rng(0)
    logits = random.standard_normal((2, 4, 5)).astype(np.float32)
    seen = {}

    def apply(variables, tokens, **arguments):
        seen.update(arguments)
        return SimpleNamespace(logits=variables["params"])

    weights = np.array([[0, 1, 1, 0], [0, 1, 0, 0]], np.float32)
    labels = random.integers(0, 5, (2, 4)).astype(np.int32)
    batch = {"tokens": labels, "segments": "of rows", "labels": labels, "weights": weights}
    log_p = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))
    own = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    for smoothing in (0.0, 0.2):
        options = Loss(label_smoothing=smoothing)
        total, count = tagging.loss(SimpleNamespace(apply=apply), jnp.asarray(logits), batch, "key", options)
        want = (1 - smoothing) * own - smoothing * log_p.mean(-1)
        np.testing.assert_allclose(total, (want * weights).sum(), rtol=1e-5)
        assert count == 3
    assert seen == {"segments": batch["segments"], "key": "key"}
    with pytest.raises(ConfigError, match="r_drop"):
        tagging.loss(None, None, batch, None, Loss(r_drop=1.0))


def test_predictions_and_metrics(wordpiece):
    """Of seven words five are right: one is taken for another tag, one is lost."""
    examples = [
        example(wordpiece, "the cats sat", ["B-X", "I-X", "O"]),
        example(wordpiece, "a mat sat on", ["O", "B-Y", "O", "B-Y"], length=5),
        example(wordpiece, "a cat"),
    ]
    guesses = [[0, 1, 2, 4, 3, 0], [0, 0, 3, 0, 0], [0, 0, 1, 0]]
    outputs = [np.eye(5, dtype=np.float32)[row] for row in guesses]
    found = tagging.predictions(outputs, examples, RECORDS)
    assert found[0]["entities"] == [
        {"type": "X", "first": 0, "last": 1, "text": "the cats"},
        {"type": "Y", "first": 2, "last": 2, "text": "sat"},
    ]
    assert found[1]["tags"] == ["O", "B-Y", "O", None] and found[1]["tokens"] == ["a", "mat", "sat", "on"]
    assert found[2]["tags"] == ["O", "B-X"] and json.loads(json.dumps(found)) == found
    scores = tagging.metrics(outputs, examples, RECORDS)
    assert scores["accuracy"] == pytest.approx(5 / 7)
    assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    plain = Records(labels=RECORDS.labels)
    assert (
        set(tagging.metrics(outputs, examples, plain)) == {"accuracy"}
        and "entities" not in tagging.predictions(outputs, examples, plain)[0]
    )
    assert tagging.metrics(outputs[2:], examples[2:], RECORDS) == {}


@pytest.mark.skipif(not REAL, reason="JAXLM_REAL names no folder of real data")
def test_brown_is_tagged_word_for_word():
    tokenizer = load_tokenizer(Path(REAL, "minilm", "minilm"))
    with open(Path(REAL, "tagging", "tagging", "train.txt"), encoding="utf-8") as lines:
        records = [{"tagged": line} for line, _ in zip(lines, range(500), strict=False)]
    labels = tuple(sorted({name for record in records for name in tagging.label_names(record, Records())}))
    for record in records:
        made = tagging.features(record, tokenizer, Records(labels=labels), 256)[0]
        at = [labels[label] for label, weight in zip(made["labels"], made["weights"], strict=True) if weight]
        assert at == made["about"]["tags"] and made["cut"] == made["about"]["lost"] == 0
