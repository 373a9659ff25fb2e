"""A source to a store: split, tokenize, write shard by shard, find it again by a digest of everything it depends on.

A shard is a fixed run of documents, so that an interrupted `prepare` keeps the shards it had finished. Read next:
`store.py`, then `rows.py`.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm import config
from jaxlm.data import sources
from jaxlm.data.store import FORMAT, Store, open_store, write_atomically, write_manifest, write_shard
from jaxlm.errors import ConfigError, DataError
from jaxlm.text.tokenizer import Tokenizer

SHARD_BYTES = 32 << 20  # of text: some 10 million BPE tokens
BATCH_BYTES = 4 << 20  # of text tokenized at once: ids as Python integers take 30 times their text
FEW = 20  # a corpus of fewer documents is split by position
Report = Callable[[str], None]


def split(documents: Iterable[str], validation: float) -> Iterator[tuple[str, bool]]:
    """(text, held out) for every document.

    A document's side depends on a hash of its text alone, so that copies stay together; among the first 20 the lowest
    hash is held out and the highest trained on, so that neither side is empty. A corpus of fewer than 20 documents is cut
    by position: the last `validation` share of its characters is held out, through the middle of a document if need be.
    Raises DataError for an empty corpus, ConfigError for a share outside [0, 1).
    """
    if not 0 <= validation < 1:
        raise ConfigError(f"data.validation={validation} is no share: set it to at least 0 and less than 1")
    documents = iter(documents)
    first = list(itertools.islice(documents, FEW))
    if not first:
        raise DataError("the corpus is empty: data.source holds no text; name a source that does")
    if len(first) < FEW:
        return _split_by_position(first, validation)
    return _split_by_hash(itertools.chain(first, documents), validation, [_share(text) for text in first])


def _split_by_position(documents: list[str], validation: float) -> Iterator[tuple[str, bool]]:
    cut = max(1, int(sum(map(len, documents)) * (1 - validation)))
    for text in documents:
        for piece, held in ((text[: max(cut, 0)], False), (text[max(cut, 0) :], True)):
            if piece:
                yield piece, held
        cut -= len(text)


def _share(text: str) -> float:
    """Where a text's hash lies in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / (1 << 48)


def _split_by_hash(documents: Iterable[str], validation: float, shares: list[float]) -> Iterator[tuple[str, bool]]:
    lowest, highest = min(shares), max(shares)
    for text in documents:
        share = _share(text)
        yield text, validation > 0 and (share < validation or share == lowest) and share != highest


def _pairs(data: config.Data, source: str, report: Report | None = None) -> Iterator[tuple[str, bool]]:
    return split(sources.documents(source, data.column, data.split, data.data_dir, report), data.validation)


def training_documents(data: config.Data, source: str) -> Iterator[str]:
    """The texts that a run trains on; its tokenizer learns from them too."""
    return (text for text, held in _pairs(data, source) if not held)


def validation_documents(data: config.Data, source: str) -> Iterator[str]:
    """The texts that are held out."""
    return (text for text, held in _pairs(data, source) if held)


def prepare(data: config.Data, source: str, tokenizer: Tokenizer, report: Report | None = None) -> tuple[Store, Store | None]:
    """The training and the validation store of one source, out of the cache or made now.

    Args:
      source: one source; a mixture's sources are prepared one by one.
      report: is told, a line at a time, how far it is.

    The second is None where nothing is held out. Raises DataError for a bad source or a damaged store.
    """
    directory = Path(data.cache).expanduser() / "stores" / store_key(data, source, tokenizer)
    if not directory.is_dir():
        _build(directory, _pairs(data, source, report), tokenizer, report)
    validation = directory / "validation"
    return open_store(directory / "train"), open_store(validation) if validation.is_dir() else None


def store_key(data: config.Data, source: str, tokenizer: Tokenizer) -> str:
    """A digest of all that a store's content depends on."""
    files = sources.fingerprint(source, data.data_dir)
    parts = [FORMAT, SHARD_BYTES, source, files, data.column, data.split, data.validation, tokenizer.digest]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _build(directory: Path, pairs: Iterable[tuple[str, bool]], tokenizer: Tokenizer, report: Report | None) -> None:
    partial = directory.with_name(directory.name + ".partial")
    try:
        rows: dict[str, list[dict[str, Any]]] = {"train": []}
        for name, texts in _runs(pairs):
            shards = rows.setdefault(name, [])
            (partial / name).mkdir(parents=True, exist_ok=True)
            shards.append(_shard(partial / name / f"{len(shards):05d}.arrow", texts, tokenizer))
            if report:
                done = sum(row["tokens"] for row in itertools.chain(*rows.values()))
                report(f"prepared {done:,} tokens, {sum(map(len, rows.values()))} shards")
        for name, shards in rows.items():
            write_manifest(partial / name, shards, tokenizer.digest, tokenizer.vocab_size)
        os.rename(partial, directory)
    except OSError:
        # Another process that prepared the same store was first: shards are equal byte for byte, so its store is ours.
        if not directory.is_dir():
            raise
        shutil.rmtree(partial, ignore_errors=True)


def _runs(pairs: Iterable[tuple[str, bool]]) -> Iterator[tuple[str, list[str]]]:
    """The documents of each shard: (side, texts), cut by the bytes of the texts alone."""
    waiting: dict[str, list[str]] = {"train": [], "validation": []}
    filled = dict.fromkeys(waiting, 0)
    for text, held in pairs:
        name = "validation" if held else "train"
        waiting[name].append(text)
        filled[name] += len(text.encode())
        if filled[name] >= SHARD_BYTES:
            yield name, waiting[name]
            waiting[name], filled[name] = [], 0
    for name, texts in waiting.items():
        if texts:
            yield name, texts


def _shard(path: Path, texts: list[str], tokenizer: Tokenizer) -> dict[str, Any]:
    """Write a shard, or keep the one that an earlier, interrupted call made of the same texts."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(f"{len(text)} {text}".encode())
    note = path.with_suffix(".json")
    if note.is_file() and path.is_file():
        kept = json.loads(note.read_text())
        if kept["texts"] == digest.hexdigest() and path.stat().st_size == kept["row"]["size"]:
            return kept["row"]
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    ids = [np.array(found + end, np.int32) for found in _encode(texts, tokenizer)]
    row = write_shard(path, ids, [len(text.encode()) for text in texts], tokenizer.vocab_size)
    write_atomically(note, json.dumps({"texts": digest.hexdigest(), "row": row}).encode())
    return row


def _encode(texts: list[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield from tokenizer.encode_batch(batch)
            batch, size = [], 0
    yield from tokenizer.encode_batch(batch)
