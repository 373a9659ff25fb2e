"""Sequence classification: ids and cuts as transformers makes them, losses beside torch's, R-Drop, metrics beside scikit-learn's."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Loss, Records
from jaxlm.errors import ConfigError, DataError
from jaxlm.tasks import sequence_classification as task
from jaxlm.tasks.texts import fit_texts
from jaxlm.text.training import train_tokenizer

TEXTS = ["the cat sat on the mat", "a dog ran over the hill and far away", "moon", "unbelievably internationalization"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Ours, and transformers' of the same files."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("wordpiece")
    ours = train_tokenizer("wordpiece", TEXTS * 3, 120)
    ours.save(folder)
    return ours, transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")


@pytest.mark.parametrize("length", [6, 9, 14, 64])
def test_texts_and_pairs_are_cut_as_transformers_cuts_them(length, tokenizers):
    ours, theirs = tokenizers
    for text in TEXTS:
        for pair in (None, *TEXTS):
            found = fit_texts(ours, text, pair, length)
            wanted = theirs(text, pair, truncation="longest_first", max_length=length, return_token_type_ids=True)
            assert found.tokens == wanted["input_ids"]
            assert found.cut == len(ours.encode(*([text] if pair is None else [text, pair]))) - len(found.tokens)
            if pair is not None:
                assert found.token_types == wanted["token_type_ids"]


def test_no_room_and_no_text(tokenizers):
    with pytest.raises(DataError, match="sequence_length"):
        fit_texts(tokenizers[0], TEXTS[0], TEXTS[1], 4)
    for text, pair in (("", None), ("a", " \n")):
        with pytest.raises(DataError, match="empty"):
            fit_texts(tokenizers[0], text, pair, 9)


def example(record, tokenizers, **options):
    return task.features(record, tokenizers[0], Records(**options), 32)[0]


def test_targets_of_every_kind(tokenizers):
    labels = ("no", "yes", "maybe")
    one = example({"text": "cat", "label": "yes"}, tokenizers, labels=labels)
    assert one["whole"] == {"labels": 1, "weights": 1.0} and one["cut"] == 0
    for given in (["yes", "no"], "no, yes"):
        assert example({"text": "cat", "label": given}, tokenizers, labels=labels, kind="several")["whole"]["labels"] == [1.0, 1.0, 0.0]
    assert example({"text": "cat", "label": "2.5"}, tokenizers, kind="regression")["whole"]["labels"] == 2.5
    assert example({"text": "cat"}, tokenizers, labels=labels)["whole"] == {"labels": 0, "weights": 0.0}
    with pytest.raises(DataError, match="'yess' was never seen in training: did you mean 'yes'"):
        example({"text": "cat", "label": "yess"}, tokenizers, labels=labels)
    with pytest.raises(DataError, match="no number"):
        example({"text": "cat", "label": "nan"}, tokenizers, kind="regression")


class Table:
    """A model whose logits are a table's rows, one a token; under a key they are shaken."""

    def apply(self, variables, tokens, token_types=None, segments=None, key=None):
        logits = variables["params"][tokens]
        shaken = logits if key is None else logits + jax.random.normal(key, logits.shape)
        return types.SimpleNamespace(logits=shaken)


def batch(labels, tokens):
    labels = np.asarray(labels)
    return {
        "tokens": jnp.asarray(tokens),
        "labels": jnp.asarray(labels),
        "weights": jnp.asarray((np.asarray(tokens) < 3).astype(np.float32)),
    }


@pytest.fixture
def table():
    return jnp.asarray(np.random.default_rng(0).standard_normal((6, 3), np.float32) * 2)


