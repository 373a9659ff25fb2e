"""Penalties and bans against a plain NumPy statement of each, on rows with padding."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import penalties

RANDOM = np.random.default_rng(0)
ROWS, SLOTS, WORDS = 6, 12, 5  # few words: much is said twice
TOKENS = RANDOM.integers(0, WORDS, (ROWS, SLOTS))
TOKENS[0] = [*range(4)] * 3
LENGTHS = (12, 9, 5, 2, 1, 0)
REAL = np.arange(SLOTS) >= SLOTS - np.array(LENGTHS)[:, None]
LOGITS = RANDOM.normal(0, 3, (ROWS, WORDS)).astype(np.float32)
ENDS = jnp.full(ROWS, SLOTS - 1)


def rows():
    """Each row's logits and its text without padding."""
    return [(logits.copy(), tokens[real].tolist()) for logits, tokens, real in zip(LOGITS, TOKENS, REAL, strict=True)]


def ngrams(text, size):
    return [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]


def test_counts_leave_padding_out():
    want = [np.bincount(text, minlength=WORDS) for _, text in rows()]
    np.testing.assert_array_equal(penalties.counts(TOKENS, REAL, WORDS), want)


@pytest.mark.parametrize("penalty", [1.7, 0.4])
def test_repetition(penalty):
    want = [[x if i not in text else x * penalty if x < 0 else x / penalty for i, x in enumerate(row)] for row, text in rows()]
    np.testing.assert_allclose(penalties.repetition(LOGITS, TOKENS, REAL, penalty), want, rtol=1e-6)


@pytest.mark.parametrize(("presence", "frequency"), [(0.7, 0.0), (0.0, 0.3), (-0.5, 0.25)])
def test_presence_and_frequency(presence, frequency):
    want = [[x - presence * (i in text) - frequency * text.count(i) for i, x in enumerate(row)] for row, text in rows()]
    got = penalties.presence_and_frequency(LOGITS, TOKENS, REAL, presence, frequency)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 13])
def test_no_ngram_comes_twice(size):
    def banned(text):
        begun = tuple(text[len(text) - size + 1 :]) if size > 1 else ()
        return {gram[-1] for gram in ngrams(text, size) if gram[:-1] == begun}

    want = [[-np.inf if i in banned(text) else x for i, x in enumerate(row)] for row, text in rows()]
    np.testing.assert_array_equal(penalties.ban_repeated_ngrams(LOGITS, TOKENS, REAL, ENDS, size), want)
    assert size > 4 or np.isinf(want).any()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_of_the_source_comes_again(size):
    source, there = RANDOM.integers(0, WORDS, (ROWS, 7)), np.arange(7) < np.array([7, 5, 3, 2, 1, 7])[:, None]

    def banned(text, source):
        begun = tuple(text[len(text) - size + 1 :]) if size > 1 else ()
        return {gram[-1] for gram in ngrams(source, size) if gram[:-1] == begun}

    texts = [ids[seen].tolist() for ids, seen in zip(source, there, strict=True)]
    want = [[-np.inf if i in banned(text, of) else x for i, x in enumerate(row)] for (row, text), of in zip(rows(), texts, strict=True)]
    got = penalties.ban_repeated_ngrams(LOGITS, TOKENS, REAL, ENDS, size, (jnp.asarray(source), jnp.asarray(there)))
    np.testing.assert_array_equal(got, want)


def test_sequences_are_biased_where_they_would_be_completed():
    end = TOKENS[0, -3:].tolist()
    biases = (((1,), 0.5), ((1,), 0.25), ((end[2], 3), 2.0), ((end[1], end[2], 4), -np.inf), ((*end, 0), 1.5), ((0, 1, 2, 3), 9.0))
    want = LOGITS.copy()
    for row, (_, text) in zip(want, rows(), strict=True):
        for sequence, bias in biases:
            if len(sequence) == 1 or text[1 - len(sequence) :] == list(sequence[:-1]):
                row[sequence[-1]] += bias
    np.testing.assert_allclose(penalties.add_to_sequences(jnp.asarray(LOGITS), TOKENS, REAL, ENDS, biases), want, rtol=1e-6)
    assert want[0, 4] == -np.inf and np.isfinite(want[4:]).all()


def test_some_tokens_only_and_without_some():
    where = np.array([True, False, True, False, False, False])
    alone = np.asarray(penalties.only(jnp.asarray(LOGITS), (1, 3), where))
    assert np.isfinite(alone[where]).tolist() == [[False, True, False, True, False]] * 2
    assert (alone[where][:, [1, 3]] == 0).all()
    np.testing.assert_array_equal(alone[~where], LOGITS[~where])
    left = np.asarray(penalties.without(jnp.asarray(LOGITS), (1, 3), where))
    assert np.isfinite(left[where]).tolist() == [[True, False, True, False, True]] * 2
    np.testing.assert_array_equal(left[~where], LOGITS[~where])
