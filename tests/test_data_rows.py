"""The permutation and the row plans: bijections, every prediction once, nothing across documents."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data.permutation import make_key, permute
from jaxlm.data.rows import CLS, EOS, SEP, InOrder, packed, pairs, windows
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


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 12))
def test_rows_of_their_own_tokens_hold_every_token_once(lengths, length):
    """Packed and in order each exactly once; windows leave out less than one row."""
    total = int(lengths.sum())
    document = np.repeat(np.arange(len(lengths)), lengths)
    for plan in (packed(lengths, 0, length, 0), InOrder(total, 0, length, 0)):
        places = _all(plan, 0)
        real = places.segments > 0
        assert np.array_equal(places.inputs, places.targets)
        assert np.array_equal(np.sort(places.inputs[real]), np.arange(total))
    for row, inputs in zip(*(lambda p: (p.segments, p.inputs))(_all(packed(lengths, 0, length, 0), 0)), strict=True):
        assert all(len(np.unique(document[inputs[row == segment]])) == 1 for segment in range(1, row.max() + 1))
    if total >= length:
        places = _all(windows(lengths, 0, length, 0), 1)
        assert np.array_equal(places.inputs, places.targets) and places.inputs.max() < total
        assert len(np.unique(places.inputs)) == places.inputs.size > total - length


def _texts(places, row):
    """A and B of a row of pairs, as positions."""
    line, kinds = places.inputs[row][places.segments[row] > 0], places.more["token_types"][row]
    middle, end = np.flatnonzero(line == SEP)
    assert line[0] == CLS and end == len(line) - 1 and (line == CLS).sum() == 1
    assert not kinds[: middle + 1].any() and kinds[middle + 1 : end + 1].all() and not kinds[end + 1 :].any()
    return line[1:middle], line[middle + 1 : end]


def _span(text):
    assert len(text) and np.array_equal(text, np.arange(text[0], text[0] + len(text)))
    return text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=30).map(np.array), st.integers(6, 24), st.booleans(), st.integers(0, 2))
def test_pairs_are_two_spans_and_the_label_is_true(lengths, length, elsewhere, epoch):
    document = np.repeat(np.arange(len(lengths)), lengths)
    edges = np.cumsum(lengths) - lengths, np.cumsum(lengths) - 1  # the first and last token of a document are special
    if (lengths > 3).sum() < 2:
        return
    plan = pairs(lengths, 0, length, (1, 1), (0.5, elsewhere))
    places, seen = _all(plan, epoch), []
    for row in range(plan.rows):
        a, b = _texts(places, row)
        here = np.concatenate([_span(a), _span(b)])
        assert not np.isin(here, edges).any() and len(here) + 3 <= length
        follows, before = a[-1] + 1 == b[0] and document[a[0]] == document[b[0]], b[-1] + 1 == a[0]
        label = places.more["labels"][row]
        assert follows if label == 0 else (document[a[0]] != document[b[0]] if elsewhere else before)
        seen += [*a] if label and elsewhere else [*here]
    assert len(seen) == len(set(seen))
    inner = np.setdiff1d(
        np.arange(len(document)), np.concatenate([*edges, *(np.flatnonzero(document == d) for d in np.flatnonzero(lengths < 4))])
    )
    assert set(seen) <= set(inner) and (elsewhere or len(seen) == len(inner))  # every token of every document


def test_half_of_the_pairs_are_changed_cut_anywhere_and_otherwise_each_epoch():
    lengths = np.full(2000, 32)
    plan = pairs(lengths, 3, 40, (1, 1), (0.5, True))
    first, again, second = _all(plan, 0), _all(plan, 0), _all(plan, 1)
    assert np.array_equal(first.inputs, again.inputs) and not np.array_equal(np.sort(first.inputs, 0), np.sort(second.inputs, 0))
    assert abs(first.more["labels"].mean() - 0.5) < 0.04
    sizes = np.array([len(_texts(first, row)[0]) for row in range(2000)])
    assert sizes.min() == 1 and sizes.max() == 29 and abs(sizes.mean() - 15) < 0.6  # one to all but one of 30
    others = np.array([_texts(first, row)[1][0] // 32 for row in np.flatnonzero(first.more["labels"])])
    assert len(np.unique(others)) > 700  # from everywhere
    assert not _all(pairs(lengths, 3, 40, (1, 1), (0.0, True)), 0).more["labels"].any()
    part = plan.gather(np.zeros(3, int), np.arange(5, 8))
    assert np.array_equal(part.inputs, first.inputs[5:8]) and np.array_equal(part.more["labels"], first.more["labels"][5:8])
    still = pairs(lengths, None, 40, (1, 1), (0.5, True))
    assert np.array_equal(_all(still, 0).inputs, _all(still, 0).inputs) and _texts(_all(still, 0), 7)[0][0] == 7 * 32 + 1  # in order


def test_pairs_that_cannot_be_are_refused():
    with pytest.raises(DataError, match="no document gives a pair"):
        pairs(np.array([3, 3]), 0, 16, (1, 1), (0.5, True))
    with pytest.raises(DataError, match="at least 6"):
        pairs(np.array([30, 30]), 0, 5, (1, 1), (0.5, True))
    with pytest.raises(DataError, match="task=sentence-order"):
        pairs(np.array([30, 2]), 0, 16, (1, 1), (0.5, True))
    assert pairs(np.array([30, 2]), 0, 16, (1, 1), (0.5, False)).rows == 3
