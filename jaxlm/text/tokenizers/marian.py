"""Marian's two SentencePiece models over one vocabulary: `source.spm`, `target.spm` and `vocab.json`, which numbers the pieces by name.

Texts to translate are cut by the source's model; `as_target()` gives the tokenizer of the translations. A model of several languages wants
the target's code, >>deu<<, before a text: `in_language("deu")`. Read next: `sentencepiece.py`.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import added, chat, fast
from jaxlm.text.tokenizers.sentencepiece import SentencePiece, file_bytes
from jaxlm.text.tokenizers.sentencepiece_conventions import Scheme
from jaxlm.text.tokenizers.sentencepiece_model import read_pieces
from jaxlm.text.tokenizers.tokenizer_json import LARGEST

FILES = ("source.spm", "target.spm", "vocab.json")


@dataclasses.dataclass(frozen=True)
class Marian(SentencePiece):
    """SentencePiece under a vocabulary by name; `other` is the model of the other side."""

    vocabulary: Mapping[str, int] = dataclasses.field(default_factory=dict, repr=False)
    other: bytes = dataclasses.field(default=b"", repr=False)

    @property
    def digest(self) -> str:
        """Of the model, of the other side's, and of the ids."""
        ids = json.dumps(self.vocabulary, sort_keys=True)
        return hashlib.sha256(f"{super().digest}\n{hashlib.sha256(self.other).hexdigest()}\n{ids}".encode()).hexdigest()

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        with fast.readable("texts"):
            found = self._library.encode([self._text(text) for text in texts], out_type=str)
        unknown = self.controls["<unk>"]
        number = lambda name: unknown if name in self.controls else self.vocabulary.get(name, unknown)
        return [[number(name) for name in row] for row in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens are no text and are left out. Raises DataError outside the vocabulary."""
        ids = [int(i) for i in ids]
        fast.check_ids(ids, self.vocab_size)
        names = [self.piece(i) for i in ids]
        with fast.readable("ids"):
            return self._library.decode([name for name in names if name is not None and name not in self.controls])

    def piece(self, i: int) -> str | None:
        """How the vocabulary spells an id; None for a hole in it."""
        return self._names.get(i)

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        return {i: name for name, i in self.vocabulary.items()}

    def as_target(self) -> "Marian":
        """The tokenizer of the other side's texts."""
        data, name = self.other, next(known for known in FILES[:2] if known != self.name)
        return dataclasses.replace(self, model=data, name=name, pieces=read_pieces(data, name), other=self.model)

    def in_language(self, code: str) -> "Marian":
        """The tokenizer that puts a target language's code before each text; raises ConfigError where there is no such code."""
        name = code if code.startswith(">>") else f">>{code}<<"
        known = super().in_language(name)
        return dataclasses.replace(known, scheme=dataclasses.replace(self.scheme, before=(name,)))

    def save(self, directory: str | Path) -> None:
        """Write both models, the vocabulary and the settings by which transformers' AutoTokenizer opens them."""
        super().save(directory)
        other = next(name for name in FILES[:2] if name != self.name)
        (Path(directory) / other).write_bytes(self.other)
        (Path(directory) / "vocab.json").write_text(json.dumps(self.vocabulary, ensure_ascii=False), encoding="utf-8")


def load(directory: Path) -> Marian:
    """Read Marian's three files; raises DataError where one is damaged."""
    folder = Path(directory)
    named = added.named(folder)
    if named.get("separate_vocabs"):
        raise DataError(f"{folder}: Marian with a vocabulary for each side is not read: use a model that shares one")
    vocabulary = _vocabulary(folder / "vocab.json")
    codes = tuple(name for name in vocabulary if name.startswith(">>") and name.endswith("<<"))
    controls = {name: vocabulary[name] for name in ("<pad>", "</s>", "<unk>", *codes) if name in vocabulary}
    roles = {role: name for role, name in {"eos": "</s>", "pad": "<pad>", "unk": "<unk>"}.items() if name in controls}
    scheme = Scheme(controls, max(vocabulary.values()) + 1, roles, after=("</s>",), languages=codes)
    source, target = (file_bytes(folder / name) for name in FILES[:2])
    settings = {**named, "tokenizer_class": "MarianTokenizer"}
    made = Marian(source, FILES[0], settings, read_pieces(source, folder / FILES[0]), scheme, chat.find(folder, named), vocabulary, target)
    with fast.readable(folder):
        made.decode(made.encode("a 1"))
        made.as_target().encode("a 1")
    return made


def _vocabulary(path: Path) -> dict[str, int]:
    found = fast.settings(path)
    if not all(type(i) is int and 0 <= i < LARGEST for i in found.values()) or not {"</s>", "<unk>"} <= set(found):
        raise DataError(f"{path} is no vocabulary of Marian's: it needs </s>, <unk> and whole numbers; copy it again")
    return found
