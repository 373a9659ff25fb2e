"""The store of labelled examples: columns of numbers, memory-mapped out of one Arrow file beside a manifest with its digest.

An example is a dict that a task made of a record: "tokens" and other columns with one value a token (or one list of a fixed
size), "whole" (columns with one value an example, which is that of its first token), "cut" (tokens lost by truncation), "about"
(what predictions need and the device does not). A pair has "targets" too, of a length of their own, none where they are not
known, and its "target_cut" is their share of "cut", which is not kept. Read next: `example_batches.py`.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jaxlm.atomic import new_file, write_atomically
from jaxlm.data.store import MANIFEST
from jaxlm.errors import DataError

FORMAT = 1
FILE = "examples.arrow"
GROUP = 4096  # examples of one record batch: what writing holds in memory
Example = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """An opened store of n examples."""

    directory: Path
    lengths: np.ndarray  # int64 [n]: tokens of each
    records: np.ndarray  # int64 [n]: the number of the record that it was made of; examples of one are neighbours
    cut: int  # tokens lost by truncation, in all
    cut_records: int  # records that lost some
    groups: tuple[pa.RecordBatch, ...]
    firsts: np.ndarray  # int64 [groups]: the first example of each

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of numbers."""
        known = {"record", "cut", "about"}
        return tuple(name for name in (self.groups[0].schema.names if self.groups else ["tokens"]) if name not in known)

    @functools.cached_property
    def target_lengths(self) -> np.ndarray | None:
        """int64 [n]: targets of each pair; None where examples have one side."""
        if "targets" not in self.columns:
            return None
        return np.concatenate([np.diff(group.column("targets").offsets.to_numpy()) for group in self.groups])

    def column(self, name: str, example: int) -> np.ndarray:
        """[n] or [n, k] of an example's tokens; of a column with one value an example [1] or [1, k]."""
        group = int(np.searchsorted(self.firsts, example, "right")) - 1
        values, starts = self._arrays[group][name]
        at = example - int(self.firsts[group])
        return values[starts[at] : starts[at + 1]]

    def about(self, example: int) -> dict[str, Any]:
        """What predictions need beside the numbers; "record" is the record's number."""
        group = int(np.searchsorted(self.firsts, example, "right")) - 1
        text = self.groups[group].column("about")[example - int(self.firsts[group])].as_py()
        return {**json.loads(text), "record": int(self.records[example])}

    @functools.cached_property
    def _arrays(self) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
        return [{name: _flat(group.column(name)) for name in self.columns} for group in self.groups]


def _flat(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Values of all examples, one after the other, and where each begins."""
    values, starts = column.values, column.offsets.to_numpy()
    if pa.types.is_fixed_size_list(values.type):
        return values.values.to_numpy().reshape(-1, values.type.list_size), starts
    return values.to_numpy(), starts


def write_examples(directory: Path, examples: Iterable[tuple[int, Example]], about: dict[str, Any]) -> None:
    """Write the store of (record, example) pairs, whole or not at all.

    Args:
      about: goes into the manifest.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rows, damaged = 0, set()
    with new_file(directory / FILE) as file:
        writer = None
        for group in _batched(examples, GROUP):
            batch = _record_batch(group)
            writer = writer or pa.ipc.new_file(file, batch.schema)
            writer.write_batch(batch)
            rows += len(group)
            damaged |= {record for record, example in group if example["cut"]}
        if writer:
            writer.close()
    with open(directory / FILE, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = {"format": FORMAT, "examples": rows, "cut_records": len(damaged), "sha256": digest, **about}
    write_atomically(directory / MANIFEST, json.dumps(manifest, indent=1).encode())


def _batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    items = iter(items)
    while group := tuple(itertools.islice(items, size)):
        yield group


def _record_batch(group: tuple[tuple[int, Example], ...]) -> pa.RecordBatch:
    first = group[0][1]
    names = [name for name in first if name not in ("whole", "cut", "target_cut", "about")]
    columns = {name: _lists([example[name] for _, example in group]) for name in names}
    columns |= {name: _lists([[example["whole"][name]] for _, example in group]) for name in first.get("whole", ())}
    columns["record"] = pa.array([record for record, _ in group], pa.int64())
    columns["cut"] = pa.array([example["cut"] for _, example in group], pa.int64())
    columns["about"] = pa.array([json.dumps(example.get("about", {})) for _, example in group], pa.large_string())
    return pa.record_batch(columns)


def _lists(rows: list[Any]) -> pa.Array:
    """A list a row, of numbers or of lists of one size: whole numbers int32, others float32."""
    arrays = [np.asarray(row) for row in rows]
    dtype = np.float32 if any(array.dtype.kind == "f" for array in arrays if array.size) else np.int32
    values = np.concatenate([array.astype(dtype) for array in arrays])
    offsets = pa.array(np.cumsum([0, *map(len, arrays)]), pa.int64())
    flat = pa.array(values.ravel())
    inner = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if values.ndim == 2 else flat
    return pa.LargeListArray.from_arrays(offsets, inner)


def open_examples(directory: Path) -> Examples:
    """Open a store, checked against its manifest. Raises DataError, naming what is damaged and what to delete."""
    mend = f"delete {directory.parent}: it is prepared again"
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        with open(directory / FILE, "rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == manifest["sha256"] and manifest["format"] == FORMAT
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the examples in {directory} cannot be read ({error}): {mend}") from error
    if not whole:
        raise DataError(f"the examples in {directory} are damaged (their SHA-256 is not the manifest's): {mend}")
    groups = ()
    if manifest["examples"]:
        reader = pa.ipc.open_file(pa.memory_map(str(directory / FILE)))
        groups = tuple(reader.get_batch(number) for number in range(reader.num_record_batches))
    return _opened(directory, groups, manifest["cut_records"])


def in_memory(examples: Iterable[tuple[int, Example]]) -> Examples:
    """(record, example) pairs as an opened store, for a prediction that nobody keeps."""
    groups = tuple(_record_batch(group) for group in _batched(examples, GROUP))
    cut = {
        record
        for group in groups
        for record, lost in zip(*(group.column(name).to_pylist() for name in ("record", "cut")), strict=True)
        if lost
    }
    return _opened(Path(), groups, len(cut))


def _opened(directory: Path, groups: tuple[pa.RecordBatch, ...], cut_records: int) -> Examples:
    joined = lambda make: np.concatenate([np.zeros(0, np.int64), *map(make, groups)])
    return Examples(
        directory=directory,
        lengths=joined(lambda group: np.diff(group.column("tokens").offsets.to_numpy())),
        records=joined(lambda group: group.column("record").to_numpy()),
        cut=int(joined(lambda group: group.column("cut").to_numpy()).sum()),
        cut_records=cut_records,
        groups=groups,
        firsts=np.cumsum([0, *(len(group) for group in groups)], dtype=np.int64)[:-1],
    )