TOKENS = np.array([[0, 4, 5, 1], [2, 3, 3, 5]], np.int32)  # those below 3 carry a label


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_equal_torch(table, smoothing):
    torch = pytest.importorskip("torch")
    places = TOKENS < 3
    logits, options = torch.tensor(np.asarray(table)[TOKENS[places]]), Loss(label_smoothing=smoothing)
    ids = np.where(places, [[2, 0, 0, 1], [0, 0, 0, 0]], 0).astype(np.int32)
    total, weight = task.loss(Table(), table, batch(ids, TOKENS), None, options)
    want = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[places]).long(), reduction="sum", label_smoothing=smoothing)
    assert float(total) == pytest.approx(float(want), rel=1e-5) and float(weight) == 3
    flags = np.random.default_rng(1).integers(0, 2, (2, 4, 3)).astype(np.float32)
    total, _ = task.loss(Table(), table, batch(flags, TOKENS), None, options)
    smooth = torch.tensor(flags[places]) * (1 - smoothing) + smoothing / 2
    want = torch.nn.functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none").mean(1).sum()
    assert float(total) == pytest.approx(float(want), rel=1e-5)
    values = np.random.default_rng(2).standard_normal((2, 4)).astype(np.float32)
    with pytest.raises(ConfigError, match="label_smoothing"):
        task.loss(Table(), table[:, :1], batch(values, TOKENS), None, Loss(label_smoothing=0.1))
    total, _ = task.loss(Table(), table[:, :1], batch(values, TOKENS), None)
    want = torch.nn.functional.mse_loss(logits[:, 0], torch.tensor(values[places]), reduction="sum")
    assert float(total) == pytest.approx(float(want), rel=1e-5)


def test_r_drop_is_the_mean_loss_and_half_the_symmetric_divergence(table):
    ids, key = np.array([[2, 0, 0, 1], [0, 0, 0, 0]], np.int32), jax.random.key(0)
    found, _ = task.loss(Table(), table, batch(ids, TOKENS), key, Loss(r_drop=3.0))
    one, two = np.split(np.asarray(Table().apply({"params": table}, np.concatenate([TOKENS, TOKENS]), key=key).logits, np.float64), 2)
    log = lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))
    p, q, places = log(one), log(two), TOKENS < 3
    plain = -(np.take_along_axis(p, ids[..., None], -1) + np.take_along_axis(q, ids[..., None], -1))[..., 0][places].sum() / 2
    apart = ((np.exp(p) * (p - q)).sum(-1) + (np.exp(q) * (q - p)).sum(-1))[places].sum() / 2
    assert float(found) == pytest.approx(plain + 3 * apart, rel=1e-4)
    assert float(task.loss(Table(), table, batch(ids, TOKENS), None, Loss(r_drop=3.0))[0]) == pytest.approx(
        float(task.loss(Table(), table, batch(ids, TOKENS), None)[0])
    )


def test_metrics_and_predictions_of_every_kind():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    logits, labels = draw.standard_normal((40, 3)), draw.integers(0, 3, 40)
    outputs = [np.stack([row, row * 0]).astype(np.float32) for row in logits]
    rows = [{"labels": np.array([label]), "weights": np.array([1.0])} for label in labels]
    options = Records(labels=("a", "b", "c"))
    found, guess = task.metrics(outputs, rows, options), logits.argmax(1)
    assert found["accuracy"] == pytest.approx((guess == labels).mean())
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, guess, average="macro"))
    assert found["matthews"] == pytest.approx(metrics.matthews_corrcoef(labels, guess))
    first = task.predictions(outputs, rows, options)[0]
    assert first["label"] == "abc"[guess[0]] and sum(first["probabilities"].values()) == pytest.approx(1)
    flags = (draw.random((40, 3)) < 0.5).astype(np.float32)
    rows = [{"labels": row[None], "weights": np.array([1.0])} for row in flags]
    found = task.metrics(outputs, rows, Records(labels=("a", "b", "c"), kind="several"))
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(flags, logits > 0, average="micro"))
    assert found["exact"] == pytest.approx((flags == (logits > 0)).all(1).mean())
    several = task.predictions(outputs, rows, Records(labels=("a", "b", "c"), kind="several"))[0]
    assert several["labels"] == [name for name, x in zip("abc", logits[0], strict=True) if x > 0]
    unlabelled = [{"labels": np.array([0]), "weights": np.array([0.0])}] * 40
    assert task.metrics(outputs, unlabelled, options) == {}
