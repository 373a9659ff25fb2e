"""batch(step): pure, the same for any number of hosts, every row once an epoch, mixtures by quota, ids checked."""

import dataclasses
import types

import numpy as np
import pytest

from jaxlm import config
from jaxlm.data.batches import BLOCK, Kind, edges, evaluation_batches, make_batches, quotas
from jaxlm.data.store import open_store, write_manifest, write_shard
from jaxlm.errors import ConfigError, DataError

DATA = config.Data(sequence_length=16)
VOCABULARY = 50_000


def _store(directory, documents, tokenizer="digest", vocab_size=VOCABULARY):
    directory.mkdir(parents=True)
    half = len(documents) // 2
    shards = [
        write_shard(directory / f"{i:05d}.arrow", part, [len(ids) for ids in part], vocab_size)
        for i, part in enumerate((documents[:half], documents[half:]))
    ]
    write_manifest(directory, shards, tokenizer, vocab_size)
    return open_store(directory)


def _documents(seed, count=80, offset=0):
    """Documents whose concatenation counts up, so that a token names its position."""
    lengths = np.random.default_rng(seed).integers(1, 60, count)
    ends = np.cumsum(lengths)
    return [list(range(offset + end - n, offset + end)) for n, end in zip(lengths, ends, strict=True)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return _store(tmp_path_factory.mktemp("a") / "train", _documents(0))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return _store(tmp_path_factory.mktemp("b") / "train", _documents(1, 20, 10_000))


@pytest.fixture(params=["windows", "documents"])
def data(request):
    return dataclasses.replace(DATA, packing=request.param)


def _equal(one, two):
    return set(one) == set(two) and all(np.array_equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one)


def test_shapes_and_types(store, data):
    made = make_batches([store], [1.0], data, 8, seed=0).rows(3, 0, 8)
    kinds = {"tokens": np.int32, "targets": np.int32, "weights": np.float32}
    kinds |= {"segments": np.int32} if data.packing == "documents" else {}
    assert {name: value.dtype for name, value in made.items()} == kinds
    assert {value.shape for value in made.values()} == {(8, 16)}


def test_hosts_agree_and_history_does_not_matter(store, other, data):
    def make():
        return make_batches([store, other], [3, 1], data, 8, seed=5)

    batches = make()
    run = [batches.rows(step, 0, 8) for step in range(20)]
    for step in (19, 0, 7):
        parts = [make().rows(step, start, start + 2) for start in range(0, 8, 2)]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert _equal(whole, run[step])
    assert not _equal(make_batches([store, other], [3, 1], data, 8, seed=6).rows(0, 0, 8), run[0])


def test_every_row_once_an_epoch(store, data):
    batches = make_batches([store], [1.0], data, 1, seed=2)
    count = batches.plans[0].rows
    assert batches.epoch(count) == 1.0
    epochs = [np.concatenate([batches.rows(e * count + i, 0, 1)["targets"] for i in range(count)]) for e in (0, 1)]
    names = [name for i in range(count) for name in batches.example_ids(i)]
    assert len(set(names)) == count
    weights = np.concatenate([batches.rows(i, 0, 1)["weights"] for i in range(count)]) > 0
    assert len(np.unique(epochs[0][weights])) == weights.sum()
    assert not np.array_equal(*epochs)
    if data.packing == "documents":
        firsts = store.take(store.starts)
        assert np.array_equal(np.sort(epochs[0][weights]), np.setdiff1d(np.arange(store.tokens), firsts))


def test_targets_are_the_next_tokens_and_stay_in_their_document(store):
    batches = make_batches([store], [1.0], dataclasses.replace(DATA, packing="documents"), 200, seed=0)
    made = batches.rows(0, 0, 200)
    assert batches.epoch(1) > 1  # the row that is not full is among them
    real = made["segments"] > 0
    assert np.array_equal(made["targets"][real], made["tokens"][real] + 1)  # tokens count up within a document
    assert np.array_equal(made["weights"], real.astype(np.float32))
    assert (made["tokens"][~real] == 0).all() and (made["targets"][~real] == 0).all() and (~real).any()


def test_a_mixture_keeps_its_quotas_and_counts_epochs_by_source(store, other):
    batches = make_batches([store, other], [3, 1], DATA, 64, seed=0)
    source, epoch, row = (np.concatenate(x) for x in zip(*[batches._locate(step, 0, 64) for step in range(2 * BLOCK // 64)], strict=True))
    for block in (source[:BLOCK], source[BLOCK:]):
        assert np.bincount(block).tolist() == [768, 256]
    assert not np.array_equal(source[:BLOCK], source[BLOCK:])
    for k, plan in enumerate(batches.plans):
        mine = source == k
        order = epoch[mine] * plan.rows + row[mine]
        assert np.array_equal(order, np.arange(mine.sum()))  # one epoch after the other, each row once
    assert epoch[source == 1].max() > epoch[source == 0].max()


def test_quotas_are_largest_remainders():
    assert quotas([1, 1, 1]) == (342, 341, 341)
    assert quotas([0.5]) == (BLOCK,)
    assert quotas([2, 6]) == (256, 768)
    for weights in ([1, 0], [1, -1], [float("nan")], [1, 1e-9]):
        with pytest.raises(ConfigError, match="data.source"):
            quotas(weights)


@pytest.mark.parametrize("eos", [0, None])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_evaluation_predicts_every_token_once(store, batch_size, eos):
    batches = evaluation_batches(store, DATA, batch_size, eos)
    made = [batches.rows(step, 0, batch_size) for step in range(batches.count)]
    targets, weights, tokens = (np.concatenate([m[name] for m in made]) for name in ("targets", "weights", "tokens"))
    skip = 0 if eos == 0 else 1
    assert targets[weights > 0].tolist() == list(range(skip, store.tokens))
    inputs = tokens[weights > 0]
    assert np.array_equal(inputs[1 - skip :], np.arange(store.tokens - 1)) and (skip or inputs[0] == eos)


def test_evaluation_of_packed_documents(store):
    batches = evaluation_batches(store, dataclasses.replace(DATA, packing="documents"), 5, 0)
    made = [batches.rows(step, 0, 5) for step in range(batches.count)]
    targets = np.concatenate([m["targets"][m["weights"] > 0] for m in made])
    assert np.array_equal(np.sort(targets), np.setdiff1d(np.arange(store.tokens), store.starts))
    assert batches.example_ids(batches.count - 1)[-1] == "store 0 padding" or batches.plans[0].rows % 5 == 0


def test_ids_outside_the_vocabulary_name_the_document(tmp_path):
    documents = [[1, 2, 3, 4]] * 6
    documents[4] = [1, 2, 99, 4]
    store = _store(tmp_path / "bad", documents, vocab_size=10)
    batches = make_batches([store], [1.0], dataclasses.replace(DATA, sequence_length=20), 1, seed=0)
    with pytest.raises(DataError, match=rf"step 0: the id 99 in document 4 of the store {tmp_path}/bad"):
        for step in range(3):
            batches.rows(step, 0, 1)


def test_what_cannot_be_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match="data.packing='rows'"):
        make_batches([store], [1.0], dataclasses.replace(DATA, packing="rows"), 8, 0)
    with pytest.raises(DataError, match="data.sequence_length="):
        make_batches([store], [1.0], dataclasses.replace(DATA, sequence_length=10**6), 8, 0)
    foreign = _store(tmp_path / "foreign", _documents(3), tokenizer="another")
    with pytest.raises(DataError, match="different tokenizers"):
        make_batches([store, foreign], [1, 1], DATA, 8, 0)


CLS, SEP = 49_998, 49_999
PAIRS = Kind("next-sentence", types.SimpleNamespace(cls_id=CLS, sep_id=SEP, special=np.arange(VOCABULARY) >= CLS))


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """The documents between [CLS] and [SEP]."""
    documents = [[CLS, *ids, SEP] for ids in [[]] + _documents(0)]
    return _store(tmp_path_factory.mktemp("c") / "train", documents)


def test_rows_of_their_own_tokens(store, data):
    """Every token of the store is to be seen, a document's last one too; an evaluation says what is padding."""
    made = make_batches([store], [1.0], data, 8, 0, Kind("own")).rows(3, 0, 8)
    assert np.array_equal(made["tokens"], made["targets"]) and ("segments" in made) == (data.packing == "documents")
    batches = evaluation_batches(store, data, 5, 0, Kind("own"))
    found = [batches.rows(step, 0, 5) for step in range(batches.count)]
    tokens = np.concatenate([one["tokens"][one["segments"] > 0] for one in found])
    assert np.array_equal(np.sort(tokens), np.arange(store.tokens))


def test_pairs_have_special_tokens_types_and_labels_on_every_host(marked):
    assert edges(marked, PAIRS.vocabulary.special) == (1, 1)
    batches = make_batches([marked, marked], [1, 1], DATA, 8, 0, PAIRS)
    whole, parts = batches.rows(2, 0, 8), [batches.rows(2, start, start + 4) for start in (0, 4)]
    assert _equal(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})
    assert set(whole) == {"tokens", "targets", "weights", "segments", "token_types", "labels"}
    assert (whole["tokens"][:, 0] == CLS).all() and ((whole["tokens"] == SEP).sum(1) == 2).all()
    assert whole["labels"].shape == (8,) and set(np.concatenate([batches.rows(s, 0, 8)["labels"] for s in range(5)])) == {0, 1}
    assert len(batches.example_ids(2)) == 8 and "documents" in batches.example_ids(2)[0]
    evaluation = evaluation_batches(marked, DATA, 7, SEP, PAIRS)
    last = evaluation.rows(evaluation.count - 1, 0, 7)
    assert not last["tokens"][last["segments"] == 0].any()


def test_draws_are_by_seed_and_global_row(store, data):
    batches = make_batches([store], [1.0], data, 8, 5)
    draws = np.concatenate([batches.draws(step, 0, 8) for step in range(50)])
    assert draws.dtype == np.uint64 and len(np.unique(draws)) == 400
    assert np.array_equal(batches.draws(3, 4, 8), draws[28:32])
    assert not np.isin(make_batches([store], [1.0], data, 8, 6).draws(0, 0, 8), draws).any()


def test_pairs_that_do_not_fit_are_refused(marked):
    with pytest.raises(ConfigError, match="data.packing=documents does not fit task=next-sentence"):
        make_batches([marked], [1.0], dataclasses.replace(DATA, packing="documents"), 8, 0, PAIRS)
    bare = Kind("sentence-order", types.SimpleNamespace(cls_id=None, sep_id=SEP, special=PAIRS.vocabulary.special))
    with pytest.raises(ConfigError, match=r"needs a tokenizer with \[CLS\] and \[SEP\]"):
        make_batches([marked], [1.0], DATA, 8, 0, bare)
