"""Which labelled records are trained on and which are held out: by a hash of each record's content, evenly in every stratum.

A stratum is a label, or nothing where a task has none. Equal records go to the same side, whatever their order in the files.
Read next: `examples.py`.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm import config
from jaxlm.errors import ConfigError, DataError

UNUSED, TRAIN, HELD = 0, 1, 2


def record_hash(record: dict[str, Any]) -> int:
    """64 bits of a record's content."""
    return int.from_bytes(hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=8).digest(), "little")


def select(hashes: Sequence[int], strata: Sequence[str], data: config.Data) -> np.ndarray:
    """UNUSED, TRAIN or HELD for every record: int8 [records].

    `data.fold` = (k, n) holds out part k of n; else `data.validation` of the records, none where validation has a source of its
    own. Of the rest `data.fraction` is trained on: a smaller share is part of every larger one.

    Raises ConfigError for a fold or a share that cannot be, DataError for a stratum with fewer records than folds.
    """
    _check(data)
    sides = np.full(len(hashes), TRAIN, np.int8)
    hashes, strata = np.asarray(hashes, np.uint64), np.asarray(strata, str)
    before = 0  # different records of the strata so far: what a share leaves over in one counts in the next
    for stratum in np.unique(strata):
        mine = strata == stratum
        _, rank = np.unique(hashes[mine], return_inverse=True)
        count = int(rank.max()) + 1
        if data.fold and count < data.fold[1]:
            named = f"the label {str(stratum)!r} has {count} different records" if stratum else f"there are {count} different records"
            raise DataError(f"{named} and {data.fold[1]} folds need as many each: lower folds, or leave that label out")
        held = _held(before + rank, data)
        place = np.cumsum(np.bincount(rank[~held], minlength=count) > 0)[rank]  # 1, 2, ... among those that are not held out
        used = place <= max(1, round(data.fraction * int(place[~held].max(initial=0))))
        sides[mine] = np.where(held, HELD, np.where(used, TRAIN, UNUSED))
        before += count
    return sides


def holds_out(data: config.Data) -> bool:
    """Whether some of the data is kept from training, to be measured on."""
    return bool(data.validation or data.validation_source or data.fold)


def _held(place: np.ndarray, data: config.Data) -> np.ndarray:
    if data.fold:
        return place % data.fold[1] == data.fold[0]
    if data.validation_source is not None:
        return np.zeros(len(place), bool)
    return np.floor((place + 1) * data.validation) > np.floor(place * data.validation)


def _check(data: config.Data) -> None:
    if data.fold and not (len(data.fold) == 2 and 0 <= data.fold[0] < data.fold[1] and data.fold[1] > 1):
        raise ConfigError(f"data.fold={list(data.fold)} names no part: give (k, n), k from 0 to n - 1")
    if not 0 < data.fraction <= 1:
        raise ConfigError(f"data.fraction={data.fraction}: it is more than 0 and at most 1")
    if not 0 <= data.validation < 1:
        raise ConfigError(f"data.validation={data.validation}: it is at least 0 and less than 1")
