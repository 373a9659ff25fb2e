"""The permutation and the row plans: bijections, every prediction once, nothing across documents."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data.permutation import make_key, permute
from jaxlm.data.rows import EOS, InOrder, packed, windows
from jaxlm.errors import DataError

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(lambda x: np.array(x, np.int64))


def _all(plan, epoch):
    rows = np.arange(plan.rows)
    return plan.gather(np.full(plan.rows, epoch), rows)


def test_the_permutation_is_a_bijection_at_every_size():
    sizes = [*range(1, 600), *range(601, 10_001, 97), 4096, 4097, 10_000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in sizes:
            image = permute(np.arange(n), n, key=n * 7)
            assert np.array_equal(np.sort(image), np.arange(n)), n


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10_000), st.integers(0, 2**64 - 1))
def test_the_permutation_is_a_bijection_for_every_key(n, key):
    assert len(np.unique(permute(np.arange(n), n, key))) == n


@pytest.mark.slow
def test_the_permutation_is_a_bijection_at_each_of_ten_thousand_sizes():
    for n in range(1, 10_001):
        seen = np.zeros(n, bool)
        seen[permute(np.arange(n), n, key=n)] = True
        assert seen.all(), n


def test_the_permutation_at_two_to_the_forty():
    n = 2**40 + 1
    index = np.concatenate([np.arange(100_000), n - 1 - np.arange(100_000), np.arange(1, 100_000) * 10_000_019])
    image = permute(np.unique(index), n, key=3)
    assert len(np.unique(image)) == len(np.unique(index)) and image.min() >= 0 and image.max() < n
    assert abs(image.mean() / n - 0.5) < 0.01


def test_the_permutation_mixes():
    image = permute(np.arange(4096), 4096, make_key(0, 1))
    assert abs(np.corrcoef(np.arange(4096), image)[0, 1]) < 0.1
    assert (image == permute(np.arange(4096), 4096, make_key(0, 2))).mean() < 0.01
    seen = {tuple(permute(np.arange(3), 3, make_key(k)).tolist()) for k in range(100)}
    assert len(seen) == 6


def test_a_position_may_be_asked_for_alone():
    whole = permute(np.arange(1000), 1000, 5)
    assert [int(permute(np.array(i), 1000, 5)) for i in (0, 7, 999)] == whole[[0, 7, 999]].tolist()


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 12), st.integers(0, 3))
def test_windows_take_every_row_once_and_targets_follow(lengths, length, epoch):
    total = lengths.sum()
    if total < length + 1:
        with pytest.raises(DataError, match="data.sequence_length="):
            windows(lengths, 0, length)
        return
    plan = windows(lengths, 0, length)
    places = _all(plan, epoch)
    assert plan.rows == max(1, total // length)
    assert len(np.unique(places.inputs)) == plan.rows * length  # no token twice
    assert np.array_equal(places.inputs[:, 1:], places.targets[:, :-1])
    ends = np.cumsum(lengths) - 1
    inside = ~np.isin(places.inputs, ends)
    assert np.array_equal(places.targets[inside], places.inputs[inside] + 1)


def test_windows_are_cut_elsewhere_each_epoch_in_another_order():
    plan = windows(np.array([1001]), 0, 10)
    cuts = {int(_all(plan, epoch).inputs.min(axis=1)[0]) % 10 for epoch in range(8)}
    assert len(cuts) > 2
    first = _all(plan, 0).inputs[:, 0]
    assert not np.array_equal(np.sort(first), first)
    assert np.array_equal(first, _all(plan, 0).inputs[:, 0])
    assert not np.array_equal(first, _all(windows(np.array([1001]), 1, 10), 0).inputs[:, 0])


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 12), st.integers(0, 3))
def test_packing_predicts_every_token_but_a_documents_first_once(lengths, length, epoch):
    expected = np.setdiff1d(np.arange(lengths.sum()), np.cumsum(lengths) - lengths)
    if not len(expected):
        with pytest.raises(DataError, match="nothing to predict"):
            packed(lengths, 0, length)
        return
    places = _all(packed(lengths, 0, length), epoch)
    real = places.segments > 0
    assert np.array_equal(np.sort(places.targets[real]), expected)
    document = np.repeat(np.arange(len(lengths)), lengths)
    assert np.array_equal(document[places.inputs[real]], document[places.targets[real]])
    for row, inputs in zip(places.segments, places.inputs, strict=True):
        for segment in range(1, row.max() + 1):
            here = inputs[row == segment]
            assert np.array_equal(here, np.arange(here[0], here[0] + len(here)))


def test_packing_wastes_little_and_reorders_rows_each_epoch():
    lengths = np.random.default_rng(0).integers(2, 300, 20_000)
    plan = packed(lengths, 0, 256)
    places = _all(plan, 0)
    assert (places.segments > 0).mean() > 0.97
    assert not np.array_equal(places.inputs, _all(plan, 1).inputs)
    assert np.array_equal(np.sort(places.inputs, axis=None), np.sort(_all(plan, 1).inputs, axis=None))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 100), st.integers(1, 12), st.sampled_from([0, 1]))
def test_evaluation_predicts_every_token_once_in_order(total, length, skip):
    places = _all(InOrder(total, skip, length), 0)
    real = places.segments > 0
    assert places.targets[real].tolist() == list(range(skip, total))
    assert np.array_equal(places.inputs[real], places.targets[real] - 1)
    assert (places.inputs == EOS).sum() == (skip == 0)
