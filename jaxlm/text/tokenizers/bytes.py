"""ByT5's tokenizer (Xue et al. 2021): the bytes of UTF-8, from id 3 on, and `</s>` at the end.

Pad is 0, `</s>` 1, `<unk>` 2, the bytes are 3 to 258, and 125 sentinels end the vocabulary. A folder needs no vocabulary for it:
`tokenizer_config.json` or `config.json` says that it is ByT5's. Read next: `../tokenizer.py`.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import chat, fast
from jaxlm.text.tokenizers.encoding import Encoding
from jaxlm.text.unicode import places, well_formed

OFFSET, EOS, MOST = 3, 1, 10_000


@dataclasses.dataclass(frozen=True)
class Bytes:
    """The tokenizer of bytes; `extra_ids` sentinels `<extra_id_0>`, `<extra_id_1>`, ... follow the 259 other ids."""

    extra_ids: int = 125
    chat_template: chat.Template = None
    pad_id: int = 0
    eos_id: int = EOS
    unk_id: int = 2
    bos_id: None = None
    cls_id: None = None
    sep_id: None = None
    mask_id: None = None

    @property
    def vocab_size(self) -> int:
        return OFFSET + 256 + self.extra_ids

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"bytes {self.extra_ids}".encode()).hexdigest()

    def encode(self, text: str, pair: str | None = None, *, add_special_tokens: bool = True, allow_special: bool = False) -> Encoding:
        """Ids, one a byte, with `</s>` after each text; the offsets of a byte are those of its character."""
        ids, sides = [], [text] if pair is None else [text, pair]
        for side in sides:
            ids += self._encode(side, allow_special) + [EOS] * add_special_tokens
        return Encoding(ids, lambda: self._details(sides, add_special_tokens, allow_special))

    def encode_batch(
        self, texts: Sequence[str | tuple[str, str]], *, add_special_tokens: bool = True, allow_special: bool = False
    ) -> list[list[int]]:
        """Ids of many texts, or of many pairs."""
        end = [EOS] * add_special_tokens
        sides = [(text,) if isinstance(text, str) else text for text in texts]
        return [[i for text in row for i in self._encode(text, allow_special) + end] for row in sides]

    def _encode(self, text: str, allow_special: bool) -> list[int]:
        if not allow_special:
            return [byte + OFFSET for byte in well_formed(text).encode()]
        return [i for part in self._parts(well_formed(text)) for i in self._part(part)]

    def _parts(self, text: str) -> list[str]:
        return self._pattern.split(text)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("(" + "|".join(map(re.escape, self.controls)) + ")")

    def _part(self, part: str) -> list[int]:
        return [self.controls[part]] if part in self.controls else [byte + OFFSET for byte in part.encode()]

    @functools.cached_property
    def controls(self) -> dict[str, int]:
        """Name -> id of the control tokens."""
        sentinels = {f"<extra_id_{n}>": OFFSET + 256 + n for n in range(self.extra_ids)}
        return {"<pad>": 0, "</s>": EOS, "<unk>": 2, **sentinels}

    def _details(self, sides: list[str], end: bool, allow_special: bool) -> tuple[list[int], list[tuple[int, int]]]:
        spans = []
        for text in sides:
            known, place = places(text) or range(len(text) + 1), 0
            for part in self._parts(well_formed(text)) if allow_special else [well_formed(text)]:
                units = [part] if allow_special and part in self.controls else list(part)
                for unit in units:
                    spans += [(known[place], known[place + len(unit)])] * len(self._part(unit) if allow_special else unit.encode())
                    place += len(unit)
            spans += [(0, 0)] * end
        return [0] * len(spans), spans

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 are left out, as are control tokens. Raises DataError for other ids."""
        ids = [int(i) for i in ids]
        fast.check_ids(ids, self.vocab_size)
        return bytes(i - OFFSET for i in ids if OFFSET <= i < OFFSET + 256).decode("utf-8", "ignore")

    def piece(self, i: int) -> str | None:
        """A byte as the character of that number, or a control token's name."""
        if OFFSET <= i < OFFSET + 256:
            return chr(i - OFFSET)
        return next((name for name, known in self.controls.items() if known == i), None)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **arguments: Any) -> Any:
        """Ids of a conversation: see `chat.apply`."""
        return chat.apply(self, messages, **arguments)

    def as_target(self) -> "Bytes":
        """The tokenizer of the texts that are written: the same."""
        return self

    def save(self, directory: str | Path) -> None:
        """Write the `tokenizer_config.json` by which transformers' AutoTokenizer opens it."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": self.extra_ids, **fast.names_of_roles(self)}
        content = json.dumps(settings | chat.to_settings(self.chat_template), indent=2) + "\n"
        (folder / "tokenizer_config.json").write_text(content, encoding="utf-8")


def load(directory: Path) -> Bytes:
    """The tokenizer that `tokenizer_config.json` describes; raises DataError for a number of sentinels that no model has."""
    path = Path(directory) / "tokenizer_config.json"
    named = fast.settings(path)
    count = named.get("extra_ids", 125)
    if type(count) is not int or not 0 <= count <= MOST:
        raise DataError(f"{path}: extra_ids is {str(count)[:30]}; a number from 0 to {MOST:,} is wanted")
    listed = named.get("added_tokens_decoder")  # newer files write extra_ids 0 and list the sentinels
    if isinstance(listed, dict):
        count = max(count, sum("<extra_id_" in str(token) for token in listed.values()))
    return Bytes(count, chat.find(path.parent, named))


def described(directory: Path) -> bool:
    """Whether the folder's files say that its tokenizer is ByT5's."""
    folder = Path(directory)
    named = fast.settings(folder / "tokenizer_config.json").get("tokenizer_class")
    return named == "ByT5Tokenizer" or (named is None and _byt5(folder / "config.json"))


def _byt5(path: Path) -> bool:
    """T5's shape with a vocabulary of bytes: config.json calls both `t5`."""
    known = fast.settings(path)
    return known.get("tokenizer_class") == "ByT5Tokenizer" or (known.get("model_type") in ("t5", "byt5") and known.get("vocab_size") == 384)
