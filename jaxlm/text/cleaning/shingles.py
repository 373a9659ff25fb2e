"""Words and runs of n words as 64-bit hashes, by NumPy over the bytes of many texts at once: no Python loop over words.

What near duplicates, decontamination and Gopher's repetition rules count. Read next: `minhash.py`.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

CHUNK = 1 << 17  # bytes hashed at once: the tables of a chunk stay in a core's cache
FACTOR = 0x9E6C63D0676A9A9B  # odd
WHITE = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\0"


@dataclasses.dataclass(frozen=True, eq=False)
class Words:
    """The words of some texts, in order; positions count the bytes of all texts."""

    hashes: np.ndarray  # uint64 [words]
    starts: np.ndarray  # int64 [words]
    lengths: np.ndarray  # int64 [words]: in characters
    texts: np.ndarray  # int64 [words]: the text that each word stands in


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer on uint64 of any shape: every bit of the result depends on every bit given (Steele et al. 2014).

    >>> [hex(int(value)) for value in mix(np.arange(2, dtype=np.uint64))]
    ['0x0', '0x5692161d100b05e5']
    """
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def numbers(seed: int, count: int) -> np.ndarray:
    """uint64 [count]: splitmix64's stream, the same on every machine and with every NumPy."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return mix(steps + np.uint64(seed))


@functools.cache
def _table(exact: bool) -> bytes:
    """What each byte of UTF-8 counts as: 0 between words, else itself. Not `exact`: ASCII capitals are small letters, and only
    letters, digits, `_` and what is not ASCII make words."""
    if exact:
        return bytes(0 if byte in WHITE else byte for byte in range(256))
    return bytes(ord(chr(byte).lower()) if chr(byte).isalnum() or byte == ord("_") else 0 for byte in range(128)) + bytes(range(128, 256))


@functools.cache
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint64 [size] twice: the powers of an odd number modulo 2**64, and of its inverse."""
    both = []
    for number in (FACTOR, pow(FACTOR, -1, 1 << 64)):
        table = np.full(size, number, np.uint64)
        table[0] = 1
        both.append(np.multiply.accumulate(table))
    return both[0], both[1]


def _letters(data: bytes, exact: bool) -> np.ndarray:
    """uint8 [bytes]: what the polynomial counts, 0 between words."""
    letters = np.frombuffer(bytearray(data.translate(_table(exact))), np.uint8)
    if not exact and not data.isascii():
        for lead, width in ((0xC2, 2), (0xE2, 3)):  # no-break spaces, quotes and dashes: U+0080 to U+00BF, U+2000 to U+2FFF
            at = np.flatnonzero(letters == lead)
            for step in range(width):
                letters[at + step] = 0
    return letters


def _bounds(letters: np.ndarray, alone: bool) -> tuple[np.ndarray, np.ndarray]:
    """(starts, stops) of the words; the data ends between words.

    Args:
      alone: kana, ideographs, Hangul and what lies beyond the basic plane are a word each.
    """
    inside = letters != 0
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    edges = np.concatenate([[0], edges]) if inside[0] else edges
    starts, stops = edges[::2], edges[1::2]
    single = np.flatnonzero((letters >= 0xE3) & (letters <= 0xF7)) if alone else ()
    if not len(single):
        return starts, stops
    after = single + np.where(letters[single] >= 0xF0, 4, 3)
    after = after[letters[after] != 0]  # a letter that follows begins a word too
    begins = np.unique(np.concatenate([starts, single, after]))
    return begins, np.minimum(np.append(begins[1:], len(letters)), stops[np.searchsorted(stops, begins, "right")])


def words(texts: Sequence[str], exact: bool = False) -> Words:
    """The words of texts, each text for itself.

    Args:
      texts: well-formed strings.
      exact: words are what stands between ASCII white space, bit for bit. Otherwise runs of letters, digits, `_` and what
        is not ASCII, the case of ASCII ignored; each kana, ideograph, Hangul syllable or emoji is a word of its own.
    """
    data = b"\n".join([*(text.encode() for text in texts), b""])
    letters = _letters(data, exact)
    starts, stops = _bounds(letters, alone=not exact and not data.isascii())
    lengths = stops - starts
    if not data.isascii():
        tails = np.concatenate([[0], np.cumsum((letters & 0xC0) == 0x80)])
        lengths = lengths - (tails[stops] - tails[starts])
    ends = np.cumsum([len(text.encode()) + 1 for text in texts], dtype=np.int64)
    return Words(_hash(letters, starts, stops), starts, lengths, np.searchsorted(ends, starts, "right"))


def _hash(letters: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """A polynomial over a word's bytes modulo 2**64: running sums over all bytes, with global powers divided out; then mixed."""
    powers, inverses = _powers(1 << max(18, len(letters).bit_length()))
    sums = np.zeros(len(letters) + 1, np.uint64)
    np.cumsum(letters * powers[: len(letters)], out=sums[1:])
    return mix((sums[stops] - sums[starts]) * inverses[starts])


def runs(found: Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Every run of n words within one text: (uint64 [runs] hashes, int64 [runs] the word that each begins at).

    A text with fewer than n words, but any, has one run: all of them.
    """
    count = len(found.hashes)
    factors = numbers(2, n) | np.uint64(1)
    sums = found.hashes * factors[0]
    whole = np.ones(count, bool)
    for step in range(1, n):
        same = found.texts[step:] == found.texts[: count - step] if step < count else np.zeros(0, bool)
        kept = max(count - step, 0)
        sums[:kept] += np.where(same, found.hashes[step:] * factors[step], np.uint64(0))
        whole[:kept] &= same
        whole[kept:] = False
    first = np.concatenate([[True], found.texts[1:] != found.texts[:-1]])[:count]
    at = np.flatnonzero(whole | first)
    return mix(sums[at]), at


def shingles(texts: Sequence[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The sets of n-word runs of texts: (uint64 hashes, rising and distinct within a text; int64 [texts + 1] offsets)."""
    found = words(texts)
    hashes, at = runs(found, n)
    of = found.texts[at]
    offsets = np.searchsorted(of, np.arange(len(texts) + 1))
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        hashes[start:stop].sort()
    new = np.concatenate([[True], (hashes[1:] != hashes[:-1]) | (of[1:] != of[:-1])])[: len(hashes)]
    return hashes[new], np.concatenate([[0], np.cumsum(new)])[offsets]
