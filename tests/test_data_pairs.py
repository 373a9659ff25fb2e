"""Batches of pairs: two lengths at once in every packing, batches of a fixed number of tokens, and what a store must hold."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data import pair_rows
from jaxlm.data.example_batches import ExampleBatches, Noise, plan
from jaxlm.data.examples import in_memory, open_examples, write_examples
from jaxlm.data.pair_rows import PairShape
from jaxlm.errors import DataError

PACKINGS = ("padded", "packed", "buckets")
ROOM = (32, 24)


def example(number, source, target):
    """A pair whose tokens are 1000 * number + place, those of its target negative."""
    tokens = [1000 * number + place for place in range(1, source + 1)]
    targets = [-1000 * number - place for place in range(1, target + 1)]
    return number, {"tokens": tokens, "targets": targets, "cut": 0, "about": {}}


def make(count=60, seed=0, room=ROOM):
    draw = np.random.default_rng(seed)
    return in_memory(example(i + 1, draw.integers(1, room[0] + 1), draw.integers(0, room[1] + 1)) for i in range(count))


def batches(examples, packing, seed=7, size=4, noise=None, **shape):
    made = plan(examples, packing, ROOM[0], seed, PairShape(ROOM[1], **shape))
    return ExampleBatches(examples, made, size, seed, noise)


def check_row(made, rows, line, members):
    """Every example stands whole on both sides of the row, with one number, and nothing else does."""
    first = [made.examples.column("tokens", i) for i in members]
    second = [made.examples.column("targets", i) for i in members]
    for texts, values, segments in ((first, "tokens", "segments"), (second, "targets", "target_segments")):
        padding = [0] * (rows[values].shape[1] - sum(map(len, texts)))
        assert rows[values][line].tolist() == [int(x) for text in texts for x in text] + padding
        assert rows[segments][line].tolist() == [n for n, text in enumerate(texts, 1) for _ in text] + padding
    assert (rows["groups"][line] == rows["segments"][line]).all()
    assert (rows["weights"][line] == (rows["target_segments"][line] > 0)).all()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, ROOM[0]), st.integers(0, ROOM[1])), min_size=1, max_size=40),
    seed=st.one_of(st.none(), st.integers(0, 99)),
    tokens=st.sampled_from([None, 60, 300]),
    packing=st.sampled_from(PACKINGS),
)
def test_every_pair_once_an_epoch_whole_with_one_number_on_both_sides(lengths, seed, tokens, packing):
    examples = in_memory(example(i, *pair) for i, pair in enumerate(lengths, 1))
    made = batches(examples, packing, seed, batch_tokens=tokens, multiple=2)
    for epoch in (0, 3):
        seen = collections.Counter()
        for step in range(epoch * made.count, (epoch + 1) * made.count):
            members, bucket = made.members(step)
            rows = made.rows(step, 0, made.rows_of(step))
            assert len(members) == made.rows_of(step) == len(rows["tokens"]) and made.rows_of(step) % 2 == 0
            assert rows["tokens"].shape[1] == bucket.length <= ROOM[0] and rows["targets"].shape[1] == bucket.target_length <= ROOM[1]
            assert {name: values.dtype for name, values in rows.items() if values.dtype != np.int32} == {"weights": np.float32}
            for line, row in enumerate(members):
                check_row(made, rows, line, row)
                seen.update(row)
        assert seen == collections.Counter(range(len(lengths)))


@pytest.mark.parametrize("packing", PACKINGS)
def test_hosts_agree_resume_is_free_and_epochs_differ(packing):
    made, again = (batches(make(), packing, batch_tokens=400, multiple=4) for _ in range(2))
    for step in (made.count + 1, 0, 7 * made.count):  # in any order
        size = made.rows_of(step)
        whole = made.rows(step, 0, size)
        parts = [again.rows(step, at, at + size // 4) for at in range(0, size, size // 4)]
        assert all((np.concatenate([part[name] for part in parts]) == whole[name]).all() for name in whole)
    first, second = ([made.members(e * made.count + step)[0] for step in range(made.count)] for e in (0, 1))
    assert sorted(sum(first, [])) == sorted(sum(second, [])) and made.epoch(made.count) == 1
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))  # other rows together, not the same batches in another order


def test_a_batch_holds_a_fixed_number_of_tokens():
    made = batches(make(500), "buckets", batch_tokens=400, multiple=4)
    assert len(made.buckets) > 2 and len({bucket.rows_per_batch for bucket in made.buckets}) > 2
    for bucket in made.buckets:
        tokens = bucket.length + bucket.target_length
        assert bucket.rows_per_batch == max(4, 400 // tokens // 4 * 4)
    assert {made.rows_of(step) for step in range(made.count)} == {bucket.rows_per_batch for bucket in made.buckets}
    assert {batches(make(), "buckets").rows_of(step) for step in range(20)} == {4}
    assert {batches(make(), "packed", batch_tokens=200).rows_of(step) for step in range(9)} == {200 // sum(ROOM)}


def test_buckets_are_few_waste_little_and_are_no_more_than_they_are_worth(monkeypatch):
    draw = np.random.default_rng(1)
    lengths = np.stack([draw.integers(1, 513, 20000), draw.integers(1, 257, 20000)], 1)
    found = pair_rows.plan_pairs("buckets", lengths, np.arange(20000), 512, PairShape(256, 8192, 8))
    cost = sum(len(part.rows) * (part.length + part.target_length) for part in found)
    assert 4 < len(found) <= pair_rows.MOST and lengths.sum() / cost > 0.75  # padded: 0.5
    small = pair_rows.plan_pairs("buckets", lengths[:40], np.arange(40), 512, PairShape(256, None, 32))
    assert len(small) <= 2  # a batch of its own for every shape would be empty for the most part
    monkeypatch.setattr(pair_rows, "WORTH", 0.0)
    assert len(pair_rows.plan_pairs("buckets", lengths, np.arange(20000), 512, PairShape(256))) == pair_rows.MOST


def test_packing_fills_both_sides():
    """Lengths as in captions: normal, mean 16 and 15, and alike."""
    draw = np.random.default_rng(2)
    source = np.clip(draw.normal(16, 5, 4000), 4, 48).astype(int)
    target = np.clip(source * draw.normal(0.95, 0.2, 4000), 3, 50).astype(int)
    lengths = np.stack([source, target], 1)
    (part,) = pair_rows.plan_pairs("packed", lengths, np.arange(4000), 128, PairShape(128))
    shares = lengths.sum(0) / (128 * len(part.rows))
    assert shares[0] > 0.97 and shares[1] > 0.9
    assert sorted(i for row in part.rows for i in row) == list(range(4000))


def test_a_full_row_takes_no_more_of_either_side():
    rows = pair_rows.first_fit(np.array([[2, 2], [8, 1], [1, 8], [8, 8]]), np.array([10, 10]))
    assert sorted(map(sorted, rows)) == [[0, 3], [1, 2]]


def test_pairs_without_targets_and_a_store_without_the_column():
    """Prediction: nothing is known of the other side."""
    examples = in_memory(example(i, 5, 0) for i in range(1, 8))
    for packing in PACKINGS:
        rows = batches(examples, packing, None).rows(0, 0, 4)
        assert rows["targets"].shape[1] > 0 and not rows["targets"].any() and not rows["weights"].any()
        assert rows["targets"].dtype == np.int32 and rows["tokens"].any()
    one_sided = in_memory((i, {"tokens": [i, i], "cut": 0}) for i in range(1, 8))
    assert one_sided.target_lengths is None
    made = batches(one_sided, "padded", None, batch_tokens=64)
    assert made.rows(0, 0, 4).keys() == {"tokens", "segments", "groups"} and made.rows_of(0) == 4


def test_a_host_whose_rows_are_all_padding():
    made = batches(make(5), "padded", seed=None)
    rows, empty = made.rows(1, 0, 2), made.rows(1, 2, 4)
    assert {name: values.shape for name, values in rows.items()} == {name: values.shape for name, values in empty.items()}
    assert rows["tokens"].any() and not any(values.any() for values in empty.values())


def test_weights_of_their_own_stay(tmp_path):
    """A store on disk, of pairs that count in part, one of them without targets."""
    rows = [(0, {**example(1, 3, 2)[1], "weights": [0.0, 0.5]}), (1, {**example(2, 2, 0)[1], "weights": []})]
    write_examples(tmp_path / "s" / "train", rows, {})
    examples = open_examples(tmp_path / "s" / "train")
    assert examples.lengths.tolist() == [3, 2] and examples.target_lengths.tolist() == [2, 0]
    found = batches(examples, "packed", None).rows(0, 0, 1)
    assert found["weights"][0, :3].tolist() == [0.0, 0.5, 0.0] and found["target_segments"][0, :3].tolist() == [1, 1, 0]
    assert found["targets"].dtype == np.int32 and found["segments"][0, :6].tolist() == [1, 1, 1, 2, 2, 0]


def test_noise_draws_anew_for_every_row_where_batches_differ_in_rows():
    seen = []

    def noise(tokens, lines):
        seen.extend(lines.tolist())
        return tokens

    made = batches(make(200), "buckets", noise=noise, batch_tokens=400)
    for step in range(made.count):
        made.rows(step, 0, made.rows_of(step))
    assert len(seen) == len(set(seen)) and len({made.rows_of(step) for step in range(made.count)}) > 1
    noised = batches(make(200), "buckets", noise=Noise(0.5, 9, (), 1), batch_tokens=400)
    assert not (noised.rows(3, 0, 2)["targets"] == 9).any() and (noised.rows(3, 0, 2)["tokens"] == 9).any()


def test_a_pair_that_is_longer_than_a_row_is_refused():
    with pytest.raises(DataError, match=r"24 target tokens and a row holds data.target_length=20: raise it"):
        plan(in_memory([example(1, 3, 24)]), "packed", 32, 0, PairShape(20))
    with pytest.raises(DataError, match=r"33 source tokens and a row holds data.sequence_length=32"):
        plan(in_memory([example(1, 33, 2)]), "padded", 32, 0)
