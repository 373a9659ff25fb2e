"""The prepared store: token ids of documents in memory-mapped Arrow shards beside a manifest of digests.

A directory of `00000.arrow, ...` (columns `tokens`, a list of uint16 or int32 a document, and `bytes`, the length of its
text in UTF-8) and `manifest.json`. Every shard is hashed when the store is opened: a damaged one is named then, and is
never trained on. Read next: `rows.py`.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jaxlm.atomic import write_atomically
from jaxlm.errors import DataError

FORMAT = 1
MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """An opened store; positions count the tokens of all its documents, one after the other."""

    directory: Path
    tokenizer: str  # digest of the tokenizer that made the ids
    vocab_size: int
    lengths: np.ndarray  # int64 [documents]: tokens of each
    starts: np.ndarray  # int64 [documents]: position of its first token
    bytes: int  # of all texts, in UTF-8
    shards: tuple[np.ndarray, ...]  # token ids, memory-mapped
    firsts: np.ndarray  # int64 [shards]: position of a shard's first token

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    def slice(self, document: int, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of one document, a view of the file."""
        first = int(self.starts[document])
        return self.stream(first + start, first + min(stop, int(self.lengths[document])))

    def stream(self, start: int, stop: int) -> np.ndarray:
        """Tokens at positions [start, stop); a view of the file where they lie in one shard."""
        parts = []
        shard = max(0, int(np.searchsorted(self.firsts, start, "right")) - 1)
        while start < stop and shard < len(self.shards):
            first = int(self.firsts[shard])
            parts.append(self.shards[shard][start - first : stop - first])
            start, shard = first + len(self.shards[shard]), shard + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, np.uint16)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The tokens at positions of any shape: int32 of that shape."""
        if len(self.shards) == 1:
            return self.shards[0][positions].astype(np.int32)
        tokens = np.empty(positions.shape, np.int32)
        owner = np.searchsorted(self.firsts, positions, "right") - 1
        for shard in np.unique(owner):
            mine = owner == shard
            tokens[mine] = self.shards[shard][positions[mine] - self.firsts[shard]]
        return tokens

    def document_at(self, position: int) -> int:
        """The number of the document that holds a position."""
        return int(np.searchsorted(self.starts, position, "right")) - 1


def write_shard(path: Path, documents: Sequence[Sequence[int]], sizes: Sequence[int], vocab_size: int) -> dict[str, Any]:
    """Write one shard, whole or not at all; returns its row of the manifest.

    Args:
      documents: token ids of each document.
      sizes: bytes of each document's text.
    """
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.int32
    tokens = np.concatenate([np.asarray(ids, dtype) for ids in documents]) if len(documents) else np.zeros(0, dtype)
    offsets = np.cumsum([0] + [len(ids) for ids in documents])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(tokens))
    batch = pa.record_batch([lists, pa.array(sizes, pa.int64())], names=["tokens", "bytes"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content = sink.getvalue()
    write_atomically(path, content)
    return {
        "name": path.name,
        "rows": len(documents),
        "tokens": len(tokens),
        "bytes": int(sum(sizes)),
        "size": content.size,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def write_manifest(directory: Path, shards: list[dict[str, Any]], tokenizer: str, vocab_size: int) -> None:
    """Write `manifest.json`, which makes a directory of shards a store."""
    manifest = {"format": FORMAT, "tokenizer": tokenizer, "vocab_size": vocab_size, "shards": shards}
    write_atomically(directory / MANIFEST, json.dumps(manifest, indent=1).encode())


def open_store(directory: str | Path) -> Store:
    """Open a store and check every shard against the manifest (some 600 MB/s a core, all cores).

    Raises DataError naming the shard that is cut, empty, flipped or missing, and what to delete.
    """
    directory = Path(directory)
    manifest = _manifest(directory)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        columns = list(pool.map(lambda row: _open_shard(directory, row), manifest["shards"]))
    lengths = np.concatenate([np.diff(offsets) for _, offsets in columns] or [np.zeros(0, np.int64)])
    totals = [row["tokens"] for row in manifest["shards"]]
    return Store(
        directory=directory,
        tokenizer=manifest["tokenizer"],
        vocab_size=manifest["vocab_size"],
        lengths=lengths,
        starts=np.cumsum(lengths) - lengths,
        bytes=sum(row["bytes"] for row in manifest["shards"]),
        shards=tuple(tokens for tokens, _ in columns),
        firsts=np.cumsum([0, *totals], dtype=np.int64)[:-1],
    )


def _mend(directory: Path) -> str:
    return f"delete {directory.parent}: it is prepared again"


def _manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] == FORMAT:
            return manifest
        problem = f"is of format {manifest['format']} and this jaxlm reads {FORMAT}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"cannot be read ({error})"
    raise DataError(f"the manifest {path} {problem}: {_mend(directory)}")


def _open_shard(directory: Path, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    path = directory / row["name"]
    size = path.stat().st_size if path.is_file() else None
    if size != row["size"]:
        problem = "missing" if size is None else "empty" if size == 0 else f"cut or grown ({size} bytes, not {row['size']})"
        raise DataError(f"the shard {path} is {problem}: {_mend(directory)}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != row["sha256"]:
            raise DataError(f"the shard {path} is damaged (its SHA-256 is not the manifest's): {_mend(directory)}")
    lists = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column("tokens")
    return lists.values.to_numpy(zero_copy_only=True), lists.offsets.to_numpy()
