"""The bytes that each token of a tokenizer writes, whatever its kind: asked of its `decode`, so that both always agree.

A token is decoded after another one, and alone, as the first of a text, where many tokenizers drop the space before a word. Parts of
a character have no text of their own: their bytes are read off the vocabulary. Read next: `inference/constrain.py`.
"""

import re
from typing import Any

from jaxlm.errors import ConfigError

ROLES = ("bos_id", "eos_id", "pad_id", "unk_id", "cls_id", "sep_id", "mask_id")
HEX = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's name of a byte
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def _byte_letters() -> dict[str, int]:
    """Letter -> byte, as byte-level BPE writes bytes in its vocabulary (and ByT5's `piece`, with letters 0 to 255)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in range(256)} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


LETTERS = _byte_letters()


def silent_tokens(tokenizer: Any) -> dict[int, str]:
    """Id -> name of the tokens that are no text."""
    roles = {getattr(tokenizer, role) for role in ROLES} - {None}
    named = {i: name for name, i in tokenizer.controls.items()}
    return {i: tokenizer.piece(i) or "" for i in roles} | named


def spellings(tokenizer: Any) -> tuple[list[bytes], list[bytes]]:
    """The bytes of each id after another token, and as the first of a text; none for what is no text.

    Raises ConfigError where a text is not its tokens side by side.
    """
    silent = silent_tokens(tokenizer)
    ids = [i for i in range(tokenizer.vocab_size) if i not in silent]
    before = next((i for i in ids if _plain(tokenizer.decode([i]))), None)
    if before is None:
        raise ConfigError("this tokenizer has no token that is a word of its own: nothing can be constrained by it")
    start = tokenizer.decode([before])
    later, first = ([b""] * tokenizer.vocab_size for _ in range(2))
    for i in ids:
        later[i] = _bytes(tokenizer, i, tokenizer.decode([before, i])[len(start) :])
        first[i] = _bytes(tokenizer, i, tokenizer.decode([i]))
    _check(tokenizer, [i for i in ids if _is_text(later[i])], before, later)
    return later, first


def _plain(text: str) -> bool:
    return text != "" and text == text.strip() and UNFINISHED not in text


def _bytes(tokenizer: Any, i: int, text: str) -> bytes:
    """The bytes of a token that decodes to this text; of a part of a character those that its name says."""
    if text and UNFINISHED not in text:
        return text.encode()
    piece = tokenizer.piece(i) or ""
    if not text:  # ByT5's decoding leaves such parts out
        return bytes([ord(piece)]) if len(piece) == 1 and 0x80 <= ord(piece) < 0x100 else b""
    if named := HEX.fullmatch(piece):
        return bytes([int(named[1], 16)])
    return bytes(LETTERS[letter] for letter in piece) if all(letter in LETTERS for letter in piece) else text.encode()


def _is_text(spelled: bytes) -> bool:
    try:
        return bool(spelled.decode())
    except UnicodeDecodeError:
        return False


def _check(tokenizer: Any, ids: list[int], before: int, later: list[bytes]) -> None:
    """Raise ConfigError where all these tokens in a row are not what they are one by one."""
    whole = tokenizer.decode([before, *ids]).encode()
    if whole != tokenizer.decode([before]).encode() + b"".join(later[i] for i in ids):
        raise ConfigError("this tokenizer's texts are not their tokens side by side: nothing can be constrained by it")
