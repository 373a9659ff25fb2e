"""The data card of a store: documents in and out, what dropped them, what was changed, examples of what was dropped.

A card is a dictionary that JSON can hold; cards of portions add up to that of the whole. Read next: `prepare.py`.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxlm.atomic import write_atomically

EXAMPLES, WIDTH = 3, 200  # of what each rule dropped; characters of each
SUMS = ("documents", "kept", "characters", "kept_characters")
COUNTS = ("dropped", "changed", "counted")  # documents a rule dropped, documents a step changed, what the steps counted

Card = dict[str, Any]


def empty_card() -> Card:
    """A card of no documents."""
    return {**dict.fromkeys(SUMS, 0), **{name: {} for name in COUNTS}, "examples": {}}


def add_document(card: Card, raw: str, text: str | None, rule: str | None, changed: Iterable[str], counted: dict[str, int]) -> None:
    """Count one document: what came in, what is left of it (None: nothing), the rule that dropped it, the steps that changed it."""
    card["documents"] += 1
    card["characters"] += len(raw)
    card["kept"] += text is not None
    card["kept_characters"] += len(text or "")
    for name in changed:
        card["changed"][name] = card["changed"].get(name, 0) + 1
    for name, count in counted.items():
        card["counted"][name] = card["counted"].get(name, 0) + count
    if rule:
        card["dropped"][rule] = card["dropped"].get(rule, 0) + 1
    if rule and len(card["examples"].setdefault(rule, [])) < EXAMPLES:
        card["examples"][rule].append(raw[:WIDTH])


def add_cards(one: Card, other: Card) -> Card:
    """The card of both."""
    total = {name: one[name] + other[name] for name in SUMS}
    for name in COUNTS:
        total[name] = dict(sorted((Counter(one[name]) + Counter(other[name])).items()))
    both = {rule: one["examples"].get(rule, []) + other["examples"].get(rule, []) for rule in {**one["examples"], **other["examples"]}}
    return {**total, "examples": {rule: found[:EXAMPLES] for rule, found in sorted(both.items())}}


def write_card(directory: Path, card: Card) -> None:
    """Write `card.json`, and `card.md` for people."""
    write_atomically(directory / "card.json", (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(directory / "card.md", _page(card).encode())


def _page(card: Card) -> str:
    about = {name: card[name] for name in ("source", "clean") if name in card}
    lines = ["# Data card", "", *(f"- {name}: `{value}`" for name, value in about.items())]
    lines.append(f"- documents: {card['documents']:,} in, {card['kept']:,} out")
    lines.append(f"- characters: {card['characters']:,} in, {card['kept_characters']:,} out")
    lines += [f"- tokens, {side}: {count:,}" for side, count in card.get("tokens", {}).items()]
    for title, name in (("Dropped, documents", "dropped"), ("Changed, documents", "changed"), ("Counted", "counted")):
        if card[name]:
            rows = sorted(card[name].items(), key=lambda row: (-row[1], row[0]))
            lines += ["", f"## {title}", "", "| by | count |", "|---|---|", *(f"| {rule} | {count:,} |" for rule, count in rows)]
    if card["examples"]:
        lines += ["", "## Examples of what was dropped", ""]
        lines += [f"- {rule}: {json.dumps(text, ensure_ascii=False)}" for rule, texts in card["examples"].items() for text in texts]
    return "\n".join(lines) + "\n"
