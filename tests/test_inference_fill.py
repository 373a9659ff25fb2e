"""Filling the masks of a text: the right places, the right order, and one program for texts of many lengths."""

import re

import jax
import numpy as np
import pytest
from foreign import BERT, made

from jaxlm.errors import ConfigError, DataError
from jaxlm.inference.fill import fill_mask

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", *(chr(97 + i) for i in range(26))]


class Letters:
    """A tokenizer of letters: "a[MASK]c"."""

    vocab_size, mask_id = len(WORDS), 3

    def encode(self, text, *, allow_special=False):
        assert allow_special
        return [1, *(WORDS.index(piece) for piece in re.findall(r"\[MASK\]|.", text)), 2]

    def decode(self, ids):
        return " " + "".join(WORDS[i] for i in ids)

    def piece(self, i):
        return WORDS[i]


def test_each_mask_gets_its_own_likeliest_tokens():
    model, params = made(BERT, "masked-lm")
    ids = Letters().encode("a[MASK]cd[MASK]", allow_special=True)
    assert ids == [1, 4, 3, 6, 7, 3, 2]
    want = jax.nn.softmax(model.apply({"params": params}, np.array([ids], np.int32)).logits)[0, [2, 5], : len(WORDS)]
    found = fill_mask(model, params, Letters(), "a[MASK]cd[MASK]", k=4)
    for row, top in zip(np.asarray(want), found, strict=True):
        assert [WORDS.index(token) for token, _ in top] == np.argsort(-row)[:4].tolist()
        np.testing.assert_allclose([p for _, p in top], np.sort(row)[::-1][:4], rtol=1e-4)


def test_what_cannot_be_filled_is_refused():
    model, params = made(BERT, "masked-lm")
    with pytest.raises(DataError, match=r"'abc' holds no \[MASK\]"):
        fill_mask(model, params, Letters(), "abc")
    with pytest.raises(DataError, match="has 12 tokens and the model reads 10"):
        fill_mask(model, params, Letters(), "abcdefghi[MASK]")
    bare = Letters()
    bare.mask_id = None
    with pytest.raises(ConfigError, match="no mask token"):
        fill_mask(model, params, bare, "a[MASK]")
