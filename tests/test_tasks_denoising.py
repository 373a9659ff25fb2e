"""Pre-training of encoder-decoders: rows filled exactly, the same on any hosts and by any loader; losses; learning; filled gaps."""

import dataclasses
import functools
import re

import jax
import numpy as np
import optax
import pytest
from test_models_contract import config_of

from jaxlm.config import Data, Denoising, Loss, Run
from jaxlm.data.batches import Kind, evaluation_batches, make_batches
from jaxlm.data.loader import LOADERS, load
from jaxlm.data.store import open_store, write_manifest, write_shard
from jaxlm.errors import ConfigError, DataError
from jaxlm.inference.fill_spans import fill_spans, merge
from jaxlm.inference.generate import Generated
from jaxlm.models import init_params, make_model
from jaxlm.ops.noise import Vocabulary, make_vocabulary
from jaxlm.tasks import denoising, span_corruption
from jaxlm.text.tokenizer import load_tokenizer
from jaxlm.text.training import Settings, train_tokenizer

V, B, S, EOS, MASK = 64, 8, 24, 1, 4
SENTINELS = tuple(range(V - 1, V - 9, -1))
IDS = np.arange(V)
VOCABULARY = Vocabulary(MASK, None, None, (IDS < 5) | (IDS > 55), np.arange(5, 56, dtype=np.int32), None, EOS, 2, SENTINELS, IDS == 5)
SPANS = Run(task="span-corruption", data=Data(sequence_length=S))
PREFIX = dataclasses.replace(SPANS, denoising=Denoising(prefix=True))
BART = Run(task="denoising", data=Data(sequence_length=S), denoising=Denoising(density=0.3))
DOCUMENTS = dataclasses.replace(BART, data=Data(sequence_length=S, packing="documents"))
RUNS = {
    "spans": (span_corruption, SPANS),
    "prefix": (span_corruption, PREFIX),
    "bart": (denoising, BART),
    "documents": (denoising, DOCUMENTS),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Documents that count up from anywhere, and end."""
    random = np.random.default_rng(0)
    texts = [[*(5 + (np.arange(random.integers(8, 40)) + random.integers(50)) % 50).tolist(), EOS] for _ in range(200)]
    folder = tmp_path_factory.mktemp("store") / "train"
    folder.mkdir()
    write_manifest(folder, [write_shard(folder / "00000.arrow", texts, [1] * 200, V)], "digest", V)
    return open_store(folder)


def batches_of(store, name):
    task, run = RUNS[name]
    data = dataclasses.replace(run.data, sequence_length=task.row_length(run))
    return make_batches([store], [1.0], data, B, 0, Kind("own", VOCABULARY))


def batch_of(store, name, step=0, start=0, stop=B):
    (task, run), rows = RUNS[name], batches_of(store, name)
    return task.features(rows.rows(step, start, stop), VOCABULARY, rows.draws(step, start, stop), run)


@pytest.mark.parametrize("name", RUNS)
def test_hosts_micro_batches_and_loaders_agree_and_steps_differ(store, name):
    whole = batch_of(store, name, 1)
    parts = [batch_of(store, name, 1, start, start + 4) for start in (0, 4)]
    for column in whole:
        np.testing.assert_array_equal(whole[column], np.concatenate([part[column] for part in parts]))
    assert not np.array_equal(whole["tokens"], batch_of(store, name, 2)["tokens"])
    (task, run), rows = RUNS[name], batches_of(store, name)
    stacked = {column: np.stack([array[:4], array[4:]]) for column, array in rows.rows(1, 0, B).items()}
    made = task.features(stacked, VOCABULARY, rows.draws(1, 0, B).reshape(2, 4), run)
    assert all(np.array_equal(made[column].reshape(whole[column].shape), whole[column]) for column in whole)
    for loader in LOADERS if name == "spans" else ["threads"]:
        (found,) = load(loader, lambda step: batch_of(store, name, step), range(1, 2), 1)
        assert all(np.array_equal(found[column], whole[column]) and found[column].dtype == whole[column].dtype for column in whole)


def test_rows_fill_both_sides_exactly(store):
    assert span_corruption.row_length(SPANS) == 26 and span_corruption.target_length(SPANS) == 6
    for step in range(3):
        batch = batch_of(store, "spans", step)
        assert batch["tokens"].shape == (B, S) and batch["targets"].shape == (B, 6)
        assert all(batch[name].all() for name in ("segments", "target_segments", "weights"))
    flax = dataclasses.replace(SPANS, data=Data(sequence_length=512))
    assert (span_corruption.row_length(flax), span_corruption.target_length(flax)) == (568, 114)
    assert denoising.row_length(BART) == S - 1 and batch_of(store, "bart")["weights"].all()


@pytest.mark.parametrize("name", RUNS)
def test_segments_agree_on_both_sides(store, name):
    batch = batch_of(store, name)
    assert batch["tokens"].dtype == batch["target_segments"].dtype == np.int32 and batch["weights"].dtype == np.float32
    np.testing.assert_array_equal(batch["weights"], batch["target_segments"] > 0)
    for source, target in zip(batch["segments"], batch["target_segments"], strict=True):
        assert set(source) - {0} == set(target) - {0} and (name == "documents" or set(source) <= {0, 1})
    assert name != "documents" or batch["segments"].max() > 1


@pytest.mark.parametrize("name", ["spans", "bart"])
def test_an_evaluation_sees_every_token_once(store, name):
    task, run = RUNS[name]
    data = dataclasses.replace(run.data, sequence_length=task.row_length(run))
    rows = evaluation_batches(store, data, B, EOS, Kind("own", VOCABULARY))
    seen = 0
    for step in range(rows.count):
        given = rows.rows(step, 0, B)
        made = task.features(given, VOCABULARY, rows.draws(step, 0, B), run)
        ends = (made["segments"] > 0).any(1).sum()
        seen += (made["weights"] > 0).sum() - ends
        if name == "spans":
            gaps = np.isin(made["tokens"], SENTINELS).sum()
            seen += (made["segments"] > 0).sum() - ends - 2 * gaps
    assert seen == store.tokens


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="data.packing=documents: task=span-corruption"):
        span_corruption.row_length(dataclasses.replace(DOCUMENTS, task="span-corruption"))
    with pytest.raises(ConfigError, match="data.target_length=5 is less than the 6 tokens"):
        span_corruption.row_length(dataclasses.replace(SPANS, data=Data(sequence_length=S, target_length=5)))
    for change, says in (
        ({"prefix": True}, "denoising.prefix=true is of task=span-corruption"),
        ({"span": 0.5}, "denoising.span=0.5: it is at least 1"),
        ({"random": 1.5}, "denoising.random=1.5: it is from 0 to 1"),
    ):
        with pytest.raises(ConfigError, match=says):
            denoising.row_length(dataclasses.replace(BART, denoising=Denoising(**change)))
    for task, run in ((denoising, BART), (span_corruption, PREFIX)):
        with pytest.raises(ConfigError, match="and one is 1|data.target_length=1: both are at least 2"):
            task.row_length(dataclasses.replace(run, data=Data(sequence_length=S, target_length=1)))


@functools.cache
def made(model_type):
    """One layer on each side, without dropout."""
    change = {"t5": {"num_layers": 1}, "bart": {"encoder_layers": 1, "decoder_layers": 1}}[model_type]
    model = make_model(dataclasses.replace(config_of(model_type), **change))
    return model, jax.jit(lambda: init_params(model, jax.random.key(0)))()


@pytest.mark.parametrize(("name", "model_type"), [("spans", "t5"), ("documents", "bart")])
def test_training_learns(store, name, model_type):
    """From rows of both tasks: the loss falls far below its start."""
    task, (model, params) = RUNS[name][0], made(model_type)
    rule = optax.adam(1e-2)
    state = rule.init(params)

    @jax.jit
    def step(params, state, batch):
        mean = lambda params: (lambda total, weight: total / weight)(*task.loss(model, params, batch, None, Loss()))
        loss, grads = jax.value_and_grad(mean)(params)
        updates, state = rule.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for i in range(30):
        params, state, loss = step(params, state, batch_of(store, name, i))
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3]), losses


TEXTS = ["The cat sat on the mat. And the dog ran over the hill! It saw the moon."] * 40


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "word"])
def test_a_tokenizer_trained_for_the_task_has_what_it_needs(kind, tmp_path):
    plain, more = (train_tokenizer(kind, TEXTS, 300, settings) for settings in (Settings(), Settings(sentinels=100, mask=True)))
    found = make_vocabulary(more, ("eos", "mask", "sentinels"))
    added = 100 + (plain.mask_id is None)
    assert more.vocab_size == plain.vocab_size + added and found.sentinels == tuple(range(more.vocab_size - 1, more.vocab_size - 101, -1))
    assert found.special[list(found.sentinels)].all() and found.ends.any() and not found.ends[list(found.sentinels)].any()
    text = "the cat <extra_id_1> the"
    assert not set(found.sentinels) & set(more.encode(text)) and found.sentinels[1] in more.encode(text, allow_special=True)
    more.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.digest == more.digest and again.mask_id == more.mask_id
    assert make_vocabulary(again, ("sentinels",)).sentinels == found.sentinels


def test_a_tokenizer_without_what_the_task_needs_is_refused():
    characters, plain = train_tokenizer("char", TEXTS, 0), train_tokenizer("bpe", TEXTS, 300)
    with pytest.raises(ConfigError, match="no token that ends a text"):
        make_vocabulary(characters, span_corruption.needs(PREFIX))
    with pytest.raises(ConfigError, match="no sentinels <extra_id_0>, .*: set tokenizer.path to a T5's, or leave it out"):
        make_vocabulary(plain, span_corruption.needs(SPANS))
    with pytest.raises(ConfigError, match="no mask token"):
        make_vocabulary(plain, denoising.needs(BART))
    with pytest.raises(ConfigError, match="a char tokenizer has no control tokens"):
        train_tokenizer("char", TEXTS, 0, Settings(**span_corruption.TOKENIZER))
    assert make_vocabulary(plain, span_corruption.needs(PREFIX)).mask_id is None


WORDS = "<pad> </s> <unk> <s> <mask>".split() + [chr(97 + i) for i in range(26)] + ["<extra_id_1>", "<extra_id_0>"]


class Letters:
    """A tokenizer of letters: "a<extra_id_0>c"."""

    vocab_size, mask_id, eos_id = len(WORDS), MASK, EOS
    controls = {name: i for i, name in enumerate(WORDS) if len(name) > 1}  # noqa: RUF012

    def encode(self, text, *, allow_special=False):
        assert allow_special
        return [WORDS.index(piece) for piece in re.findall(r"<\w+>|.", text)]

    def decode(self, ids):
        return "".join(WORDS[i] for i in ids)

    def piece(self, i):
        return WORDS[i]


def test_spans_are_put_in_the_place_of_their_sentinels():
    e0, e1 = WORDS.index("<extra_id_0>"), WORDS.index("<extra_id_1>")
    assert merge([5, e0, 6, e1, EOS], [e0, 9, 9, e1, 8], (e0, e1)) == [5, 9, 9, 6, 8, EOS]
    assert merge([5, e0, 6, e1], [7, e1, 8], (e0, e1)) == [5, 6, 8]  # not asked for, missing
    assert merge([5, e0], [], (e0, e1)) == [5]


def test_gaps_of_a_text_are_filled():
    """By what a model at random writes: it may be anything, but the text around the gaps stays."""
    model, params = made("t5")
    only = {"suppress_tokens": list(range(len(WORDS), V)), "max_new_tokens": 6}
    found = fill_spans(model, params, Letters(), "ab<extra_id_0>cd<extra_id_1>e", **only)
    assert re.fullmatch("ab[a-z]*cd[a-z]*e", found)
    for tokenizer, text in ((Letters(), "abc"), (Letters(), "ab<s>")):
        with pytest.raises(DataError, match="has no gap: put <extra_id_0> or <mask>"):
            fill_spans(model, params, tokenizer, text)


def test_a_whole_text_is_written_anew_and_encoders_write_none(monkeypatch):
    """BART's way: what is decoded is what the model wrote, up to its end; it was given the text with the end, and room for more."""
    asked = {}

    def write(model, params, tokens, **named):
        asked.update(named, tokens=tokens.tolist())
        return Generated(np.array([[3, 5, 6, 7, EOS, 9, 9]]), np.array([5]))

    monkeypatch.setattr("jaxlm.inference.fill_spans.generate", write)
    assert fill_spans(*made("bart"), Letters(), "a<mask>b", num_beams=4) == "abc"
    assert asked["tokens"] == [[5, MASK, 6, EOS]] and (asked["num_beams"], asked["max_new_tokens"]) == (4, 24)
    with pytest.raises(ConfigError, match="bert has no decoder that writes spans: use fill_mask"):
        fill_spans(make_model(config_of("bert"), task="masked-lm"), None, Letters(), "a<mask>b")
