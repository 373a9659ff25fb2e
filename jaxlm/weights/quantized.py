"""The quantised blocks of GGUF as float32: 32 or 256 numbers share a scale.

Layouts after ggml's reference (the structs block_q4_0 ... block_q6_K). Every function takes the blocks, uint8 [n, bytes], and
returns their values, float32 [n, numbers].
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

Blocks = UInt8[np.ndarray, "n bytes"]
Values = Float[np.ndarray, "n numbers"]


def q8_0(blocks: Blocks) -> Values:
    """x = d q: a half and 32 signed bytes."""
    return _halves(blocks, 0) * blocks[:, 2:].view(np.int8)


def q4_0(blocks: Blocks) -> Values:
    """x = d (q - 8): a half and 32 nibbles, the low ones first."""
    return _halves(blocks, 0) * (_nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8))


def q4_1(blocks: Blocks) -> Values:
    """x = d q + m: two halves and 32 nibbles."""
    values = _halves(blocks, 0) * _nibbles(blocks[:, 4:])
    values += _halves(blocks, 2)
    return values


def q4_k(blocks: Blocks) -> Values:
    """x = d s q - m t: 8 groups of 32, each with a scale s and a minimum t of 6 bits; two halves d and m for all."""
    scales, minima = _six_bits(blocks[:, 4:16])
    # 4 runs of 32 bytes: the low nibbles of each are a group, the high ones the next
    numbers = _nibbles(blocks[:, 16:].reshape(-1, 32)).reshape(-1, 8, 32)
    values = (_halves(blocks, 0) * scales)[..., None] * numbers
    values -= (_halves(blocks, 2) * minima)[..., None]
    return values.reshape(-1, 256)


def q6_k(blocks: Blocks) -> Values:
    """x = d s (q - 32): 16 groups of 16 with a signed byte s each; 4 low bits and 2 high bits of q lie apart."""
    low = _nibbles(blocks[:, :128].reshape(-1, 64)).reshape(-1, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(-1, 1, 32) >> shifts) & np.uint8(3)
    numbers = (low | high << np.uint8(4)).view(np.int8) - np.int8(32)
    scales = _halves(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return (scales[..., None] * numbers.reshape(-1, 16, 16)).reshape(-1, 256)


def _halves(blocks: Blocks, start: int) -> Float[np.ndarray, "n 1"]:
    return np.ascontiguousarray(blocks[:, start : start + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: UInt8[np.ndarray, "n half"]) -> UInt8[np.ndarray, "n whole"]:
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)


def _six_bits(packed: UInt8[np.ndarray, "n 12"]) -> tuple[np.ndarray, np.ndarray]:
    """Eight scales and eight minima: four of each in 6 bits of a byte, four as a nibble and the spare bits of the first four."""
    first, second, rest = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = [first & 63, (rest & 15) | (first >> 6 << 4)]
    minima = [second & 63, (rest >> 4) | (second >> 6 << 4)]
    return np.concatenate(scales, 1).astype(np.float32), np.concatenate(minima, 1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A block: how many numbers it holds, in how many bytes, and how they are read."""

    numbers: int
    nbytes: int
    decode: Callable[[Blocks], Values]


# GGUF's number of the type.
KINDS = {2: Kind(32, 18, q4_0), 3: Kind(32, 20, q4_1), 8: Kind(32, 34, q8_0), 12: Kind(256, 144, q4_k), 14: Kind(256, 210, q6_k)}
NOT_READ = {6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS"}
NOT_READ |= {19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64"}
NOT_READ |= {29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}


def dequantise(data: UInt8[np.ndarray, "bytes"], kind: Kind) -> Float[np.ndarray, "numbers"]:
    """The values of blocks that lie one after the other."""
    return kind.decode(data.reshape(-1, kind.nbytes)).reshape(-1)
