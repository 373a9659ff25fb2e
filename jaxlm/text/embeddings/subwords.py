"""fastText's character n-grams and their hash: how a word that was never seen gets a vector.

Bojanowski et al. 2017 (arXiv:1607.04606), section 3.2: a word is the bag of its n-grams between the bounds `<` and `>`.
The hash is fastText's own, bit for bit, so that its files mean here what they mean there. Read next: `../vectors.py`.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

END_OF_SENTENCE = "</s>"  # fastText gives this word no n-grams


@dataclasses.dataclass(frozen=True, eq=False)
class Subwords:
    """The n-gram rows beside a vocabulary: `buckets` float32 [buckets, D], n-grams of `shortest` to `longest` characters."""

    buckets: np.ndarray
    shortest: int
    longest: int

    def rows(self, word: str) -> list[int]:
        """The buckets of a word's n-grams, with repetitions, in fastText's order."""
        return ngram_buckets(word, self.shortest, self.longest, len(self.buckets))


def ngram_buckets(word: str, shortest: int, longest: int, buckets: int) -> list[int]:
    """The bucket of every n-gram of a word; none for the end of a sentence or where there are no buckets.

    >>> len(ngram_buckets("cat", 3, 6, 1000))  # <ca cat at> <cat cat> <cat>
    6
    """
    if word == END_OF_SENTENCE or not buckets:
        return []
    return [hash_bytes(ngram) % buckets for ngram in ngrams(word, shortest, longest)]


def ngrams(word: str, shortest: int, longest: int) -> Iterator[bytes]:
    """The n-grams of `<word>` in UTF-8; a single character that is a bound is none.

    >>> [ngram.decode() for ngram in ngrams("né", 1, 3)]
    ['<n', '<né', 'n', 'né', 'né>', 'é', 'é>']
    """
    letters = [letter.encode("utf-8", "surrogatepass") for letter in f"<{word}>"]
    for start in range(len(letters)):
        for stop in range(start + max(shortest, 1), min(start + longest, len(letters)) + 1):
            if stop - start > 1 or (start > 0 and stop < len(letters)):
                yield b"".join(letters[start:stop])


def hash_bytes(data: bytes) -> int:
    """FNV-1a of 32 bits as fastText computes it: a byte above 127 is sign-extended before it is mixed in.

    >>> hash_bytes(b"a"), hash_bytes(bytes([200]))
    (3826002220, 3438500471)
    """
    value = 2166136261
    for byte in data:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value
