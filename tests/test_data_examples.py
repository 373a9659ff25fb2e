"""The store of labelled examples, its batches in three packings, and the division of records."""

import collections

import numpy as np
import pytest

from jaxlm import config
from jaxlm.data.example_batches import ExampleBatches, Noise, plan
from jaxlm.data.examples import FILE, in_memory, open_examples, write_examples
from jaxlm.data.selection import HELD, TRAIN, UNUSED, record_hash, select
from jaxlm.errors import ConfigError, DataError

PACKINGS = ("padded", "packed", "buckets")


def make(count=50, seed=0):
    """Examples of 3 to 30 tokens; example i holds tokens 100 i + place, and label i."""
    lengths = np.random.default_rng(seed).integers(3, 31, count)
    for i, n in enumerate(map(int, lengths)):
        tokens = [100 * i + place for place in range(n)]
        whole = {"labels": i, "weights": 1.0, "flags": [float(i % 2), 1.0]}
        yield (
            i // 2,
            {"tokens": tokens, "spots": [float(place == 1) for place in range(n)], "whole": whole, "cut": i % 3, "about": {"i": i}},
        )


def batches(packing, seed=7, size=4, noise=None):
    examples = in_memory(make())
    return ExampleBatches(examples, plan(examples, packing, 32, seed), size, seed, noise)


