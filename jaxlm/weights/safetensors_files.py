"""Folders of safetensors: one file, or several and an index.

The format's own library checks and writes the files. Tensors are read in place, out of the mapped file: the library's
`get_tensor` copies each once more, which costs as much time as the rest of the loading.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from jaxlm.errors import DataError
from jaxlm.weights.strict_json import parse_object, read_object
from jaxlm.weights.tensors import BFLOAT16, Checkpoint, Outgoing, Spec, map_file, natural, view

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADER_LIMIT = 32 << 20  # bytes: some 300,000 tensors
DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "BOOL": "?"}
DTYPES |= {"U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BF16": BFLOAT16}
Located = dict[str, tuple[Spec, np.ndarray, int]]  # name -> what it is, the file's bytes, where it begins


def open_folder(folder: Path, config: dict) -> Checkpoint:
    """The checkpoint of a folder with `model.safetensors`, or with its index and shards.

    Raises:
      DataError: a damaged or hostile file, a type that is not read, a shard that is missing.
    """
    if not (folder / INDEX).is_file():
        found, where = _open_file(folder / FILE), folder / FILE
    else:
        found, where = _open_shards(folder), folder / INDEX
    specs = {name: spec for name, (spec, _, _) in found.items()}
    return Checkpoint(config, specs, lambda name: view(found[name][1], found[name][2], found[name][0]), str(where))


def _open_shards(folder: Path) -> Located:
    weight_map = read_index(folder / INDEX, "safetensors")
    found: Located = {}
    for file in sorted(set(weight_map.values())):
        for name, located in _open_file(folder / file).items():
            if name in found:
                raise DataError(f"{folder / file}: the tensor {name} is in another shard too: get the files again")
            found[name] = located
    missing = [name for name in weight_map if name not in found]
    if missing:
        raise DataError(f"{folder / INDEX} names {missing[0]}, which no shard holds: get the files again")
    return found


def read_index(path: Path, suffix: str) -> dict[str, str]:
    """Tensor -> file of a shard index; a file outside the index's own folder is refused."""
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError(f"{path} holds no weight_map: get the file again")
    for file in weight_map.values():
        if not isinstance(file, str) or not re.fullmatch(rf"\w[\w.-]*\.{suffix}", file, re.ASCII):
            raise DataError(f"{path}: {str(file)[:100]!r} is no name of a .{suffix} file beside it: get the file again")
        if not (path.parent / file).is_file():
            raise DataError(f"{path.parent} lacks {file}, which its index names: get the file again")
    return weight_map


def _open_file(path: Path) -> Located:
    from safetensors import SafetensorError, safe_open

    data = map_file(path)
    found = {name: (spec, data, start) for name, (spec, start) in _read_header(data, path).items()}
    try:
        with safe_open(path, framework="np"):
            return found
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is no readable safetensors file ({str(error)[:200]}): get it again") from error


def _read_header(data: np.ndarray, path: Path) -> dict[str, tuple[Spec, int]]:
    """Every tensor's spec and first byte; nothing is believed that the file's size does not bear out."""
    size = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or size > min(len(data) - 8, HEADER_LIMIT):
        raise DataError(f"{path}: its header should have {size:,} bytes and the file has {len(data):,}: get the file again")
    header = parse_object(data[8 : 8 + size].tobytes(), f"the header of {path}")
    header.pop("__metadata__", None)
    found, begin = {}, 8 + size
    for name, entry in header.items():
        spec, (start, end) = _read_entry(entry, f"{path}: {name[:200]}")
        if end - start != spec.nbytes or begin + end > len(data):
            raise DataError(f"{path}: {name[:200]} {list(spec.shape)} does not fit its bytes {start} to {end}: get the file again")
        found[name] = (spec, begin + start)
    return found


def _read_entry(entry: object, where: str) -> tuple[Spec, tuple[int, int]]:
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    lists = isinstance(shape, list) and len(shape) <= 32 and isinstance(offsets, list) and len(offsets) == 2
    if not lists or not all(natural(n) for n in (*shape, *offsets)):
        raise DataError(f"{where} has no readable shape and offsets: get the file again")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise DataError(f"{where} is of type {str(dtype)[:30]}, which is not read here: convert it to BF16, F16 or F32 first")
    return Spec(tuple(shape), np.dtype(DTYPES[dtype])), tuple(offsets)


def write_folder(folder: Path, config: dict, tensors: Iterable[Outgoing], limit: int, more: Callable[[Path], None]) -> None:
    """config.json and the tensors, in shards of at most `limit` bytes and an index where they need several.

    All of it is written beside the folder and renamed at the end: a folder that is there already keeps its other files and
    loses the weights of before. `more` writes further files into the folder that it is given.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True) as name:
        partial = Path(name)
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _write_shards(partial, list(tensors), limit)
        for file in partial.glob("*.safetensors"):  # the library makes its owner's alone of them
            file.chmod((partial / "config.json").stat().st_mode)
        more(partial)
        if folder.is_dir():
            _move_into(folder, partial)
        else:
            partial.chmod(0o755)  # a temporary directory is its owner's alone
            partial.rename(folder)


def _move_into(folder: Path, partial: Path) -> None:
    new = sorted(path.name for path in partial.iterdir())
    for name in sorted(new, key=lambda name: (name == INDEX, name == "config.json")):  # what names the others comes last
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            shutil.rmtree(folder / name)
        os.replace(partial / name, folder / name)
    for old in (path for path in folder.glob("model*.safetensors*") if path.name not in new):
        old.unlink()


def _write_shards(folder: Path, tensors: list[Outgoing], limit: int) -> None:
    from safetensors.numpy import save_file

    shards = _shards(tensors, limit)
    names = [FILE] if len(shards) == 1 else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        save_file({tensor.name: tensor.make() for tensor in shard}, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors)}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: list[Outgoing], limit: int) -> list[list[Outgoing]]:
    """The tensors in their order, as many together as fit; one that is larger than the limit is alone."""
    shards: list[list[Outgoing]] = [[]]
    room = limit
    for tensor in tensors:
        if shards[-1] and tensor.nbytes > room:
            shards.append([])
            room = limit
        shards[-1].append(tensor)
        room -= tensor.nbytes
    return shards
