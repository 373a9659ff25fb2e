"""The file of a SentencePiece model, as far as it must be known before the library opens it: its pieces, and that it is sound.

The library trusts its files: a crafted table of its normalizer would be read beyond its end. Protocol buffers' wire format is a row of
(field number, wire type, value); unknown fields are skipped. Read next: `sentencepiece.py`.
"""

import dataclasses
import math
import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxlm.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BYTES, PIECES = 256 << 20, 1 << 21


@dataclasses.dataclass(frozen=True)
class Piece:
    """One row of the vocabulary; `start` and `stop` are where its bytes lie in the file, its tag included."""

    text: str
    score: float
    kind: int
    start: int
    stop: int


def read_pieces(data: bytes, where: object) -> list[Piece]:
    """The pieces of a model in the order of their ids; raises DataError for a file that is damaged or has sizes of no real one."""
    try:
        if len(data) > BYTES:
            raise ValueError(f"it has {len(data):,} bytes")
        found = []
        for number, value, start, stop in fields(data):
            if number == 1:
                found.append(_piece(value, start, stop))
            elif number in (3, 5):  # the normalizer and the denormalizer
                _check_normalizer(value)
            if len(found) > PIECES:
                raise ValueError(f"it has more than {PIECES:,} pieces")
        if sum(piece.kind == UNKNOWN for piece in found) != 1 or len({piece.text for piece in found}) < len(found):
            raise ValueError("its pieces are not distinct, or none or several are the unknown one")
        return found
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise DataError(f"{where} is no sound SentencePiece model ({str(error)[:100]}): copy it again") from error


def fields(data: bytes) -> Iterator[tuple[int, int | bytes, int, int]]:
    """(field number, value, start, stop) of each field of a message; raises ValueError for one that is cut."""
    place = 0
    while place < len(data):
        start = place
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(data, place)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, place = _varint(data, place)
            if size is None or place + size > len(data):
                raise ValueError(f"it is cut or damaged at byte {start:,}")
            value, place = data[place : place + size], place + size
        yield tag >> 3, value, start, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        value, place = value | (byte & 127) << shift, place + 1
        if byte < 128:
            return value, place
    raise ValueError("it holds a number of more than ten bytes")


def _piece(message: bytes, start: int, stop: int) -> Piece:
    known = {number: value for number, value, _, _ in fields(message)}
    text, score = known.get(1, b"").decode(), struct.unpack("<f", known.get(2, bytes(4)))[0]
    kind = known.get(3, NORMAL)
    if not text or not math.isfinite(score) or kind not in range(1, 7):
        raise ValueError(f"the piece at byte {start:,} is empty, or of no kind or score")
    return Piece(text, score, kind, start, stop)


def _check_normalizer(message: bytes) -> None:
    table = next((value for number, value, _, _ in fields(message) if number == 2), b"")
    if table:
        _check_table(table)


def _check_table(table: bytes) -> None:
    """Its size, a double-array trie of uint32 units, then the NUL-ended strings that its leaves point to: nothing may point outside.

    A unit's top bit says that it is a leaf; else it holds the offset, by XOR, of its 256 children.
    """
    size = struct.unpack_from("<I", table)[0]
    if size % 1024 or not size or 4 + size >= len(table) or table[-1]:
        raise ValueError("its normalizer's table is cut or damaged")
    units = np.frombuffer(table, "<u4", size // 4, 4).astype(np.int64)
    leaf = units >> 31 == 1
    children = np.arange(len(units)) ^ ((units >> 10) << ((units & 512) >> 6))
    if (children[~leaf] | 255).max(initial=0) >= len(units) or (units[leaf] & 0x7FFFFFFF).max(initial=0) >= len(table) - 4 - size:
        raise ValueError("its normalizer's table points outside of itself")


def rewrite(data: bytes, pieces: Sequence[Piece], changed: Mapping[int, Piece]) -> bytes:
    """The file with other texts or scores for some pieces, by id."""
    parts, place = [], 0
    for i, piece in sorted(changed.items()):
        parts += [data[place : pieces[i].start], _message(piece)]
        place = pieces[i].stop
    return b"".join([*parts, data[place:]])


def _message(piece: Piece) -> bytes:
    text = piece.text.encode()
    body = b"\n" + _as_varint(len(text)) + text + b"\x15" + struct.pack("<f", piece.score) + b"\x18" + bytes([piece.kind])
    return b"\n" + _as_varint(len(body)) + body


def _as_varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def spans(message: bytes) -> list[tuple[int, int, int]]:
    """(piece id, start, stop) in bytes of the text, from the library's serialized result."""
    found = []
    for number, value, _, _ in fields(message):
        if number == 2:
            known = {key: part for key, part, _, _ in fields(value)}
            found.append((known.get(2, 0), known.get(4, 0), known.get(5, 0)))
    return found
