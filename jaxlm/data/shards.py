"""From one portion of documents to its shards: clean, leave out duplicates, split, tokenize, write.

A pure function of the portion and the recipe, so that local workers and a cluster make the same bytes, and an interrupted
`prepare` keeps what it had finished. Read next: `prepare.py`.
"""

import dataclasses
import functools
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.atomic import write_atomically
from jaxlm.data import card as cards
from jaxlm.data.portions import Portion
from jaxlm.data.split import Rule
from jaxlm.data.store import write_shard
from jaxlm.errors import DataError
from jaxlm.overrides import tuples
from jaxlm.text import clean
from jaxlm.text.chunks import chunks
from jaxlm.text.cleaning import duplicates
from jaxlm.text.tokenizer import Tokenizer, load_tokenizer

BATCH_CHARACTERS = 4 << 20  # tokenized at once: ids as Python integers take 30 times their text
PARAGRAPHS = duplicates.REASONS[2]
SIDES = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """What is done to documents before they are tokenized."""

    steps: tuple[Any, ...] = ()  # data.clean
    drops: str | None = None  # the file that lists the duplicates
    fingerprint: str | None = None  # of the cleaner that began: files that its options name must not change meanwhile

    def __call__(self, portion: Portion, card: cards.Card) -> Iterator[tuple[int, str]]:
        """(number, text) of the documents that are left; every one is counted in the card."""
        cleaner = cleaner_of(self.steps)
        if self.fingerprint not in (None, cleaner.fingerprint):
            raise DataError("a file or library that data.clean names changed during the preparation: run the same command again")
        drops = self.drops and drops_of(self.drops).within(portion.first, portion.first + len(portion.texts))
        for number, raw in enumerate(portion.texts, portion.first):
            found = cleaner(raw) if self.steps else clean.Cleaned(raw)
            text, rule = found.text, found.dropped
            if text is not None and drops:
                text, rule = duplicates.apply(drops, number, text)
            changed = found.changed if text == found.text or text is None else (*found.changed, PARAGRAPHS)
            cards.add_document(card, raw, text, rule, changed, found.counts)
            if text is not None:
                yield number, text


def begin_cleaning(steps: tuple[Any, ...], drops: str | None = None) -> Cleaning:
    """The cleaning that starts now, with its files as they are now."""
    return Cleaning(steps, drops, cleaner_of(steps).fingerprint)


def cleaner_of(steps: tuple[Any, ...]) -> clean.Cleaner:
    """The cleaner of `data.clean`, made once a process and once for each state of the files that its options name."""
    return _cleaner(tuples(steps), _named_files(steps))


@functools.lru_cache(2)
def _cleaner(steps: tuple[Any, ...], files: tuple) -> clean.Cleaner:
    return clean.make_cleaner(steps)


def _named_files(steps: tuple[Any, ...]) -> tuple:
    """Path, size and time of every file that an option names, by a path or a glob."""
    given = [step[-1] for step in steps if isinstance(step, list | tuple) and step and isinstance(step[-1], Mapping)]
    options = [value for options in given for value in options.values() if isinstance(value, str)]
    states = ((path, os.stat(path)) for value in options for path in sorted(glob.glob(os.path.expanduser(value), recursive=True)))
    return tuple((path, state.st_size, state.st_mtime_ns) for path, state in states)


@functools.lru_cache(2)
def drops_of(path: str) -> duplicates.Drops:
    """The list of duplicates, read once a process."""
    return duplicates.load_drops(Path(path))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a shard depends on besides its documents."""

    cleaning: Cleaning
    rule: Rule  # which documents are held out
    tokenizer: Any  # a Tokenizer, or the folder of one: that a process loads for itself
    directory: str  # where shards are written


def make_shards(recipe: Recipe, portion: Portion) -> dict[str, Any]:
    """Write the shards of a portion, or keep those that an earlier call made of the same texts.

    Returns its note: {"name": of the portion, "texts": digest, "rows": {side: row of the manifest}, "card": card}.
    """
    folder = Path(recipe.directory)
    note = folder / "notes" / f"{portion.name}.json"
    digest = portion.digest
    kept = _kept(note, digest, folder)
    if kept:
        return kept
    card = cards.empty_card()
    sides: dict[str, list[str]] = {side: [] for side in SIDES}
    for number, text in recipe.cleaning(portion, card):
        for piece, held in recipe.rule.pieces(number, text):
            sides[SIDES[held]].append(piece)
    rows = {side: _write(folder / side / f"{portion.name}.arrow", texts, recipe.tokenizer) for side, texts in sides.items() if texts}
    made = {"name": portion.name, "texts": digest, "rows": rows, "card": card}
    note.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(note, json.dumps(made).encode())
    return made


def _kept(note: Path, digest: str, folder: Path) -> dict[str, Any] | None:
    if not note.is_file():
        return None
    kept = json.loads(note.read_text(encoding="utf-8"))
    paths = {side: folder / side / row["name"] for side, row in kept["rows"].items()}
    whole = all(path.is_file() and path.stat().st_size == kept["rows"][side]["size"] for side, path in paths.items())
    return kept if whole and kept["texts"] == digest else None


def _write(path: Path, texts: list[str], source: Tokenizer | str) -> dict[str, Any]:
    tokenizer = _tokenizer(source) if isinstance(source, str) else source
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = [np.array(_ended(found, tokenizer.eos_id), np.int32) for found in _encode(texts, tokenizer)]
    return write_shard(path, ids, [len(text.encode()) for text in texts], tokenizer.vocab_size)


@functools.lru_cache(1)
def _tokenizer(folder: str) -> Tokenizer:
    return load_tokenizer(folder)


def _ended(ids: list[int], eos_id: int | None) -> list[int]:
    """A document ends with the end token, which some tokenizers' own templates have added already."""
    return ids if eos_id is None or ids[-1:] == [eos_id] else [*ids, eos_id]


def _encode(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    return (ids for batch in chunks(texts, BATCH_CHARACTERS) for ids in tokenizer.encode_batch(batch))


def digest_of(*parts: Any) -> str:
    """A name for what depends on the parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
