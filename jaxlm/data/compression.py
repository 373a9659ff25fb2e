"""What a general compressor needs for the same texts: a yardstick for a language model's bits per byte."""

import lzma
from collections.abc import Iterable

MOST = 5_000_000  # characters that are compressed: it takes a second for some 125,000


def lzma_bits_per_byte(texts: Iterable[str]) -> tuple[float, float]:
    """Bits per byte of UTF-8 of lzma at its strongest: each document on its own, and all in one stream.

    Of a large corpus the first documents only, MOST characters of them. Raw streams, without the container's header and
    checksum, which would weigh on short documents.

    >>> each, together = lzma_bits_per_byte(["abc" * 100] * 10)
    >>> together < each
    True
    """
    documents, room = [], MOST
    for text in texts:
        room -= len(text)
        if room < 0:
            break
        documents.append(text.encode("utf-8", "surrogatepass"))
    total = max(sum(map(len, documents)), 1)
    each = sum(_size(document) for document in documents)
    return 8 * each / total, 8 * _size(b"".join(documents)) / total


def _size(data: bytes) -> int:
    strongest = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}
    return len(lzma.compress(data, lzma.FORMAT_RAW, filters=[strongest]))
