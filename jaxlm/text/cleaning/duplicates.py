"""Pass two of duplicate removal: from the signatures of all shards to the list of what is dropped; and its use.

Order: documents of equal text, then near duplicates among the rest, then paragraphs among the documents left. The smallest
id of a group survives, a paragraph's first occurrence does. Then a shard is a pure function of its documents and the list.
Read first: `signatures.py`. Read next: `near.py`.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxlm.atomic import new_file
from jaxlm.errors import DataError
from jaxlm.text.cleaning.near import near_groups
from jaxlm.text.cleaning.signatures import Duplicates, Signatures, load_signatures, readable, sign, split_paragraphs

__all__ = ["REASONS", "Drops", "Duplicates", "Signatures", "apply", "find_duplicates", "load_drops", "load_signatures", "sign"]

REASONS = ("exact_duplicates", "near_duplicates", "paragraph_duplicates")
PART = 1 << 24  # paragraphs sorted at once: some 700 MB


@dataclasses.dataclass(frozen=True, eq=False)
class Drops:
    """What is left out of a corpus as a copy of something that stays."""

    documents: np.ndarray  # int64 [dropped], rising
    reasons: np.ndarray  # uint8 [dropped]: index of REASONS
    originals: np.ndarray  # int64 [dropped]: the document that stays in its place
    paragraphs: np.ndarray  # int64 [paragraphs, 2]: (document, number of the paragraph there), rising

    @property
    def digest(self) -> str:
        """Of all that is dropped and why."""
        state = hashlib.sha256()
        for array in (self.documents, self.reasons, self.originals, self.paragraphs):
            state.update(f"{array.shape}".encode() + np.ascontiguousarray(array).astype("<i8").tobytes())
        return state.hexdigest()

    def within(self, first: int, stop: int) -> "Drops":
        """The drops of documents with first <= id < stop: all that a shard of them needs."""
        rows = slice(*np.searchsorted(self.documents, [first, stop]))
        pieces = slice(*np.searchsorted(self.paragraphs[:, 0], [first, stop]))
        return Drops(self.documents[rows], self.reasons[rows], self.originals[rows], self.paragraphs[pieces])

    def save(self, path: str | Path) -> None:
        """Write NAME.npz, whole or not at all."""
        with new_file(Path(path)) as file:
            np.savez(file, **vars(self))


def load_drops(path: str | Path) -> Drops:
    """The inverse of `Drops.save`. Raises DataError for a file that is missing or damaged."""
    path = Path(path)
    with readable(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return Drops(**{field.name: arrays[field.name] for field in dataclasses.fields(Drops)})


def find_duplicates(signatures: Sequence[Signatures | str | Path], duplicates: Duplicates) -> Drops:
    """The drop list of a corpus.

    Args:
      signatures: of all shards, in the order of their documents' ids; files are read as they are needed.

    Memory: some 60 bytes a document, 700 MB for paragraphs, never the texts. Raises DataError for signatures that are
    damaged, out of order or made with other options.
    """
    shards = [shard if isinstance(shard, Signatures) else load_signatures(shard) for shard in signatures]
    _check(shards, duplicates)
    ids = np.concatenate([np.zeros(0, np.int64), *(shard.ids for shard in shards)])
    owners = np.arange(len(ids))  # row of the document that stays
    reasons = np.zeros(len(ids), np.uint8)
    if duplicates.exact:
        owners = _first_of(np.concatenate([np.zeros((0, 2), np.uint64), *(shard.digests for shard in shards)]))
    if duplicates.threshold is not None:
        left = np.flatnonzero(owners == np.arange(len(ids)))
        groups = near_groups(shards, left, duplicates)
        reasons[left[groups != left]] = 1
        owners[left] = groups
        owners = owners[owners]  # an exact copy of a near duplicate: both stand for the same document
    dropped = np.flatnonzero(owners != np.arange(len(ids)))
    documents = ids[dropped]
    paragraphs = np.zeros((0, 2), np.int64) if duplicates.paragraph is None else _repeated(shards, documents)
    return Drops(documents, reasons[dropped], ids[owners[dropped]], paragraphs)


def _check(shards: Sequence[Signatures], duplicates: Duplicates) -> None:
    last = None
    for shard in shards:
        if shard.duplicates != duplicates:
            raise DataError(f"signatures were made with {shard.duplicates}, not {duplicates}: make them again")
        if len(shard.ids):
            if last is not None and shard.ids[0] <= last:
                raise DataError(f"signatures of document {shard.ids[0]} come after those of {last}: give shards in order, each once")
            last = shard.ids[-1]


def _first_of(digests: np.ndarray) -> np.ndarray:
    """int64 [rows]: the first row with the same digest."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: rows of one digest keep their order
    ranked = digests[order]
    new = np.concatenate([[True], np.any(ranked[1:] != ranked[:-1], axis=1)])[: len(order)]
    first = np.empty(len(order), np.int64)
    first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return first


def _repeated(shards: Sequence[Signatures], dropped: np.ndarray) -> np.ndarray:
    """int64 [paragraphs, 2]: every later occurrence of a paragraph among documents that stay, part by part of the digests."""
    parts = 1 + sum(shard.paragraphs for shard in shards) // PART
    found = [np.zeros((0, 2), np.int64)]
    for part in range(parts):
        pieces = list(_part(shards, dropped, part, parts))
        digests = np.concatenate([np.zeros((0, 2), np.uint64), *(piece for piece, _ in pieces)])
        places = np.concatenate([np.zeros((0, 2), np.int64), *(piece for _, piece in pieces)])
        found.append(places[_first_of(digests) != np.arange(len(digests))])
    places = np.concatenate(found)
    return places[np.lexsort((places[:, 1], places[:, 0]))]


def _part(shards: Sequence[Signatures], dropped: np.ndarray, part: int, parts: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for shard in shards:
        digests, places = shard.hashed(), shard.places()
        kept = (digests[:, 0] % np.uint64(parts) == part) & ~np.isin(places[:, 0], dropped)
        yield digests[kept], places[kept]


def apply(drops: Drops, id: int, text: str) -> tuple[str | None, str | None]:
    """(the text without its repeated paragraphs, None), or (None, the rule that dropped the document)."""
    at = int(np.searchsorted(drops.documents, id))
    if at < len(drops.documents) and drops.documents[at] == id:
        return None, REASONS[drops.reasons[at]]
    first, stop = np.searchsorted(drops.paragraphs[:, 0], [id, id + 1])
    if first == stop:
        return text, None
    gone = set(drops.paragraphs[first:stop, 1].tolist())
    pieces = split_paragraphs(text)
    rest = "".join("".join(pieces[at : at + 2]) for at in range(0, len(pieces), 2) if at // 2 not in gone)
    rest = rest.rstrip() if len(pieces) // 2 in gone else rest
    return (rest, None) if rest.strip() else (None, REASONS[2])
