"""What stands beside a vocabulary in a published folder: the class it belongs to, and the tokens added to it.

Read next: `bpe.py`, `wordpiece.py`, `sentencepiece_conventions.py`, which build tokenizers by it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import fast

FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def named(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json` over `special_tokens_map.json`; empty where there is neither."""
    return {**fast.settings(folder / "special_tokens_map.json"), **fast.settings(folder / "tokenizer_config.json")}


def kind(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The family whose conventions hold, in lower case ("xlmroberta", "t5"): by tokenizer_class, else by config.json's model_type."""
    name = settings.get("tokenizer_class")
    if isinstance(name, str):
        return name.removesuffix("Fast").removesuffix("Tokenizer").lower() or None
    model = fast.settings(folder / "config.json").get("model_type")
    return model.lower() if isinstance(model, str) else None


def tokens(folder: Path, settings: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Id -> {"content": ..., "special": ..., ...} of the tokens that the folder adds to its vocabulary, in the order of ids."""
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, dict):
        found = {_id(key, folder): value for key, value in listed.items()}
    else:
        plain = fast.settings(folder / "added_tokens.json")
        known = {text(value) for role, value in settings.items() if role.endswith("_token")}
        found = {_id(i, folder): {"content": name, "special": name in known} for name, i in plain.items()}
    wrong = [i for i, token in found.items() if not isinstance(token, dict) or not isinstance(token.get("content"), str)]
    if wrong:
        raise DataError(f"{folder}: the added token of id {wrong[0]} has no text: copy its files again")
    return dict(sorted(found.items()))


def text(value: Any) -> str | None:
    """The spelling of a token that a file gives as a string or as an object."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def add(engine: Any, folder: Path, settings: Mapping[str, Any], control: Iterable[str]) -> None:
    """Give an engine its control tokens (those of `control` that its vocabulary holds) and the folder's added ones.

    Raises DataError where an added token would get another id than the file says.
    """
    from tokenizers import AddedToken

    mask = text(settings.get("mask_token")) or "<mask>"  # as a word of its own it takes the space before it
    held = set(engine.get_vocab())
    names = dict.fromkeys(name for name in control if name in held)
    special = lambda name: AddedToken(name, special=True, normalized=False, lstrip=name == mask == "<mask>")
    engine.add_special_tokens([special(name) for name in names])
    for i, token in tokens(folder, settings).items():
        flags = {flag: bool(token[flag]) for flag in FLAGS if flag in token}
        made = AddedToken(token["content"], **flags)
        (engine.add_special_tokens if token.get("special") else engine.add_tokens)([made])
        if engine.token_to_id(token["content"]) != i:
            raise DataError(f"{folder}: the added token {token['content'][:40]!r} should have id {i}: copy its files again")


def _id(value: Any, folder: Path) -> int:
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str) and value.isdecimal() and len(value) < 12:
        return int(value)
    raise DataError(f"{folder}: {str(value)[:30]!r} is no id of an added token: copy its files again")
