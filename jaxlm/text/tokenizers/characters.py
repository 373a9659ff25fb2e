"""One id a character: the vocabulary is the sorted distinct characters of the training texts, and nothing else.

No control symbols are added, so that a loss is comparable with nanoGPT's character models (65 for tiny Shakespeare); a
character outside is refused. Read next: `../../data/prepare.py`.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import chat
from jaxlm.text.tokenizers.encoding import Encoding
from jaxlm.text.unicode import places, well_formed


@dataclasses.dataclass(frozen=True)
class Characters:
    """A character tokenizer; `characters[i]` is the text of id i. It has no control tokens and adds nothing around a text."""

    characters: str
    chat_template: chat.Template = None
    bos_id: None = None
    eos_id: None = None
    pad_id: None = None
    unk_id: None = None
    cls_id: None = None
    sep_id: None = None
    mask_id: None = None

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    @property
    def controls(self) -> dict[str, int]:
        """There are no control tokens."""
        return {}

    @property
    def digest(self) -> str:
        return hashlib.sha256(_canonical(self).encode()).hexdigest()

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {character: i for i, character in enumerate(self.characters)}

    def encode(self, text: str, pair: str | None = None, *, add_special_tokens: bool = True, allow_special: bool = False) -> Encoding:
        """Ids, one a character; raises DataError for a character that the training texts did not hold."""
        texts = [text] if pair is None else [text, pair]
        return Encoding([i for each in texts for i in self._encode(each)], lambda: _details(texts))

    def encode_batch(
        self, texts: Sequence[str | tuple[str, str]], *, add_special_tokens: bool = True, allow_special: bool = False
    ) -> list[list[int]]:
        """Ids of many texts, or of many pairs."""
        return [self._encode(text) if isinstance(text, str) else list(self.encode(*text)) for text in texts]

    def _encode(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in well_formed(text)]
        except KeyError as error:
            raise DataError(
                f"the character {error.args[0]!r} is not among the tokenizer's {self.vocab_size}: "
                "train it on texts that hold it, or use tokenizer.kind=bpe"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; raises DataError for an id outside the vocabulary."""
        wrong = [i for i in ids if not 0 <= i < self.vocab_size]
        if wrong:
            raise DataError(f"id {wrong[0]} is not of this tokenizer: its ids are 0 to {self.vocab_size - 1}")
        return "".join(self.characters[i] for i in ids)

    def piece(self, i: int) -> str | None:
        """The character of an id."""
        return self.characters[i] if 0 <= i < self.vocab_size else None

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **arguments: Any) -> Any:
        """Ids of a conversation: see `chat.apply`."""
        return chat.apply(self, messages, **arguments)

    def as_target(self) -> "Characters":
        """The tokenizer of the texts that are written: the same."""
        return self

    def save(self, directory: str | Path) -> None:
        """Write `characters.json` into the directory, which is made if need be."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "characters.json").write_text(_canonical(self), encoding="utf-8")


def _details(texts: list[str]) -> tuple[list[int], list[tuple[int, int]]]:
    ends = [places(text) or range(len(text) + 1) for text in texts]
    spans = [span for row in ends for span in zip(row[:-1], row[1:], strict=True)]
    return [side for side, row in enumerate(ends) for _ in row[:-1]], spans


def _canonical(tokenizer: Characters) -> str:
    return json.dumps({"characters": tokenizer.characters})


def train(texts: Iterable[str], vocab_size: int | None = None) -> Characters:
    """The tokenizer of every character in the texts; `vocab_size` is taken from them and the argument ignored."""
    found: set[str] = set()
    for text in texts:
        found.update(well_formed(text))
    if not found:
        raise DataError("there is no text to train a tokenizer on: check data.source")
    return Characters("".join(sorted(found)))


def load(directory: Path) -> Characters:
    """Read `characters.json`; raises DataError where it is damaged."""
    path = Path(directory) / "characters.json"
    try:
        characters = json.loads(path.read_text(encoding="utf-8"))["characters"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no character vocabulary ({error}): copy it again or train another") from error
    if not isinstance(characters, str) or not characters or len(set(characters)) != len(characters):
        raise DataError(f"{path}: `characters` must be one string of distinct characters; copy it again or train another")
    return Characters(characters)
