"""Span corruption: both sides together give the row back, both segmentations are uniform, lengths fill, draws decide."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import Denoising
from jaxlm.errors import ConfigError
from jaxlm.ops.noise import Vocabulary
from jaxlm.ops.spans import corrupt_spans, counts, cut_prefix, draw_spans, lengths, raw_length

V, EOS = 300, 1
SENTINELS = tuple(range(V - 1, V - 101, -1))
VOCABULARY = Vocabulary(None, None, None, np.arange(V) < 3, np.arange(3, 200, dtype=np.int32), None, EOS, 2, SENTINELS)
NOISE = Denoising(density=0.15)


def rows(numbers, length, seed):
    """Rows with so many tokens, ends of documents among them, and a draw for each."""
    random = np.random.default_rng(seed)
    real = np.arange(length) < np.array(numbers)[:, None]
    tokens = random.integers(1, 200, real.shape, dtype=np.int32) * real
    return tokens, real, random.integers(0, 2**64, len(numbers), dtype=np.uint64)


def merged(source, target):
    """A plain statement of what the two sides say: spans of the target, each after its sentinel, put where the source has it."""
    assert source[-1] == EOS and target[-1] == EOS
    spans, order = {}, []
    for token in target[:-1]:
        if token in SENTINELS:
            order.append(token)
            spans[token] = []
        else:
            spans[order[-1]].append(token)
    assert order == list(SENTINELS[: len(order)]) == [token for token in source if token in SENTINELS]
    assert all(spans.values())
    whole = []
    for token in source[:-1]:
        whole += spans[token] if token in spans else [token]
    return whole, order


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 70), min_size=1, max_size=5),
    st.floats(0.01, 0.9),
    st.floats(1, 8),
    st.integers(0, 2**32),
)
def test_both_sides_together_are_the_row(numbers, density, span, seed):
    noise = Denoising(density=density, span=span)
    tokens, real, draws = rows(numbers, 70, seed)
    made = corrupt_spans(tokens, real, VOCABULARY, draws, noise, (141, 141))
    for i, n in enumerate(numbers):
        source = made["tokens"][i][made["segments"][i] > 0].tolist()
        target = made["targets"][i][made["weights"][i] > 0].tolist()
        assert made["segments"][i].tolist() == [1] * len(source) + [0] * (141 - len(source))
        np.testing.assert_array_equal(made["weights"][i], made["target_segments"][i])
        if n < 2:
            assert source == [*tokens[i, :n].tolist(), *[EOS] * (n > 0)] and not target
            continue
        whole, order = merged(source, target)
        assert whole == tokens[i, :n].tolist() and source[0] not in SENTINELS
        assert len(order) == counts(n, noise)[1] and len(target) - 1 - len(order) == counts(n, noise)[0]
        assert (len(source), len(target)) == tuple(int(x) for x in lengths(np.array(n), noise))


def test_the_lengths_of_the_flax_script():
    """run_t5_mlm_flax.py: a source of 512 tokens is made of 568, and has a target of 114."""
    assert raw_length(512, NOISE) == 568
    assert [int(x) for x in lengths(np.array(568), NOISE)] == [512, 114]
    expected = 512
    while True:  # its loop: the longest row whose source still fits
        taken = round((expected + 1) * 0.15)
        if expected + 1 - taken + round(taken / 3.0) + 1 > 512:
            break
        expected += 1
    assert expected == 568


@pytest.mark.parametrize("span", [1.0, 2.0, 3.0, 10.0])
@pytest.mark.parametrize("density", [0.05, 0.15, 0.3])
def test_sources_are_filled_exactly(density, span):
    noise = Denoising(density=density, span=span)
    for length in range(3, 300):
        assert lengths(np.array(raw_length(length, noise)), noise)[0] == length
    raw = raw_length(64, noise)
    size = int(lengths(np.array(raw), noise)[1])
    made = corrupt_spans(*rows_first([raw] * 4, raw), noise, (64, size))
    assert (
        made["segments"].all() and made["weights"].all() and (made["tokens"][:, -1] == EOS).all() and (made["targets"][:, -1] == EOS).all()
    )


def rows_first(numbers, length, seed=0):
    tokens, real, draws = rows(numbers, length, seed)
    return tokens, real, VOCABULARY, draws


def test_shorter_rows_never_need_more_room():
    for density, span in ((0.15, 3.0), (0.5, 1.0), (0.8, 1.0), (0.3, 1.3)):
        noise = Denoising(density=density, span=span)
        source, target = lengths(np.arange(2, 700), noise)
        assert (np.diff(source) >= 0).all() and (np.diff(target) >= 0).all()


def test_every_segmentation_is_equally_likely():
    """7 tokens that stay in 3 parts: 15 ways; 6 that go in 3 spans: 10; together 150, each as likely as any other."""
    times = 15_000
    full = lambda value: np.full(times, value)
    chance = np.random.default_rng(0).random((times, 13))
    taken, number = draw_spans(full(13), full(6), full(3), chance)
    patterns, found = np.unique(taken, axis=0, return_counts=True)
    assert len(patterns) == math.comb(6, 2) * math.comb(5, 2) and (taken.sum(1) == 6).all()
    assert not taken[:, 0].any() and taken[:, -1].all()
    assert ((found - 100) ** 2 / 100).sum() < 207  # chi-square with 149 degrees of freedom, 99.9 %
    begun = (taken & ~np.pad(taken, ((0, 0), (1, 0)))[:, :-1]).cumsum(1)
    np.testing.assert_array_equal(number[taken], begun[taken] - 1)


def test_noise_is_a_function_of_a_rows_draw_alone():
    tokens, real, vocabulary, draws = rows_first([60] * 8, 60)
    whole = corrupt_spans(tokens, real, vocabulary, draws, NOISE, (64, 20))
    part = corrupt_spans(tokens[2:5], real[2:5], vocabulary, draws[2:5], NOISE, (64, 20))
    assert all(np.array_equal(part[name], whole[name][2:5]) for name in whole)
    other = corrupt_spans(tokens, real, vocabulary, draws + np.uint64(1), NOISE, (64, 20))
    assert (other["tokens"] != whole["tokens"]).any(1).all()
    cut = cut_prefix(tokens, real, vocabulary, draws, (60, 60))
    half = cut_prefix(tokens[:4], real[:4], vocabulary, draws[:4], (60, 60))
    assert all(np.array_equal(half[name], cut[name][:4]) for name in cut)


def test_a_prefix_is_cut_anywhere():
    times, n = 9000, 10
    tokens, real, vocabulary, draws = rows_first([n] * times + [1, 0], n)
    made = cut_prefix(tokens, real, vocabulary, draws, (n, n))
    before = (made["segments"] > 0).sum(1)[:times] - 1
    after = (made["weights"] > 0).sum(1)[:times] - 1
    assert (before + after == n).all() and made["tokens"].shape == made["targets"].shape == (times + 2, n)
    found = np.bincount(before, minlength=n + 1)
    assert found[0] == found[n] == 0 and ((found[1:n] - 1000) ** 2 / 1000).sum() < 26.1  # 8 degrees of freedom, 99.9 %
    for i in range(50):
        whole = [*made["tokens"][i, : before[i]], *made["targets"][i, : after[i]]]
        assert whole == tokens[i].tolist() and made["tokens"][i, before[i]] == made["targets"][i, after[i]] == EOS
    assert made["weights"][times:].sum() == 0 and made["segments"][times:].sum(1).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("noise", "length", "says"),
    [
        (Denoising(density=0.0), 64, "denoising.density=0.0 is above 0"),
        (Denoising(density=1.0), 64, "below 1"),
        (Denoising(density=0.15, span=0.5), 64, "denoising.span=0.5 at least 1"),
        (NOISE, 2, "data.sequence_length=2 has no room"),
    ],
)
def test_lengths_that_cannot_be_are_refused(noise, length, says):
    with pytest.raises(ConfigError, match=says):
        raw_length(length, noise)


def test_too_few_sentinels_are_refused():
    few = dataclasses.replace(VOCABULARY, sentinels=SENTINELS[:2])
    tokens, real, _, draws = rows_first([60], 60)
    with pytest.raises(ConfigError, match="3 spans and the tokenizer 2 sentinels"):
        corrupt_spans(tokens, real, few, draws, NOISE, (64, 20))