def test_a_store_gives_back_what_was_written_and_names_damage(tmp_path):
    write_examples(tmp_path / "s" / "train", make(), {"task": "x"})
    found, wanted = open_examples(tmp_path / "s" / "train"), list(make())
    assert len(found) == 50 and found.cut == sum(example["cut"] for _, example in wanted) and found.cut_records == 25
    for i in (0, 17, 49):
        example = wanted[i][1]
        assert found.column("tokens", i).tolist() == example["tokens"] and found.column("spots", i).tolist() == example["spots"]
        assert found.column("labels", i).tolist() == [i] and found.column("flags", i).tolist() == [[i % 2, 1.0]]
        assert found.about(i) == {"i": i, "record": i // 2}
    assert found.column("labels", 0).dtype == np.int32 and found.column("weights", 0).dtype == np.float32
    content = bytearray((tmp_path / "s" / "train" / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "s" / "train" / FILE).write_bytes(content)
    with pytest.raises(DataError, match=f"damaged.*delete {tmp_path}/s"):
        open_examples(tmp_path / "s" / "train")


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_example_once_an_epoch_whole_and_in_its_place(packing):
    made = batches(packing)
    orders = []
    for epoch in range(2):
        seen, order = collections.Counter(), []
        for step in range(epoch * made.count, (epoch + 1) * made.count):
            rows = made.rows(step, 0, 4)
            assert rows["tokens"].dtype == rows["segments"].dtype == rows["labels"].dtype == np.int32
            for line, (members, _) in enumerate(zip(made.members(step)[0], range(4), strict=True)):
                for group, example in enumerate(members, 1):
                    mine = rows["groups"][line] == group
                    assert rows["tokens"][line][mine].tolist() == list(made.examples.column("tokens", example))
                    assert (rows["segments"][line][mine] == group).all()
                    first = np.flatnonzero(mine)[0]
                    assert rows["labels"][line, first] == example and rows["weights"][line, first] == 1
                    assert rows["flags"][line, first].tolist() == [example % 2, 1.0]
                    seen[example] += 1
                    order.append(example)
                assert rows["weights"][line].sum() == len(members)
            assert (rows["tokens"][rows["groups"] == 0] == 0).all()
        assert seen == collections.Counter(range(50))
        orders.append(order)
    assert orders[0] != orders[1] and made.epoch(made.count) == 1


@pytest.mark.parametrize("packing", PACKINGS)
def test_hosts_agree_and_nothing_depends_on_history(packing):
    made, again = batches(packing), batches(packing)
    for step in (0, 5, 23):
        whole, parts = made.rows(step, 0, 4), [again.rows(step, at, at + 2) for at in (0, 2)]
        assert all((np.concatenate([part[name] for part in parts]) == whole[name]).all() for name in whole)


def test_packing_wastes_little_and_buckets_few():
    real = int(in_memory(make()).lengths.sum())
    space = {name: sum(made.rows(step, 0, 4)["tokens"].size for step in range(made.count)) for name in PACKINGS for made in [batches(name)]}
    assert real / space["packed"] > 0.85 > real / space["padded"]
    assert len({bucket.length for bucket in batches("buckets").buckets}) > 2


def test_an_evaluation_takes_every_example_once_in_order():
    examples = in_memory(make())
    made = ExampleBatches(examples, plan(examples, "padded", 32, None), 8, None)
    assert [row for step in range(made.count) for row in made.members(step)[0]] == [(i,) for i in range(50)] + [()] * 6


def test_noise_spares_and_is_a_function_of_the_row():
    noise = Noise(0.5, 9999, (100, 200), seed=3)
    plain, noised, again = (
        batches("padded").rows(3, 0, 4),
        batches("padded", noise=noise).rows(3, 0, 4),
        batches("padded", noise=noise).rows(3, 2, 4),
    )
    changed = plain["tokens"] != noised["tokens"]
    assert 0.3 < changed.mean() < 0.7 and (noised["tokens"][changed] == 9999).all()
    assert (again["tokens"] == noised["tokens"][2:]).all()
    tokens = np.full((1, 1000), 100, np.int32)
    assert (noise(tokens, np.array([0])) == 100).all()


def test_texts_of_one_example_are_numbered_through():
    example = {"tokens": [1, 2, 3, 4], "segments": [1, 1, 2, 2], "whole": {"labels": 0}, "cut": 0}
    examples = in_memory([(0, example), (1, example)])
    rows = ExampleBatches(examples, plan(examples, "packed", 8, None), 1, None).rows(0, 0, 1)
    assert rows["segments"].tolist() == [[1, 1, 2, 2, 3, 3, 4, 4]] and rows["groups"].tolist() == [[1] * 4 + [2] * 4]


def test_no_row_is_longer_than_asked():
    for packing in PACKINGS:
        assert max(bucket.length for bucket in plan(in_memory(make()), packing, 30, 0)) <= 30


def test_a_host_whose_rows_are_all_padding():
    examples = in_memory(make(count=5))
    made = ExampleBatches(examples, plan(examples, "padded", 32, 0), 4, 0)
    step = next(step for step in range(2) if () in made.members(step)[0])
    rows = made.rows(step, 2, 4)
    assert rows.keys() == made.rows(step, 0, 2).keys() and not rows["weights"].any() and rows["flags"].shape == (*rows["tokens"].shape, 2)


def test_unknown_packing_and_no_examples():
    with pytest.raises(ConfigError, match="data.packing.*packed"):
        plan(in_memory(make()), "pack", 32, 0)
    with pytest.raises(DataError, match="no example"):
        plan(in_memory([]), "packed", 32, 0)


def records(count=300):
    return [{"text": f"text {i}", "label": "abc"[min(2, i % 7)]} for i in range(count)]


def sides(rows, **data):
    return select([record_hash(row) for row in rows], [row["label"] for row in rows], config.Data(**data))


def test_shares_are_even_in_every_label_and_do_not_depend_on_the_order():
    rows = records()
    found = sides(rows, validation=0.2)
    for label in "abc":
        mine = np.array([row["label"] == label for row in rows])
        assert abs((found[mine] == HELD).mean() - 0.2) < 0.02
    assert (sides(rows[::-1], validation=0.2)[::-1] == found).all()
    assert (sides(rows, validation=0.0) == TRAIN).all()


def test_folds_hold_out_every_record_once_and_fractions_are_nested():
    rows = records()
    folds = [sides(rows, fold=(k, 5)) == HELD for k in range(5)]
    assert (np.sum(folds, axis=0) == 1).all() and max(map(np.sum, folds)) - min(map(np.sum, folds)) <= 3
    small, large = sides(rows, fraction=0.1), sides(rows, fraction=0.3)
    held = sides(rows) == HELD
    assert ((small == HELD) == held).all() and ((large == HELD) == held).all()
    assert (large[small == TRAIN] == TRAIN).all() and abs((small == TRAIN).mean() - 0.095) < 0.02 and (small == UNUSED).any()


def test_rare_labels_share_what_is_held_out():
    """Of 200 records with 20 labels 5 % are 10, though no label has 20 records."""
    rows = [{"text": f"text {i}", "label": f"label {i % 20}"} for i in range(200)]
    assert (sides(rows, validation=0.05) == HELD).sum() == 10


def test_equal_records_stay_together():
    rows = records(100) * 3
    found = sides(rows, validation=0.3).reshape(3, 100)
    assert (found == found[0]).all() and (found == HELD).any()


def test_what_cannot_be_divided():
    with pytest.raises(DataError, match="the label 'z' has 2 different records and 5 folds need"):
        sides([*records(), {"text": "1", "label": "z"}, {"text": "2", "label": "z"}], fold=(0, 5))
    for wrong in ({"fold": (5, 5)}, {"fraction": 0.0}, {"validation": 1.0}):
        with pytest.raises(ConfigError, match="data\\."):
            sides(records(), **wrong)
