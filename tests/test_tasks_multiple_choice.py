"""Multiple choice: choices side by side, cut fairly, the loss among them, and what is said of bad records."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Loss, Records
from jaxlm.errors import ConfigError, DataError
from jaxlm.tasks import multiple_choice as mc
from jaxlm.text.tokenizer import load_tokenizer

PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] it rained so she took an umbrella the sun shone a b c d e f g h .".split()
RECORD = {"text": "it rained so", "choices": ["she took an umbrella.", "the sun shone"], "label": 1}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    return load_tokenizer(folder)


def segments_of(example):
    segments = np.array(example["segments"])
    return [np.array(example["tokens"])[segments == number].tolist() for number in range(1, segments.max() + 1)]


def test_an_example_is_all_its_choices_side_by_side(tokenizer):
    (example,) = mc.features(RECORD, tokenizer, Records(), 64)
    pairs = [tokenizer.encode(RECORD["text"], choice) for choice in RECORD["choices"]]
    assert segments_of(example) == pairs and example["cut"] == 0
    assert example["token_types"] == pairs[0].token_types + pairs[1].token_types
    assert np.flatnonzero(example["candidates"]).tolist() == [0, len(pairs[0])] == example["about"]["places"]
    assert np.flatnonzero(example["labels"]).tolist() == [len(pairs[0])]
    assert set(mc.COLUMNS) < set(example) and all(len(example[name]) == len(example["tokens"]) for name in mc.COLUMNS)


@pytest.mark.parametrize("text", ["", " ", None])
def test_choices_alone(tokenizer, text):
    assert mc.texts(dict(RECORD, text=text)) == RECORD["choices"] and mc.texts(RECORD) == [RECORD["text"], *RECORD["choices"]]
    (example,) = mc.features(dict(RECORD, text=text), tokenizer, Records(), 64)
    assert segments_of(example) == [tokenizer.encode(choice) for choice in RECORD["choices"]]


def test_labels_are_numbers_and_may_be_unknown(tokenizer):
    (wanted,) = mc.features(RECORD, tokenizer, Records(), 64)
    assert mc.features(dict(RECORD, label="1"), tokenizer, Records(), 64) == [wanted]
    (unknown,) = mc.features(dict(RECORD, label=None), tokenizer, Records(), 64)
    assert not any(unknown["labels"]) and unknown["about"]["label"] is None


def test_the_longest_is_cut_first_until_all_fit(tokenizer):
    record = {"text": "a b", "choices": ["a b c d e f g h", "c d e", "c"], "label": 0}
    (whole,) = mc.features(record, tokenizer, Records(), 64)
    assert len(whole["tokens"]) == 27 and whole["cut"] == 0
    for length in range(26, 14, -1):
        (example,) = mc.features(record, tokenizer, Records(), length)
        assert len(example["tokens"]) <= length and example["cut"] == 27 - len(example["tokens"])
        assert max(example["segments"]) == 3 and sum(example["labels"]) == 1
    (example,) = mc.features(record, tokenizer, Records(), 24)
    assert [len(part) for part in segments_of(example)] == [10, 8, 6]  # only the first choice has lost tokens
    with pytest.raises(DataError, match="3 choices do not fit.*raise data.sequence_length"):
        mc.features(record, tokenizer, Records(), 14)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"choices": ["a"]}, r"choices are \['a'\]: give a list of two texts at least"),
        ({"choices": "a b"}, "a list of two texts at least"),
        ({"choices": ["a", " "]}, "choice 1 is empty"),
        ({"choices": ["a", None]}, "choice 1 is empty"),
        ({"choices": ["a", 4]}, "choice 1 is 4, no text"),
        ({"text": 5}, "the text is 5, no text"),
        ({"label": 2}, "the label 2 is no choice: .* 0 to 1"),
        ({"label": -1}, "the label -1 is no choice"),
        ({"label": "sun"}, "the label 'sun' is no choice"),
        ({"label": True}, "the label True is no choice"),
    ],
)
def test_bad_records_are_named(tokenizer, changed, message):
    with pytest.raises(DataError, match=message):
        mc.features({**RECORD, **changed}, tokenizer, Records(), 64)


def test_loss_predictions_and_metrics(tokenizer):
    """Two examples in one row, with padding: the cross-entropy of each is among its own choices."""
    records = [RECORD, {"choices": ["a", "b c", "d"], "label": 0}]
    examples = [mc.features(record, tokenizer, Records(), 64)[0] for record in records]
    sizes = [len(example["tokens"]) for example in examples]
    batch = {name: jnp.asarray([sum((e[name] for e in examples), []) + [0, 0]], jnp.float32) for name in ("tokens", *mc.COLUMNS)}
    batch["groups"] = jnp.asarray([[1] * sizes[0] + [2] * sizes[1] + [0, 0]])
    logits = np.random.default_rng(0).standard_normal(sum(sizes) + 2).astype(np.float32)
    outputs = np.split(logits[:-2], [sizes[0]])
    model = types.SimpleNamespace(apply=lambda variables, tokens, **more: types.SimpleNamespace(logits=variables["params"]))
    total, weight = mc.loss(model, jnp.asarray(logits[None]), batch, None)
    found = mc.predictions(outputs, examples, Records())
    wanted = -sum(np.log(row["probabilities"][record["label"]]) for row, record in zip(found, records, strict=True))
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    assert weight == 2.0 and all(abs(sum(row["probabilities"]) - 1) < 1e-9 for row in found)
    assert [row["label"] for row in found] == [int(np.argmax(row["probabilities"])) for row in found]
    hits = [row["label"] == record["label"] for row, record in zip(found, records, strict=True)]
    assert mc.metrics(outputs, examples, Records()) == {"accuracy": np.mean(hits)}
    examples[0]["about"]["label"] = None
    assert mc.metrics(outputs, examples, Records()) == {"accuracy": float(hits[1])}
    assert mc.metrics(outputs[:1], examples[:1], Records()) == {}
    with pytest.raises(ConfigError, match="not for task=multiple-choice"):
        mc.loss(model, jnp.asarray(logits[None]), batch, None, Loss(z_loss=0.1))


def test_what_is_decided_is_one_of_the_choices(tokenizer):
    records = [RECORD, {"choices": ["a", "b c", "d"]}]
    draw = np.random.default_rng(1)
    for record in records:
        (example,) = mc.features(record, tokenizer, Records(), 64)
        output = draw.standard_normal(len(example["tokens"])).astype(np.float32)
        logits, labels = mc.decisions(output, example, Records())
        assert logits.dtype == np.float64 and logits.shape == (1, len(record["choices"])) and labels.tolist() == [record.get("label", -1)]
        np.testing.assert_array_equal(logits[0], output[np.array(example["candidates"]) > 0])
        np.testing.assert_array_equal(mc.decided(output, example, logits, Records()), output)
        logs = np.log(draw.dirichlet(np.ones(logits.shape[1])))[None]
        made = mc.decided(output, example, logs, Records())
        np.testing.assert_array_equal(mc.decisions(made, example, Records())[0], logs)
        (found,) = mc.predictions([made], [example], Records())
        np.testing.assert_allclose(found["probabilities"], np.exp(logs[0]), rtol=1e-12)
        assert made is not output and not np.shares_memory(made, output)
