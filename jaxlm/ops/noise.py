"""The noise of masked language modelling, on the host: which tokens are to be predicted, and what stands in their places.

All of it is a function of the rows' draws, 64 random bits each, so that hosts, loaders and resumed runs agree. NumPy only.
Read next: `tasks/masked_lm.py`.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxlm.config import Masking
from jaxlm.errors import ConfigError

ROLES = ("bos_id", "eos_id", "pad_id", "unk_id", "cls_id", "sep_id", "mask_id")
CONTINUED = "##"  # begins a WordPiece that goes on with a word
BEGUN = {"Ġ": ("Ġ", "Ċ", "ĉ"), "▁": ("▁",)}  # how byte-level BPE (its blank, newline, tab) and SentencePiece begin one
PASSES = 3  # over the words of a row: later ones fill the room that a word too long has left
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """What noise needs to know of a tokenizer with V tokens."""

    mask_id: int
    cls_id: int | None
    sep_id: int | None
    special: np.ndarray  # bool [V]: control tokens, the unknown one, and holes; never chosen, never drawn
    ordinary: np.ndarray  # int32: the ids of all others
    continues: np.ndarray | None  # bool [V]: goes on with the word before it; None: the pieces do not tell


def make_vocabulary(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a tokenizer. Raises ConfigError where it has no mask token."""
    if tokenizer.mask_id is None:
        raise ConfigError(
            "the tokenizer has no mask token: set tokenizer.path to a BERT's, or to one of python -m jaxlm.tokenize train --kind wordpiece"
        )
    pieces = [tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
    special = np.array([piece is None for piece in pieces])
    named = [getattr(tokenizer, role) for role in ROLES]
    special[[i for i in (*named, *tokenizer.controls.values()) if i is not None]] = True
    ordinary = np.flatnonzero(~special).astype(np.int32)
    return Vocabulary(tokenizer.mask_id, tokenizer.cls_id, tokenizer.sep_id, special, ordinary, _continues(pieces))


def _continues(pieces: list[str | None]) -> np.ndarray | None:
    starts = lambda marks: np.array([piece is not None and piece.startswith(marks) for piece in pieces])
    mark = max((CONTINUED, *BEGUN), key=lambda mark: starts(mark).sum())
    if not starts(mark).any():
        return None
    return starts(mark) if mark == CONTINUED else ~starts(BEGUN[mark])


def uniform(draws: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) of every row's own stream: float64 [B, count] from uint64 [B] (SplitMix64, Steele et al. 2014)."""
    x = draws[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def mask_tokens(
    tokens: np.ndarray, segments: np.ndarray, vocabulary: Vocabulary, draws: np.ndarray, masking: Masking
) -> dict[str, np.ndarray]:
    """Rows under noise, and what is to be predicted in them (Devlin et al. 2019, section 3.1).

    Of a row's n ordinary tokens rate * n are chosen, rounded at random so that the mean is exact, but at least one. So a row
    never has more than P = ceil(rate * T) of them, and none is ever left out for want of room.

    Args:
      tokens: int32 [B, T]. segments: int32 [B, T], 0 is padding.
      draws: uint64 [B].

    Returns "tokens" int32 [B, T], and "places", "targets" int32 and "weights" float32, each [B, P]; weights are 0 where a row has
    fewer. Raises ConfigError for whole words of a tokenizer that does not know where they begin.
    """
    bound = int(np.ceil(masking.rate * tokens.shape[1] - 1e-9))
    order, rounding, kind, pick = np.split(uniform(draws, tokens.shape[1] + 1 + 2 * bound), np.cumsum([tokens.shape[1], 1, bound]), 1)
    free = ~vocabulary.special[tokens] & (segments > 0)
    number = free.sum(1, keepdims=True)
    wanted = np.clip((masking.rate * number + rounding).astype(int), np.minimum(1, number), bound)
    choose = _choose_words if masking.whole_words else _choose_tokens
    places, real = choose(np.where(free, order, np.inf), wanted, bound, _word_starts(tokens, segments, vocabulary))
    targets = np.where(real, np.take_along_axis(tokens, places, 1), 0)
    drawn = vocabulary.ordinary[(pick * len(vocabulary.ordinary)).astype(int)]
    new = np.where(kind < masking.mask, vocabulary.mask_id, np.where(kind < masking.mask + masking.random, drawn, targets))
    noised = tokens.copy()
    noised[np.nonzero(real)[0], places[real]] = new[real]
    kinds = {"places": np.int32, "targets": np.int32, "weights": np.float32}
    made = {"places": np.where(real, places, 0), "targets": targets, "weights": real}
    return {"tokens": noised, **{name: value.astype(kinds[name]) for name, value in made.items()}}


def _choose_tokens(order: np.ndarray, wanted: np.ndarray, bound: int, starts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that come first: their places [B, P], and which of these count."""
    return np.argsort(order, 1, kind="stable")[:, :bound], np.arange(bound) < wanted


def _choose_words(order: np.ndarray, wanted: np.ndarray, bound: int, starts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The words that come first, as long as whole ones fit into what is wanted; a word takes the order of its first token."""
    if starts is None:
        raise ConfigError("masking.whole_words: this tokenizer's pieces do not tell where a word begins: use WordPiece, or leave it out")
    first = np.maximum.accumulate(np.where(starts, np.arange(order.shape[1]), 0), 1)
    word = np.cumsum(starts.ravel()).reshape(order.shape)
    size = np.bincount(word.ravel())[word]
    order = np.where(np.isinf(order), np.inf, np.take_along_axis(order, first, 1))
    chosen = np.zeros(order.shape, bool)
    for _ in range(PASSES):
        left = wanted - chosen.sum(1, keepdims=True)
        fits = np.where(chosen | (size > left), np.inf, order)
        places = np.argsort(fits, 1, kind="stable")
        last = np.arange(order.shape[1]) - places + np.take_along_axis(first + size, places, 1)  # rank behind the word's last token
        new = np.zeros_like(chosen)
        np.put_along_axis(new, places, (last <= left) & np.isfinite(np.take_along_axis(fits, places, 1)), 1)
        chosen |= new
    return _choose_tokens(np.where(chosen, order, np.inf), chosen.sum(1, keepdims=True), bound, None)


def _word_starts(tokens: np.ndarray, segments: np.ndarray, vocabulary: Vocabulary) -> np.ndarray | None:
    """Where words begin, bool [B, T]: after a special token and in another text a new one does, whatever the piece."""
    if vocabulary.continues is None:
        return None
    special = vocabulary.special[tokens]
    starts = ~vocabulary.continues[tokens] | special
    starts[:, 1:] |= special[:, :-1] | (segments[:, 1:] != segments[:, :-1])
    starts[:, 0] = True
    return starts
