"""The noise of masked language modelling, on the host: which tokens are to be predicted, and what stands in their places.

All of it is a function of the rows' draws, 64 random bits each, so that hosts, loaders and resumed runs agree. NumPy only.
Read next: `tasks/masked_lm.py`; `spans.py` and `infilling.py`, the noise of encoder-decoders.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.config import Denoising, Masking
from jaxlm.errors import ConfigError

ROLES = ("bos_id", "eos_id", "pad_id", "unk_id", "cls_id", "sep_id", "mask_id")
CONTINUED = "##"  # begins a WordPiece that goes on with a word
BEGUN = {"Ġ": ("Ġ", "Ċ", "ĉ"), "▁": ("▁",)}  # how byte-level BPE (its blank, newline, tab) and SentencePiece begin one
PASSES = 3  # over the words of a row: later ones fill the room that a word too long has left
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ENDS = re.compile(r"[.!?…。！？][\"'”’)\]]*$")  # how a piece ends that may be the last of a sentence
WANTED = {  # what a task may need of a tokenizer -> what is missing where it is not there, and the mend
    "mask": "mask token: set tokenizer.path to a BERT's, or to one of python -m jaxlm.tokenize train --kind wordpiece",
    "eos": "token that ends a text: train one with tokenizer.kind=unigram or bpe",
    "sentinels": "sentinels <extra_id_0>, <extra_id_1>, ...: set tokenizer.path to a T5's, or leave it out: the run trains one with them",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """What noise needs to know of a tokenizer with V tokens."""

    mask_id: int | None
    cls_id: int | None
    sep_id: int | None
    special: np.ndarray  # bool [V]: control tokens, the unknown one, and holes; never chosen, never drawn
    ordinary: np.ndarray  # int32: the ids of all others
    continues: np.ndarray | None  # bool [V]: goes on with the word before it; None: the pieces do not tell
    eos_id: int | None = None
    unk_id: int | None = None
    sentinels: tuple[int, ...] = ()  # ids of <extra_id_0>, <extra_id_1>, ...
    ends: np.ndarray | None = None  # bool [V]: may be the last of a sentence; None: no piece is


def make_vocabulary(tokenizer: Any, needs: Sequence[str] = ("mask",)) -> Vocabulary:
    """The vocabulary of a tokenizer. Raises ConfigError where it lacks what is needed, of "mask", "eos" and "sentinels"."""
    sentinels = find_sentinels(tokenizer.controls)
    there = {"mask": tokenizer.mask_id is not None, "eos": tokenizer.eos_id is not None, "sentinels": bool(sentinels)}
    for name in needs:
        if not there[name]:
            raise ConfigError(f"the tokenizer has no {WANTED[name]}")
    pieces = [tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
    special = np.array([piece is None for piece in pieces])
    named = [getattr(tokenizer, role) for role in ROLES]
    special[[i for i in (*named, *tokenizer.controls.values()) if i is not None]] = True
    ordinary = np.flatnonzero(~special).astype(np.int32)
    ends = np.array([piece is not None and ENDS.search(piece) is not None for piece in pieces])
    ids = (tokenizer.mask_id, tokenizer.cls_id, tokenizer.sep_id)
    return Vocabulary(*ids, special, ordinary, _continues(pieces), tokenizer.eos_id, tokenizer.unk_id, sentinels, ends)


def find_sentinels(controls: Mapping[str, int]) -> tuple[int, ...]:
    """The ids of <extra_id_0>, <extra_id_1>, ... among a tokenizer's control tokens, name -> id.

    >>> find_sentinels({"</s>": 1, "<extra_id_1>": 8, "<extra_id_0>": 9})
    (9, 8)
    """
    found = (controls.get(f"<extra_id_{k}>") for k in itertools.count())
    return tuple(itertools.takewhile(lambda i: i is not None, found))


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


def compact(values: np.ndarray, kept: np.ndarray, width: int) -> np.ndarray:
    """The kept values of every row side by side from its left on, 0 behind them: int32 [B, width] from [B, N] and bool [B, N].

    >>> compact(np.array([[5, 6, 7]]), np.array([[True, False, True]]), 4).tolist()
    [[5, 7, 0, 0]]
    """
    out = np.zeros((len(values), width), np.int32)
    out[np.nonzero(kept)[0], (np.cumsum(kept, 1) - 1)[kept]] = values[kept]
    return out


def with_density(noise: Denoising, usual: float) -> Denoising:
    """The noise with a task's own share of what is taken out, where none is given."""
    return dataclasses.replace(noise, density=usual) if noise.density is None else noise


def sides(source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of an encoder-decoder's batch, from ids and segments (0 = padding) of both sides, int32 [B, S] and [B, T]."""
    named = dict(zip(("tokens", "segments", "targets", "target_segments"), (*source, *target), strict=True))
    return {**named, "weights": (target[1] > 0).astype(np.float32)}


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
