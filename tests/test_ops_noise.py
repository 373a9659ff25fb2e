"""The noise of masked language modelling: how much, where, of what; and a function of the rows' draws alone."""

import dataclasses

import numpy as np
import pytest

from jaxlm.config import Masking
from jaxlm.errors import ConfigError
from jaxlm.ops.noise import Vocabulary, make_vocabulary, mask_tokens, uniform

SPECIAL, MASK, V = 5, 4, 100  # ids below 5 are special; odd ordinary ids go on with a word
IDS = np.arange(V)
VOCABULARY = Vocabulary(MASK, 2, 3, IDS < SPECIAL, IDS[SPECIAL:].astype(np.int32), (IDS >= SPECIAL) & (IDS % 2 == 1))
WHOLE = Masking(whole_words=True)


def rows(count=2000, length=64, seed=0):
    """Random rows: a tenth of special tokens, and padding behind a random place."""
    random = np.random.default_rng(seed)
    tokens = np.where(random.random((count, length)) < 0.1, random.integers(0, 4, (count, length)), random.integers(5, V, (count, length)))
    real = np.arange(length) < random.integers(1, length + 1, (count, 1))
    return (tokens * real).astype(np.int32), real.astype(np.int32), random.integers(0, 2**64, count, dtype=np.uint64)


@pytest.mark.parametrize("masking", [Masking(), WHOLE, Masking(rate=0.4, mask=0.5, random=0.5)], ids=["tokens", "words", "other"])
def test_shares_and_that_special_tokens_and_padding_stay(masking):
    tokens, real, draws = rows()
    made = mask_tokens(tokens, real, VOCABULARY, draws, masking)
    free = (tokens >= SPECIAL) & (real > 0)
    chosen = np.zeros_like(free)
    index, column = np.nonzero(made["weights"])
    where = made["places"][index, column]
    assert not chosen[index, where].any() and len(set(zip(index, where, strict=True))) == len(where)  # no place twice
    chosen[index, where] = True
    assert not (chosen & ~free).any()
    np.testing.assert_array_equal(made["targets"][index, column], tokens[index, where])
    np.testing.assert_array_equal(made["tokens"][~chosen], tokens[~chosen])
    assert made["places"].shape[1] == np.ceil(masking.rate * 64)
    long = free.sum(1) > 30  # in shorter rows "at least one" is more than the rate
    share = chosen[long].sum() / free[long].sum()
    assert masking.rate * (0.97 if masking.whole_words else 0.99) < share < masking.rate * 1.01
    assert masking.whole_words or (chosen.any(1) == free.any(1)).all()
    after, before = made["tokens"][chosen], tokens[chosen]
    masked, same = after == MASK, after == before
    assert abs(masked.mean() - masking.mask) < 0.02
    drawn = after[~masked & ~same]
    assert abs(len(drawn) / len(after) - masking.random) < 0.02
    assert drawn.min() >= SPECIAL and len(np.unique(drawn)) == V - SPECIAL  # of every ordinary token, and of no other


def words_of(tokens, real):
    """The words of a row, written out: lists of places."""
    found = []
    for place, (token, inside) in enumerate(zip(tokens, real, strict=True)):
        if token >= SPECIAL and inside:
            goes_on = token % 2 == 1 and place and tokens[place - 1] >= SPECIAL and real[place - 1] == inside
            if goes_on:
                found[-1].append(place)
            else:
                found.append([place])
    return found


def test_whole_words_are_chosen_whole_in_packed_rows_too():
    tokens, real, draws = rows(200)
    segments = real * (1 + (np.arange(64) > 20))
    made = mask_tokens(tokens, segments, VOCABULARY, draws, WHOLE)
    for i in range(200):
        chosen = set(made["places"][i][made["weights"][i] > 0].tolist())
        words = words_of(tokens[i], segments[i])
        assert all(chosen >= set(word) or not chosen & set(word) for word in words)
        short = [word for word in words if len(word) == 1]
        assert chosen or not short  # a row with a word that fits has one chosen
    plain = mask_tokens(tokens, segments, VOCABULARY, draws, Masking())
    apart = [set(p[w > 0].tolist()) for p, w in zip(plain["places"], plain["weights"], strict=True)]
    assert any(
        chosen & set(word) and not chosen >= set(word) for i, chosen in enumerate(apart) for word in words_of(tokens[i], segments[i])
    )


