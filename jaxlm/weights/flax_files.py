"""Folders of Transformers' old Flax models: `flax_model.msgpack`, or its index and shards, read by `msgpack` alone.

A file is one map of maps; its leaves are arrays as Flax packs them (extension type 1: shape, type's name, bytes) or, above
1 GiB, a map of their chunks. The file is walked once for names and places; no array is read before it is asked for.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.errors import DataError
from jaxlm.weights.safetensors_files import read_index
from jaxlm.weights.tensors import BFLOAT16, Checkpoint, Spec, map_file, natural, view

FILE, INDEX = "flax_model.msgpack", "flax_model.msgpack.index.json"
CHUNKED = "__msgpack_chunked_array__"
ARRAY, DEPTH = 1, 32  # the extension's type; maps within maps
# Flax's names of weights -> torch's.
WEIGHTS = {"kernel": "weight", "embedding": "weight", "scale": "weight"}
DTYPES = {"float32": "f4", "float16": "f2", "bfloat16": BFLOAT16, "float64": "f8", "int32": "i4", "int64": "i8", "bool": "?"}
HEADERS = {0xC7: 1, 0xC8: 2, 0xC9: 4}  # first byte of an extension -> bytes of its length
FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # -> its length


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """An array in a file: its chunks, each with its first byte."""

    data: np.ndarray
    spec: Spec
    chunks: tuple[tuple[Spec, int], ...]

    def read(self) -> np.ndarray:
        parts = [view(self.data, start, spec) for spec, start in self.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts).reshape(self.spec.shape)


def open_folder(folder: Path, config: dict) -> Checkpoint:
    """The checkpoint of an old Flax folder, under torch's names: kernels become weights and are transposed.

    Raises DataError for a damaged or hostile file, or a shard that is missing.
    """
    sharded = not (folder / FILE).is_file()
    files = sorted(set(read_index(folder / INDEX, "msgpack").values())) if sharded else [FILE]
    found: dict[str, tuple[_Leaf, bool]] = {}
    for file in files:
        for path, leaf in _leaves(folder / file):
            name, transposed = _torch_name(path, leaf.spec)
            if name in found:
                raise DataError(f"{folder / file}: {'.'.join(path)} and another array are both {name}: get the files again")
            found[name] = (leaf, transposed)
    specs = {name: Spec(leaf.spec.shape[::-1] if turned else leaf.spec.shape, leaf.spec.dtype) for name, (leaf, turned) in found.items()}
    read = lambda name: found[name][0].read().T if found[name][1] else found[name][0].read()
    return Checkpoint(config, specs, read, str(folder / (INDEX if sharded else FILE)))


def _torch_name(path: tuple[str, ...], spec: Spec) -> tuple[str, bool]:
    """Torch's name of a path, and whether the array is transposed (GPT-2's too: Flax kept its Conv1D as [outputs, inputs])."""
    *folders, last = path
    return ".".join((*folders, WEIGHTS.get(last, last))), last == "kernel" and len(spec.shape) == 2


def _leaves(path: Path) -> Iterator[tuple[tuple[str, ...], _Leaf]]:
    data = map_file(path)
    try:
        with path.open("rb") as file:
            walked = _Walk(data, file)
            yield from walked.leaves(())
            if walked.place != len(data):
                raise ValueError(f"{len(data) - walked.place} bytes follow its end")
    except DataError:
        raise
    except Exception as error:  # msgpack's own errors are of many kinds
        raise DataError(f"{path} is no readable Flax file ({type(error).__name__}: {str(error)[:150]}): get it again") from error


class _Walk:
    """A pass through a file that reads keys and skips arrays."""

    def __init__(self, data: np.ndarray, file: Any):
        import msgpack

        self._data = data
        self._unpacker = msgpack.Unpacker(
            file, raw=False, max_buffer_size=max(len(data), 1), max_str_len=4096, max_map_len=1 << 20, max_array_len=0, max_bin_len=0
        )

    @property
    def place(self) -> int:
        return self._unpacker.tell()

    def leaves(self, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Leaf]]:
        if len(path) > DEPTH:
            raise ValueError(f"more than {DEPTH} maps within maps")
        seen, count = set(), self._unpacker.read_map_header()
        for number in range(count):
            key = self._unpacker.unpack()
            if not isinstance(key, str) or key in seen:
                raise ValueError(f"{str(key)[:50]!r} is no key, or comes twice")
            if number == 0 and key == CHUNKED:
                if not path or count != 3:
                    raise ValueError("chunks without a name, or not of one array")
                yield path, self._chunked()
                return
            seen.add(key)
            if self._first() in range(0x80, 0x90) or self._first() in (0xDE, 0xDF):
                yield from self.leaves((*path, key))
            else:
                yield (*path, key), self._array((*path, key))

    def _first(self) -> int:
        return int(self._data[self.place])

    def _array(self, path: tuple[str, ...]) -> _Leaf:
        start = self.place
        self._unpacker.skip()
        spec, begin = _array_header(self._data[start : self.place], ".".join(path))
        return _Leaf(self._data, spec, ((spec, start + begin),))

    def _chunked(self) -> _Leaf:
        """The rest of a map of chunks: {CHUNKED: True, "shape": {"0": ..}, "chunks": {"0": array, ..}}."""
        self._unpacker.unpack()
        content = {}
        for _ in range(2):
            key = self._unpacker.unpack()
            count = self._unpacker.read_map_header()
            values = [(self._unpacker.unpack(), self._array((key,)) if key == "chunks" else self._unpacker.unpack()) for _ in range(count)]
            content[key] = [value for _, value in sorted(values, key=lambda pair: int(pair[0]))]
        shape, chunks = content["shape"], [leaf.chunks[0] for leaf in content["chunks"]]
        kinds = {chunk.dtype for chunk, _ in chunks}
        if not all(natural(n) for n in shape) or len(kinds) != 1 or sum(math.prod(c.shape) for c, _ in chunks) != math.prod(shape):
            raise ValueError("the chunks of an array do not make its shape")
        return _Leaf(self._data, Spec(tuple(shape), kinds.pop()), tuple(chunks))


def _array_header(data: np.ndarray, name: str) -> tuple[Spec, int]:
    """Spec of a packed array, and where its bytes begin; `data` is the whole extension."""
    import msgpack

    first = int(data[0])
    if first not in HEADERS and first not in FIXED:
        raise ValueError(f"{name[:100]} is no array")
    begin = 2 + HEADERS.get(first, 0)
    if data[begin - 1] != ARRAY:
        raise ValueError(f"{name[:100]} is of an extension type that is not read here")
    head = data[begin : begin + 512].tobytes()
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=len(head) or 1, max_array_len=32, max_str_len=32)
    unpacker.feed(head)
    if unpacker.read_array_header() != 3:
        raise ValueError(f"{name[:100]} is no array")
    shape, dtype = unpacker.unpack(), unpacker.unpack()
    if not isinstance(shape, list) or not all(natural(n) for n in shape) or dtype not in DTYPES:
        raise ValueError(f"{name[:100]} has shape {str(shape)[:50]} and type {str(dtype)[:30]}, which is not read here")
    spec = Spec(tuple(shape), np.dtype(DTYPES[dtype]))
    return spec, _bytes_begin(data, begin + unpacker.tell(), spec, name)


def _bytes_begin(data: np.ndarray, place: int, spec: Spec, name: str) -> int:
    """Behind the length of the bytes (bin8, bin16, bin32), which must be the rest of the extension."""
    lengths = {0xC4: 1, 0xC5: 2, 0xC6: 4}
    begin = place + 1 + lengths.get(int(data[place]), 0)
    stated = int.from_bytes(data[place + 1 : begin].tobytes(), "big")
    if int(data[place]) not in lengths or stated != spec.nbytes or begin + stated != len(data):
        raise ValueError(f"{name[:100]} {list(spec.shape)} does not fit its bytes")
    return begin
