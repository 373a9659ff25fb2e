"""What can be asked of a `tokenizer.json` before it is used: bounds against crafted files, and the engine that reads text as text.

The library's own switch (`encode_special_tokens`) leaves a hole: a Unigram or whole-word vocabulary that holds `</s>` as a piece finds
it in the text. `text_only` therefore also renames the control tokens to what nobody can write. Read next: `fast.py`.
"""

import json
import math
import secrets
from typing import Any

from jaxlm.errors import DataError

LARGEST = 1 << 24  # ids: 60 times the largest published vocabulary
GROWTH = 1 << 12  # times that a normalizer may lengthen a text
WORD = 1000  # characters of a word that WordPiece looks up, quadratic in them; published files say 100


def check(about: Any, where: object) -> None:
    """Refuse, by one DataError, a parsed file whose sizes no real tokenizer has, before the library fills the memory by them."""
    model = about.get("model") if isinstance(about, dict) else None
    if not isinstance(model, dict):
        raise DataError(f"{where} is no tokenizer.json: it has no model; copy it again")
    check_vocabulary(model.get("vocab"), where)
    longest = model.get("max_input_chars_per_word", 0)
    _refuse(_growth(about.get("normalizer")) > GROWTH, where, "has a normalizer that lengthens texts without bound")
    _refuse(not isinstance(longest, int) or longest > WORD, where, f"looks up words of more than {WORD} characters")


def check_vocabulary(vocabulary: Any, where: object) -> None:
    """Refuse a vocabulary that is empty, or whose ids are no numbers from 0 to LARGEST."""
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary)) if isinstance(vocabulary, list) else ()
    _refuse(not ids, where, "has no vocabulary")
    _refuse(not all(type(i) is int and 0 <= i < LARGEST for i in ids), where, f"has an id that is no number from 0 to {LARGEST:,}")


def check_template(engine: Any, size: int, where: object) -> None:
    """Refuse an engine that puts ids around a text which its vocabulary has not."""
    around = [*engine.encode("").ids, *engine.encode("", "").ids]
    _refuse(around and max(around) >= size, where, "puts ids around a text that its vocabulary has not")


def _refuse(wrong: Any, where: object, what: str) -> None:
    if wrong:
        raise DataError(f"{where} {what}: copy it again")


def _growth(part: Any) -> float:
    """By what factor the replacements of a normalizer can multiply a character, at most."""
    if isinstance(part, dict):
        content = part.get("content")
        own = max(1, len(content)) if isinstance(content, str) else 1
        return own * math.prod(map(_growth, part.values()))
    return math.prod(map(_growth, part)) if isinstance(part, list) else 1


def text_only(engine: Any) -> Any:
    """A copy of the engine for which no text is a control token, whatever it spells; the ids of everything else are the same."""
    from tokenizers import Tokenizer

    about = json.loads(engine.to_str())
    hidden = _hidden(about)
    copy = Tokenizer.from_str(json.dumps(about) if hidden else engine.to_str())
    copy.encode_special_tokens = True  # the file does not keep it
    return copy


def _hidden(about: dict[str, Any]) -> dict[str, str]:
    """Rename, in a parsed tokenizer.json, the control tokens that its model could find in text: old name -> new."""
    model, added = about["model"], about["added_tokens"]
    control = {token["content"] for token in added if token["special"]}
    if model["type"] == "BPE":
        control = _merged(model, control)
    if not control:
        return {}
    key = secrets.token_hex(16)
    names = {name: f"control {number} {key}" for number, name in enumerate(sorted(control))}
    rename = lambda name: names.get(name, name)
    if model["type"] == "Unigram":
        model["vocab"] = [[rename(piece), score] for piece, score in model["vocab"]]
    else:
        model["vocab"] = {rename(piece): i for piece, i in model["vocab"].items()}
        model["unk_token"] = rename(model.get("unk_token"))
    for token in added:
        token["content"] = rename(token["content"])
    return names


def _merged(model: dict[str, Any], control: set[str]) -> set[str]:
    """Of BPE's control tokens those that text can become: by merges, which are dropped, by whole words or by one character."""
    pairs = [pair if isinstance(pair, list) else pair.split(" ", 1) for pair in model["merges"]]
    reached = control & {"".join(pair) for pair in pairs}
    if model.get("ignore_merges"):
        reached = set(control)
    reached |= {name for name in control if len(name) == 1}
    used = lambda left, right: left in reached or right in reached or left + right in reached
    model["merges"] = [list(pair) for pair in pairs if not used(*pair)]
    return reached
