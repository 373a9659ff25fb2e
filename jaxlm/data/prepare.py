"""A source to a store: portions, cleaned, split, tokenized, written shard by shard; found again by a digest of all they depend on.

Read next: `shards.py` (what is done to one portion), `drops.py` (duplicates), then `store.py` and `rows.py`.
"""

import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxlm import config
from jaxlm.atomic import one_at_a_time
from jaxlm.data import card as cards
from jaxlm.data import drops, portions, sources
from jaxlm.data.portions import Portion, source_portions
from jaxlm.data.shards import SIDES, Cleaning, Recipe, cleaner_of, digest_of, make_shards
from jaxlm.data.sources import Report
from jaxlm.data.split import Rule, make_rule
from jaxlm.data.store import FORMAT, Store, open_store, write_manifest
from jaxlm.data.workers import ordered_map
from jaxlm.errors import DataError
from jaxlm.text.tokenizer import Tokenizer, keep_tokenizer, load_tokenizer

Make = Callable[[Recipe], Iterable[dict[str, Any]]]  # recipe -> the notes of all portions, in any order


def training_documents(data: config.Data, source: str, report: Report | None = None, workers: int = 0) -> Iterator[str]:
    """The cleaned texts that a run trains on; its tokenizer learns from them too."""
    return (text for text, held in _pairs(data, source, report, workers) if not held)


def validation_documents(data: config.Data, source: str, workers: int = 0) -> Iterator[str]:
    """The cleaned texts that are held out."""
    return (text for text, held in _pairs(data, source, None, workers) if held)


def _pairs(data: config.Data, source: str, report: Report | None, workers: int) -> Iterator[tuple[str, bool]]:
    cleaning = drops.find_cleaning(data, source, report, workers)
    rule = _rule(data, source, cleaning)
    made = ordered_map(functools.partial(_clean_portion, cleaning, rule), source_portions(data, source, report), workers)
    return itertools.chain.from_iterable(made)


def _clean_portion(cleaning: Cleaning, rule: Rule, portion: Portion) -> list[tuple[str, bool]]:
    kept = cleaning(portion, cards.empty_card())
    return [pair for number, text in kept for pair in rule.pieces(number, text)]


def _rule(data: config.Data, source: str, cleaning: Cleaning) -> Rule:
    kept = (pair for portion in source_portions(data, source) for pair in cleaning(portion, cards.empty_card()))
    return make_rule(kept, data.validation)


def prepare(
    data: config.Data, source: str, tokenizer: Tokenizer, report: Report | None = None, workers: int = 0
) -> tuple[Store, Store | None]:
    """The training and the validation store of one source, out of the cache or made now.

    Args:
      source: one source; a mixture's sources are prepared one by one.
      report: is told, a line at a time, how far it is.
      workers: processes that clean and tokenize; fewer than two: this one alone, on the tokenizer's own threads.

    The second is None where nothing is held out. Raises DataError for a bad source or a damaged store.
    """
    cleaning = drops.find_cleaning(data, source, report, workers)
    directory = store_directory(data, source, tokenizer, cleaning)
    if not directory.is_dir():
        make = lambda recipe: _told(
            ordered_map(functools.partial(make_shards, recipe), source_portions(data, source, report), workers), report
        )
        build(data, source, tokenizer, cleaning, make, alone=workers < 2)
    validation = directory / "validation"
    return open_store(directory / "train"), open_store(validation) if validation.is_dir() else None


def store_directory(data: config.Data, source: str, tokenizer: Tokenizer, cleaning: Cleaning) -> Path:
    """Where a source's store is kept."""
    return Path(data.cache).expanduser() / "stores" / store_key(data, source, tokenizer, drops.drops_digest(cleaning))


def cleaning_digest(data: config.Data, source: str, report: Report | None = None, workers: int = 0) -> str:
    """A digest of the cleaning and of the list of duplicates, which is made if need be."""
    return digest_of(cleaner_of(data.clean).fingerprint, drops.drops_digest(drops.find_cleaning(data, source, report, workers)))


def store_key(data: config.Data, source: str, tokenizer: Tokenizer, dropped: str | None = None) -> str:
    """A digest of all that a store's content depends on; `dropped` is the digest of the list of duplicates."""
    files = sources.fingerprint(source, data.data_dir)
    clean = cleaner_of(data.clean).fingerprint if data.clean else None
    limits = [FORMAT, portions.PORTION_BYTES, sources.UNIT_BYTES]
    return digest_of(*limits, source, files, data.column, data.split, data.validation, clean, dropped, tokenizer.digest)


def build(data: config.Data, source: str, tokenizer: Tokenizer, cleaning: Cleaning, make: Make, alone: bool = False) -> None:
    """Make a store, whole or not at all, of the shards that `make(recipe)` writes.

    `alone`: the shards are made in this process, with this very tokenizer; else every process loads it for itself.
    """
    directory = store_directory(data, source, tokenizer, cleaning)
    partial = directory.with_name(directory.name + ".partial")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(directory.with_name(f".{directory.name}.lock")):
        if directory.is_dir():  # another process that prepared the same store was first
            return
        partial.mkdir(exist_ok=True)
        folder = _kept_tokenizer(tokenizer, partial)
        notes = make(Recipe(cleaning, _rule(data, source, cleaning), tokenizer if alone else folder, str(partial)))
        _finish(partial, sorted(notes, key=lambda note: note["name"]), tokenizer, {"source": source, "clean": data.clean})
        os.rename(partial, directory)


def _kept_tokenizer(tokenizer: Tokenizer, partial: Path) -> str:
    """The store's own copy of its tokenizer."""
    folder = partial / "tokenizer"
    if not folder.is_dir():
        keep_tokenizer(tokenizer, folder)
    if load_tokenizer(folder).digest != tokenizer.digest:
        raise DataError(f"the tokenizer saved in {folder} is another when it is loaded: give tokenizer.path a folder saved by jaxlm")
    return str(folder)


def _told(notes: Iterable[dict[str, Any]], report: Report | None) -> Iterator[dict[str, Any]]:
    tokens = size = 0
    for count, note in enumerate(notes, 1):
        tokens += sum(row["tokens"] for row in note["rows"].values())
        size += note["card"]["characters"]
        if report:
            report(f"prepared {tokens:,} tokens of {size:,} characters, {count} portions")
        yield note


def _clear(folder: Path, names: set[str]) -> None:
    """Remove what killed processes left half-written."""
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink(missing_ok=True)


def _finish(partial: Path, notes: list[dict[str, Any]], tokenizer: Tokenizer, about: dict[str, Any]) -> None:
    rows = {side: sorted((n["rows"][side] for n in notes if side in n["rows"]), key=lambda row: row["name"]) for side in SIDES}
    for side, shards in rows.items():
        if shards or side == "train":
            (partial / side).mkdir(exist_ok=True)
            _clear(partial / side, {row["name"] for row in shards})
            write_manifest(partial / side, shards, tokenizer.digest, tokenizer.vocab_size)
    card = functools.reduce(cards.add_cards, (note["card"] for note in notes), cards.empty_card())
    tokens = {side: sum(row["tokens"] for row in shards) for side, shards in rows.items()}
    cards.write_card(partial, {**about, **card, "tokens": tokens})
    shutil.rmtree(partial / "notes", ignore_errors=True)
