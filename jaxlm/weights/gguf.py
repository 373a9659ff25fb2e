"""GGUF files (llama.cpp's): a header of key-value pairs, the tensors' names and places, then their blocks.

Bounded: a count, a length or an offset is believed only as far as the file has bytes for it. What the keys and the tensors
mean for a model is in `gguf_models.py`; the blocks are read by `quantized.py`.
"""

import dataclasses
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.errors import DataError
from jaxlm.weights import quantized
from jaxlm.weights.tensors import BFLOAT16, Spec, map_file, view

MAGIC, VERSIONS = b"GGUF", (2, 3)
# GGUF's number of a value's type -> its spelling for `struct` and NumPy; strings and arrays are read apart.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
DENSE = {0: np.dtype("f4"), 1: np.dtype("f2"), 30: BFLOAT16}
NAME_LIMIT, KEYS_LIMIT, TENSORS_LIMIT = 65535, 1 << 16, 1 << 16


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor's place: shape as NumPy has it (GGUF's reversed), and its block kind, or None for plain numbers."""

    spec: Spec
    start: int
    nbytes: int
    kind: quantized.Kind | None


@dataclasses.dataclass(frozen=True)
class File:
    """An opened file: its keys, and its tensors by name."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    data: np.ndarray

    def read(self, name: str) -> np.ndarray:
        """A tensor: float32 where it is quantised, else in its stored type."""
        tensor = self.tensors[name]
        if tensor.kind is None:
            return view(self.data, tensor.start, tensor.spec)
        return quantized.dequantise(self.data[tensor.start : tensor.start + tensor.nbytes], tensor.kind).reshape(tensor.spec.shape)


def open_file(path: Path) -> File:
    """Read the header of a file; raises DataError for a damaged one, and for tensors of a type that is not read."""
    data = map_file(path)
    try:
        reader = _Reader(data)
        count, keys = reader.begin()
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            name = reader.string(NAME_LIMIT)
            if name in metadata:
                raise ValueError(f"the key {name[:100]} comes twice")
            metadata[name] = reader.value(reader.scalar("I"))
        return File(metadata, _tensors(reader, count, metadata.get("general.alignment", 32)), data)
    except (ValueError, struct.error) as error:  # a UnicodeDecodeError is a ValueError
        raise DataError(
            f"{path} cannot be read as GGUF ({' '.join(str(error).split())[:300]}): get it again, or another quantisation"
        ) from error


class _Reader:
    """A place in the header that moves forward."""

    def __init__(self, data: np.ndarray):
        self.data, self._bytes, self.place = data, memoryview(data), 0

    def begin(self) -> tuple[int, int]:
        """How many tensors and how many keys there are."""
        if bytes(self.take(4)) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self.scalar("I")
        if version not in VERSIONS:
            raise ValueError(f"version {version}; versions 2 and 3 are read")
        tensors, keys = self.scalar("Q"), self.scalar("Q")
        if tensors > TENSORS_LIMIT or keys > KEYS_LIMIT:
            raise ValueError(f"{tensors:,} tensors and {keys:,} keys are more than any real one has")
        return tensors, keys

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.place:
            raise ValueError(f"it ends within its header, at byte {len(self.data):,}")
        self.place += size
        return self._bytes[self.place - size : self.place]

    def scalar(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def string(self, limit: int | None = None) -> str:
        size = self.scalar("Q")
        if limit is not None and size > limit:
            raise ValueError(f"a name of {size:,} bytes")
        return str(self.take(size), "utf-8")

    def value(self, kind: int, inside: bool = False) -> Any:
        """A scalar, a string, or a list of strings or an array of numbers."""
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY or inside:
            raise ValueError(f"a value of type {kind}" + (" within an array" if inside else ""))
        kind, count = self.scalar("I"), self.scalar("Q")
        if kind in SCALARS:
            dtype = np.dtype("<" + SCALARS[kind])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype)
        if count > (len(self.data) - self.place) // 8:  # each string has at least its length
            raise ValueError(f"an array of {count:,} values in a file of {len(self.data):,} bytes")
        return [self.value(kind, inside=True) for _ in range(count)]


def _tensors(reader: _Reader, count: int, alignment: Any) -> dict[str, Tensor]:
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 16:
        raise ValueError(f"general.alignment is {str(alignment)[:30]}")
    infos = [_read_info(reader) for _ in range(count)]
    begin = -(-reader.place // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    for name, shape, number, offset in infos:
        kind = quantized.KINDS.get(number)
        spec = Spec(shape, np.dtype("f4") if kind else DENSE[number])
        size = math.prod(shape) // kind.numbers * kind.nbytes if kind else spec.nbytes
        if name in tensors or begin + offset + size > len(reader.data) or (kind and (not shape or shape[-1] % kind.numbers)):
            raise ValueError(f"{name[:100]} {list(shape)} comes twice, or does not fit into the file")
        tensors[name] = Tensor(spec, begin + offset, size, kind)
    return tensors


def _read_info(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, number of the type, offset."""
    name, axes = reader.string(NAME_LIMIT), reader.scalar("I")
    if axes > 4:
        raise ValueError(f"{name[:100]} has {axes} axes")
    shape = tuple(reader.scalar("Q") for _ in range(axes))[::-1]
    number, offset = reader.scalar("I"), reader.scalar("Q")
    if number not in quantized.KINDS and number not in DENSE:
        known = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K are read"
        raise ValueError(f"{name[:100]} is of type {quantized.NOT_READ.get(number, number)}; {known}")
    return name, shape, number, offset
