"""BART's noise: how much, in spans of which lengths, never longer than the row; sentences permuted whole; draws decide."""

import collections
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import Denoising
from jaxlm.ops.infilling import draw_masks, infill, most_spans, permute_sentences, poisson
from jaxlm.ops.noise import Vocabulary, make_vocabulary
from jaxlm.text.training import Settings, train_tokenizer

V, BOS, EOS, UNK, MASK, SPECIAL = 400, 0, 1, 2, 4, 5
ENDS = np.isin(np.arange(V), [6, 7])
VOCABULARY = Vocabulary(MASK, None, None, np.arange(V) < SPECIAL, np.arange(SPECIAL, V, dtype=np.int32), None, EOS, UNK, (), ENDS)
PLAIN = Denoising(density=0.3, random=0.0, permute=0.0)


def rows(count, length, seed=0, specials=0.05, documents=2):
    """Rows of distinct ordinary tokens with a few control tokens among them, in two segments, and padding."""
    random = np.random.default_rng(seed)
    tokens = np.stack([random.permutation(np.arange(8, V))[:length] for _ in range(count)])
    tokens = np.where(random.random(tokens.shape) < specials, random.choice([BOS, EOS, UNK], tokens.shape), tokens)
    n = random.integers(1, length + 1, (count, 1))
    segments = np.where(np.arange(length) < n, 1 + (np.arange(length) >= n // documents), 0)
    return (tokens * (segments > 0)).astype(np.int32), segments.astype(np.int32), random.integers(0, 2**64, count, dtype=np.uint64)


def fixed(tokens):
    return [token for token in tokens if token in (BOS, EOS)]


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(1, 6), st.floats(0, 1), st.integers(0, 2**32))
def test_a_source_is_its_row_with_masks_for_what_is_missing(density, span, masked, seed):
    """Written out for one row after the other: what stays is in order, masks stand where tokens are missing, none is longer."""
    noise = Denoising(density=density, span=span, masked=masked, random=0.0, permute=0.0)
    tokens, segments, draws = rows(4, 50, seed)
    made = infill(tokens, segments, VOCABULARY, draws, noise, (51, 51))
    for i in range(4):
        n = int((segments[i] > 0).sum())
        row, source = tokens[i, :n].tolist(), made["tokens"][i][made["segments"][i] > 0].tolist()
        assert made["targets"][i].tolist() == [*row, EOS] + [0] * (50 - n)
        assert made["target_segments"][i, : n + 1].tolist() == [*segments[i, :n], segments[i, n - 1]]
        assert made["weights"][i].sum() == n + 1
        assert source[-1] == EOS and len(source) <= n + 1 and fixed(source[:-1]) == fixed(row)
        for document in (1, 2):
            rest = [row[k] for k in range(n) if segments[i, k] == document]
            kept = [t for t, s in zip(source, made["segments"][i], strict=False) if s == document]
            kept = kept[:-1] if document == segments[i, n - 1] else kept
            for token in kept:
                if token != MASK:
                    assert token in rest, "tokens that stay keep their order and their document"
                    rest = rest[rest.index(token) + 1 :]
        if not (density and masked):
            lost = [token for token in row if token not in source and token != UNK]
            assert not lost or MASK in source


def test_the_share_that_vanishes_is_exact():
    segments = rows(300, 60, specials=0.0)[1]
    for span in (1.0, 3.0, 10.0):
        noise = dataclasses.replace(PLAIN, span=span)
        widths = (most_spans(60, noise), 60 + most_spans(60, noise))
        length, place = np.split(np.random.default_rng(0).random((300, sum(widths))), [widths[0]], axis=1)
        taken, heads, _ = draw_masks(segments > 0, segments, noise, length, place)
        np.testing.assert_array_equal(taken.sum(1), np.round(0.3 * (segments > 0).sum(1)))
        assert not (heads & ~taken).any() and not (taken & (segments == 0)).any()


def test_poissons_table():
    for mean in (1.0, 3.0, 12.5):
        want = np.cumsum([math.exp(-mean) * mean**k / math.factorial(k) for k in range(30)])
        np.testing.assert_allclose(poisson(mean)[:30], want, rtol=1e-12)


def test_spans_have_poisson_lengths():
    """Beside a plain loop that draws lengths until enough is taken and cuts the last; chi-square of the two counts."""
    times, n, spans = 3000, 80, most_spans(80, PLAIN)
    free, random = np.ones((times, n), bool), np.random.default_rng(1)
    ones = np.ones((times, n), np.int32)
    taken, heads, inserted = draw_masks(free, ones, PLAIN, random.random((times, spans)), random.random((times, n + spans)))
    ours = collections.Counter()
    for row, first in zip(taken, heads, strict=True):
        bounds = [*np.flatnonzero(first), n]
        ours.update(int(row[a:b].sum()) for a, b in zip(bounds, bounds[1:], strict=False))
    wanted = collections.Counter()
    for _ in range(times):
        left = 24
        while left > 0:
            size = min(int(random.poisson(3.0)), left)
            wanted[size] += 1
            left -= size
    zeros = wanted.pop(0)
    groups = [lambda k, j=j: k == j if j < 7 else k >= 7 for j in range(1, 8)]
    pairs = [tuple(sum(v for k, v in c.items() if group(k)) for c in (ours, wanted)) for group in groups]
    assert sum((a - b) ** 2 / (a + b) for a, b in pairs) < 24.3, pairs  # 7 degrees of freedom, 99.9 %
    assert 0.93 < inserted.sum() / zeros < 1.02  # two at one place are one
    share = taken.mean(0)  # at the ends of a row fewer spans can lie over a place
    assert abs(share[6:-6] - 0.31).max() < 0.04 and abs(share - share[::-1]).max() < 0.04, "spans lie anywhere alike"


def test_where_spans_are_all_empty_there_is_no_room_for_masks():
    tokens, segments, draws = rows(50, 60, specials=0.3)
    made = infill(tokens, segments, VOCABULARY, draws, dataclasses.replace(PLAIN, span=1.0, density=1.0), (61, 61))
    assert ((made["segments"] > 0).sum(1) <= (made["target_segments"] > 0).sum(1)).all()
    ordinary = made["tokens"] >= SPECIAL
    assert not ordinary.any() and (made["tokens"] == MASK).any()


def test_a_span_ends_with_its_document_and_unknown_words_are_words():
    tokens, segments = np.array([[8, UNK, 9, 10, 11, EOS, 12, 13]] * 60, np.int32), np.array([[1, 1, 1, 2, 2, 2, 2, 2]] * 60, np.int32)
    draws = np.arange(60, dtype=np.uint64)
    made = infill(tokens, segments, VOCABULARY, draws, dataclasses.replace(PLAIN, density=1.0, span=12.0), (9, 9))
    for row, where in zip(made["tokens"].tolist(), made["segments"].tolist(), strict=True):
        parts = [(token, document) for token, document in zip(row, where, strict=True) if document]
        assert {token for token, _ in parts} == {MASK, EOS}, "nothing is left but the ends"
        assert parts[0] == (MASK, 1) and (MASK, 2) in parts[: parts.index((EOS, 2))] and parts[-2:] == [(MASK, 2), (EOS, 2)]


def test_masks_are_inserted_before_the_first_token_and_behind_the_last():
    tokens, ones = np.tile(np.arange(8, 28, dtype=np.int32), (4000, 1)), np.ones((4000, 20), np.int32)
    draws = np.random.default_rng(0).integers(0, 2**64, 4000, dtype=np.uint64)
    made = infill(tokens, ones, VOCABULARY, draws, dataclasses.replace(PLAIN, span=1.5), (21, 21))["tokens"]
    first = ((made[:, 0] == MASK) & (made[:, 1] == 8)).mean()
    end = (made == EOS).argmax(1)
    before = lambda k: made[np.arange(4000), end - k]
    last = ((before(1) == MASK) & (before(2) == 27)).mean()
    assert first > 0.02 and abs(first - last) < 0.012


def test_masks_one_by_one_and_random_tokens_in_their_place():
    tokens, segments, draws = rows(400, 60, specials=0.0)
    alone = infill(tokens, segments, VOCABULARY, draws, Denoising(density=0.0, masked=0.2, random=0.0, permute=0.0), (61, 61))
    kept = segments > 0
    changed = (alone["tokens"][:, :60] != tokens) & kept
    assert (alone["tokens"][:, :60][changed] == MASK).all() and abs(changed.sum() / kept.sum() - 0.2) < 0.01
    mixed = infill(tokens, segments, VOCABULARY, draws, Denoising(density=0.0, masked=0.5, random=0.3, permute=0.0), (61, 61))
    changed = (mixed["tokens"][:, :60] != tokens) & kept
    drawn = mixed["tokens"][:, :60][changed]
    assert abs((drawn != MASK).mean() - 0.3) < 0.02
    assert drawn[drawn != MASK].min() >= SPECIAL and len(np.unique(drawn)) > 380


def sentences(row):
    """The sentences of each document of a row, written out."""
    documents, open_one = [[]], []
    for token in [*row, EOS]:
        if token in (BOS, EOS):
            documents[-1] += [tuple(open_one)] * bool(open_one)
            open_one = []
            documents += [[token], []]
        else:
            open_one.append(token)
            if ENDS[token]:
                documents[-1].append(tuple(open_one))
                open_one = []
    return [document for document in documents if document][:-1]


def test_sentences_change_places_within_their_document_and_stay_whole():
    random = np.random.default_rng(0)
    tokens = random.choice([6, 7, UNK, EOS, BOS, *range(8, 40)], (200, 60), p=[0.1, 0.1, 0.05, 0.03, 0.02, *[0.7 / 32] * 32]).astype(
        np.int32
    )
    ones, edge = np.ones_like(tokens), np.isin(tokens, (BOS, EOS))
    chance = random.random((200, 120))
    made = permute_sentences(tokens, ones, edge, VOCABULARY, chance, 1.0)
    moved = 0
    for before, after in zip(tokens.tolist(), made.tolist(), strict=True):
        rest = after
        for document in sentences(before):
            length = sum(map(len, document)) if isinstance(document[0], tuple) else 1
            part, rest = rest[:length], rest[length:]
            if not isinstance(document[0], tuple):
                assert part == document
                continue
            last = document[-1] if not ENDS[document[-1][-1]] else None
            whole = collections.Counter(document)
            while part:  # a sentence without an end may be anywhere: the first of those left that fits, the longest of these
                fit = max((s for s in whole if whole[s] and tuple(part[: len(s)]) == s), key=len, default=None)
                assert fit is not None, (document, part, last)
                whole[fit] -= 1
                part = part[len(fit) :]
            moved += 1
    assert moved > 200 and (made != tokens).any(1).mean() > 0.9
    np.testing.assert_array_equal(permute_sentences(tokens, ones, edge, VOCABULARY, chance, 0.0), tokens)


def test_segments_bound_documents_too():
    tokens, segments = np.array([[8, 6, 9, 6, 10, 6, 11, 6]] * 50, np.int32), np.array([[1, 1, 1, 1, 2, 2, 2, 2]] * 50, np.int32)
    made = permute_sentences(tokens, segments, np.zeros_like(tokens, bool), VOCABULARY, np.random.default_rng(0).random((50, 16)), 1.0)
    assert {frozenset(row[:4]) for row in made.tolist()} == {frozenset((8, 6, 9))}
    assert len({tuple(row) for row in made.tolist()}) == 4


@pytest.mark.parametrize(("share", "same"), [(1.0, 1 / 6), (0.5, 1 / 8 + 3 / 8 + 3 / 8 / 2 + 1 / 8 / 6)])
def test_every_order_is_equally_likely(share, same):
    """Three sentences, six orders. With a share of a half it is the chosen ones that change places: one alone stays."""
    times = 12_000
    tokens = np.array([[8, 6, 9, 10, 6, 11, 6]] * times, np.int32)
    chance = np.random.default_rng(0).random((times, 14))
    made = permute_sentences(tokens, np.ones_like(tokens), np.zeros_like(tokens, bool), VOCABULARY, chance, share)
    orders = collections.Counter(map(tuple, made.tolist()))
    assert len(orders) == 6 and abs(orders[tuple(tokens[0].tolist())] / times - same) < 0.015
    if share == 1.0:
        assert sum((count - 2000) ** 2 / 2000 for count in orders.values()) < 20.5  # 5 degrees of freedom, 99.9 %


def test_sentences_of_a_tokenizer():
    """A full stop inside a word, as in a path, ends none."""
    texts = ["Look at os.path first. Then stop! (Or not.) 3.14 is a number"]
    tokenizer = train_tokenizer("bpe", texts * 30, 400, Settings(mask=True))
    vocabulary = make_vocabulary(tokenizer, ("eos", "mask"))
    ids = np.array([tokenizer.encode(texts[0])], np.int32)
    found = set()
    for seed in range(40):
        chance = np.random.default_rng(seed).random((1, 2 * ids.shape[1]))
        row = permute_sentences(ids, np.ones_like(ids), np.zeros_like(ids, bool), vocabulary, chance, 1.0)
        found.add(tokenizer.decode(row[0]))
    parts = ["Look at os.path first.", " Then stop!", " (Or not.)", " 3.14 is a number"]
    assert len(found) > 12 and all(all(text.count(part) == 1 for part in parts) for text in found)


def test_noise_is_a_function_of_a_rows_draw_alone():
    tokens, segments, draws = rows(8, 60)
    noise = Denoising(density=0.3, masked=0.1)
    whole = infill(tokens, segments, VOCABULARY, draws, noise, (61, 61))
    part = infill(tokens[2:5], segments[2:5], VOCABULARY, draws[2:5], noise, (61, 61))
    assert all(np.array_equal(part[name], whole[name][2:5]) for name in whole)
    other = infill(tokens, segments, VOCABULARY, draws + np.uint64(1), noise, (61, 61))
    assert not np.array_equal(other["tokens"], whole["tokens"])


def test_rows_of_nothing_stay_so():
    made = infill(np.zeros((2, 9), np.int32), np.zeros((2, 9), np.int32), VOCABULARY, np.arange(2, dtype=np.uint64), PLAIN, (10, 10))
    assert all(not array.any() for array in made.values())
    one = infill(np.array([[9, 0]], np.int32), np.array([[1, 0]], np.int32), VOCABULARY, np.arange(1, dtype=np.uint64), PLAIN, (3, 3))
    assert one["tokens"].tolist() == [[9, EOS, 0]]
