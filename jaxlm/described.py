"""What is said of a store of examples: how many there are, what was cut, left out, or cannot be measured.

Read first: `labelled.py`, which makes them and notes what it did in their manifest.
"""

import json
import operator
from typing import Any

import numpy as np

from jaxlm.config import Run
from jaxlm.data.examples import Examples
from jaxlm.data.store import MANIFEST
from jaxlm.tasks import task_named
from jaxlm.tasks.pair_sides import target_length


def describe(examples: Examples, split: str, run: Run) -> str:
    """How many examples there are, what truncation took, and which pairs were left out."""
    records, pairs = len(np.unique(examples.records)), examples.target_lengths is not None
    line = f"{split}: {records:,} records, {len(examples):,} examples of {examples.tokens:,} tokens"
    line += f" and {examples.target_lengths.sum():,} target tokens" if pairs else ""
    notes = json.loads((examples.directory / MANIFEST).read_text(encoding="utf-8"))
    line += _cut(examples, notes.get("cut", {}), run) if examples.cut else ""
    unknown, what = (int((examples.target_lengths == 0).sum()), "target") if pairs else (notes.get("unlabelled", 0), "label")
    if unknown:
        line += f"; {unknown:,} record{' has' if unknown == 1 else 's have'} no {what} and {'is' if unknown == 1 else 'are'} not measured"
    left = notes.get("unfit", {})
    return line + (f"; left out: {_listed(left)}" if left else "")


def _cut(examples: Examples, noted: dict[str, Any], run: Run) -> str:
    """What truncation took: the first place, and of pairs how much of it from targets."""
    keys = getattr(task_named(run.task), "CUT_BY", "data.sequence_length")
    size, lost = f"{operator.attrgetter(keys)(run)}", f"{examples.cut:,}"
    if examples.target_lengths is not None:
        size, keys = f"{size} and {target_length(run)}", f"{keys}, data.target_length"
        lost += f", {noted['targets']:,} of them of targets" if noted.get("targets") else ""
    first = f"; first: {noted['first']}" if noted else ""
    return f"; {examples.cut_records:,} records were cut to {size} tokens and lost {lost} ({keys}{first})"


def _listed(kinds: dict[str, dict[str, Any]]) -> str:
    """{"with an empty side": {"pairs": 2, "first": "x.tsv:5"}} -> "2 pairs with an empty side (first: x.tsv:5)"."""
    return ", ".join(f"{one['pairs']:,} pair{'s' * (one['pairs'] > 1)} {kind} (first: {one['first']})" for kind, one in kinds.items())