def test_a_word_ends_with_its_text():
    """Pieces that all go on with a word: each is one of its own where every one is another text, else they are a word too long."""
    tokens, draws = np.full((1, 8), 7, np.int32), np.zeros(1, np.uint64)
    apart = mask_tokens(tokens, np.arange(1, 9, dtype=np.int32)[None], VOCABULARY, draws, Masking(rate=0.25, whole_words=True))
    joined = mask_tokens(tokens, np.ones((1, 8), np.int32), VOCABULARY, draws, Masking(rate=0.25, whole_words=True))
    assert apart["weights"].sum() == 2 and joined["weights"].sum() == 0


def test_noise_is_a_function_of_a_rows_draw_alone():
    tokens, real, draws = rows(16)
    whole = mask_tokens(tokens, real, VOCABULARY, draws, Masking())
    part = mask_tokens(tokens[4:8], real[4:8], VOCABULARY, draws[4:8], Masking())
    assert all(np.array_equal(part[name], whole[name][4:8]) for name in whole)
    other = mask_tokens(tokens, real, VOCABULARY, draws + np.uint64(1), Masking())
    assert not np.array_equal(other["places"], whole["places"])


def test_uniform_numbers_are_uniform_and_rows_have_streams_of_their_own():
    many = uniform(np.arange(300, dtype=np.uint64), 300)
    assert many.min() >= 0 and many.max() < 1
    np.testing.assert_allclose(np.histogram(many, 10, (0, 1))[0] / many.size, 0.1, atol=0.005)
    correlation = np.corrcoef(many)
    assert np.abs(correlation - np.eye(300)).max() < 0.35  # neighbouring draws: a shared stream would give 1


def test_at_least_one_token_is_chosen_and_none_of_a_row_without_any():
    tokens = np.array([[2, 50, 3, 0], [2, 3, 0, 0]], np.int32)
    made = mask_tokens(tokens, (tokens > 0).astype(np.int32), VOCABULARY, np.arange(2, dtype=np.uint64), Masking())
    assert made["weights"].tolist() == [[1.0], [0.0]] and made["places"].tolist() == [[1], [0]] and made["targets"].tolist() == [[50], [0]]


@dataclasses.dataclass
class Pieces:
    """As much of a tokenizer as a vocabulary asks for."""

    pieces: list
    mask_id: int | None = 0
    cls_id = sep_id = bos_id = eos_id = pad_id = None
    unk_id: int | None = 1

    @property
    def vocab_size(self):
        return len(self.pieces)

    @property
    def controls(self):
        return {"<c>": 2}

    def piece(self, i):
        return self.pieces[i]


@pytest.mark.parametrize(
    ("pieces", "continues"),
    [(["the", "##re", "is"], "010"), (["Ġthe", "re", "Ċ"], "010"), (["▁the", "re", "▁is"], "010"), (["a", "b", "c"], None)],
    ids=["wordpiece", "byte-level", "sentencepiece", "characters"],
)
def test_the_vocabulary_of_a_tokenizer(pieces, continues):
    found = make_vocabulary(Pieces(["[MASK]", "[UNK]", "<c>", None, *pieces]))
    assert np.flatnonzero(found.special).tolist() == [0, 1, 2, 3] and found.ordinary.tolist() == [4, 5, 6]
    assert continues is None or found.continues[4:].tolist() == [c == "1" for c in continues]
    if continues is None:
        with pytest.raises(ConfigError, match="masking.whole_words"):
            mask_tokens(np.array([[4, 5]], np.int32), np.ones((1, 2), np.int32), found, np.zeros(1, np.uint64), WHOLE)


def test_a_tokenizer_without_a_mask_token_is_refused():
    with pytest.raises(ConfigError, match="no mask token: set tokenizer.path"):
        make_vocabulary(Pieces(["a"], mask_id=None))
