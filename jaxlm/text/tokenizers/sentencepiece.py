"""SentencePiece models (Kudo and Richardson 2018) with the ids of the families that use them: `spiece.model` and its like.

The sentencepiece library cuts the text; what it finds is renumbered by a family's `Scheme`. Control pieces are never found in text: those
that the library would find (user-defined ones such as <mask>, T5's sentinels) are renamed to what nobody can write, in the library's copy.
Read next: `sentencepiece_conventions.py`, `marian.py`.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import ConfigError, DataError
from jaxlm.text.tokenizers import added, chat, fast
from jaxlm.text.tokenizers import sentencepiece_conventions as conventions
from jaxlm.text.tokenizers.encoding import Encoding, Span
from jaxlm.text.tokenizers.sentencepiece_model import Piece, read_pieces, rewrite, spans
from jaxlm.text.unicode import places, well_formed

NAMES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


@dataclasses.dataclass(frozen=True)
class SentencePiece:
    """A SentencePiece model under a family's numbering; `language` is the code that mBART puts beside a text."""

    model: bytes  # the file
    name: str  # the file's, for saving
    settings: Mapping[str, Any]  # tokenizer_config.json's, for saving
    pieces: Sequence[Piece] = dataclasses.field(repr=False)
    scheme: conventions.Scheme = dataclasses.field(repr=False)
    chat_template: chat.Template = None

    def __getattr__(self, name: str) -> int | None:
        """eos_id, pad_id, ... of the scheme's roles; None where it has none."""
        if name.endswith("_id") and name[:-3] in fast.ROLES:
            return self.scheme.controls.get(self.scheme.roles.get(name[:-3], ""))
        raise AttributeError(name)

    @property
    def vocab_size(self) -> int:
        return self.scheme.size

    @property
    def controls(self) -> Mapping[str, int]:
        """Name -> id of the control tokens."""
        return self.scheme.controls

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(hashlib.sha256(self.model).digest() + repr(dataclasses.astuple(self.scheme)).encode()).hexdigest()

    @functools.cached_property
    def _library(self) -> Any:
        """The library's reader of the file, in which no text is a control piece."""
        from sentencepiece import SentencePieceProcessor

        changed = self._hidden()
        if self.scheme.lower is not None:  # ALBERT cuts the comma off a number, as Transformers' conversion of it does
            number = lambda text: len(text) > 1 and text[-1] == "," and text[-2].isdigit()
            changed |= {i: dataclasses.replace(p, score=p.score - 100) for i, p in enumerate(self.pieces) if number(p.text)}
        with fast.readable(self.name):
            return SentencePieceProcessor(model_proto=rewrite(self.model, self.pieces, changed))

    def _hidden(self) -> dict[int, Piece]:
        key = secrets.token_hex(16)
        return {i: dataclasses.replace(piece, text=f"{key}{i}") for i, piece in enumerate(self.pieces) if _found_in_text(piece)}

    @functools.cached_property
    def _ids(self) -> list[int]:
        """Token id of each piece."""
        ids = [i + self.scheme.shift for i in range(len(self.pieces))]
        for i, token in self.scheme.moved.items():
            ids[i] = token
        return ids

    @functools.cached_property
    def _pieces(self) -> dict[int, int]:
        """Piece of each token id that is text."""
        control = set(self.scheme.controls.values())
        return {token: i for i, token in enumerate(self._ids) if token not in control}

    def encode(self, text: str, pair: str | None = None, *, add_special_tokens: bool = True, allow_special: bool = False) -> Encoding:
        """Ids of a text or of two, with what the family puts around them; what spells a control token is text, unless `allow_special`."""
        sides = [text] if pair is None else [text, pair]
        rows = [self._row(side, allow_special) for side in sides]
        return Encoding(self._around(rows, add_special_tokens), lambda: self._details(sides, add_special_tokens, allow_special))

    def encode_batch(
        self, texts: Sequence[str | tuple[str, str]], *, add_special_tokens: bool = True, allow_special: bool = False
    ) -> list[list[int]]:
        """Ids of many texts, or of many pairs; the library works in parallel."""
        sides = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
        flat = [side for row in sides for side in row]
        found = iter([self._row(side, True) for side in flat] if allow_special else self._rows(flat))
        return [self._around(list(itertools.islice(found, len(row))), add_special_tokens) for row in sides]

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts without control tokens."""
        cleaned = [self._text(text) for text in texts]
        with fast.readable("texts"):
            found = self._library.encode(cleaned, out_type=int)
        return [list(map(self._ids.__getitem__, row)) for row in found]

    def _text(self, given: str) -> str:
        return self._clean(well_formed(given))

    def _row(self, text: str, allow_special: bool) -> list[int]:
        if not allow_special:
            return self._rows([text])[0]
        parts = self._parts(well_formed(text))
        return [i for part in parts for i in ([self.controls[part]] if part in self.controls else self._rows([part])[0])]

    def _parts(self, text: str) -> list[str]:
        """The text cut at the control tokens that it spells."""
        return [part for part in self._pattern.split(text) if part]

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        names = sorted(self.controls, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, names)) + ")")

    def _around(self, rows: list[list[int]], add: bool) -> list[int]:
        ids = lambda names: [self.scheme.controls[name] for name in names] if add else []
        between = rows[1:] and [*ids(self.scheme.between), *rows[1]]
        return [*ids(self.scheme.before), *rows[0], *between, *ids(self.scheme.after)]

    def _details(self, sides: list[str], add: bool, allow_special: bool) -> tuple[list[int], list[Span]]:
        rows = [self._spans(side, allow_special) for side in sides]
        around = {name: [(0, 0)] * len(getattr(self.scheme, name)) * add for name in ("before", "between", "after")}
        first = [*around["before"], *rows[0], *(around["between"] if rows[1:] else [])]
        rest = [*(rows[1] if rows[1:] else []), *around["after"]]
        return [0] * len(first) + [int(self.scheme.typed and len(rows) > 1)] * len(rest), first + rest

    def _spans(self, given: str, allow_special: bool) -> list[Span]:
        text, known = well_formed(given), places(given) or range(len(given) + 1)
        found, place = [], 0
        for part in self._parts(text) if allow_special else [text]:
            own = [(0, len(part))] if allow_special and part in self.controls else self._text_spans(part)
            found += [(known[place + start], known[place + stop]) for start, stop in own]
            place += len(part)
        return found

    def _text_spans(self, text: str) -> list[Span]:
        """Where each piece comes from; the space before a word that its first piece stands for is left out, as tokenizer.json's do."""
        cleaned = self._clean(text)
        with fast.readable("text"):
            message = self._library.encode(cleaned, out_type="serialized_proto")
        counted = list(itertools.accumulate((len(c.encode()) for c in cleaned), initial=0))
        at = {byte: i for i, byte in enumerate(counted)}
        origin, found, last = self._origins(text), [], 0
        for _, start, stop in spans(message):
            first, end = at.get(start, last), at.get(stop, last)
            while first < end - 1 and cleaned[first].isspace():
                first += 1
            found.append((origin[first][0], origin[end - 1][1]) if end > first else (origin[first][0],) * 2)
            last = end
        return found

    def _clean(self, text: str) -> str:
        return text if self.scheme.lower is None else self._cleaned(text)[0]

    def _origins(self, text: str) -> list[Span]:
        """Where each cleaned character comes from, and the end."""
        spans_of = [(i, i + 1) for i in range(len(text))] if self.scheme.lower is None else self._cleaned(text)[1]
        return [*spans_of, (len(text), len(text))]

    def _cleaned(self, text: str) -> tuple[str, list[Span]]:
        """ALBERT's cleaning, and where each character of it comes from: single spaces, straight quotes, no accents, lower case."""
        rows: list[tuple[str, Span]] = []
        for found in re.finditer(r"``|''|\S", text):
            if rows and text[found.start() - 1].isspace():
                rows.append((" ", (found.start() - 1, found.start())))
            part = '"' if len(found[0]) == 2 else found[0]
            if not self.scheme.accents:
                part = "".join(c for c in unicodedata.normalize("NFKD", part) if not unicodedata.combining(c))
            rows += [(c, found.span()) for c in part]
        cleaned = "".join(c for c, _ in rows)
        if self.scheme.lower:
            lowered = cleaned.lower()  # of the whole: a sigma's form depends on its neighbours
            rows = rows if len(lowered) == len(cleaned) else [(c, place) for part, place in rows for c in part.lower()]
            cleaned = lowered
        return cleaned, [place for _, place in rows]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens are no text and are left out. Raises DataError outside the vocabulary."""
        ids = [int(i) for i in ids]
        fast.check_ids(ids, self.vocab_size)
        with fast.readable("ids"):
            return self._library.decode([self._pieces[i] for i in ids if i in self._pieces])

    def piece(self, i: int) -> str | None:
        """How the vocabulary spells an id; None for a hole in it."""
        if i in self._pieces:
            return self.pieces[self._pieces[i]].text
        return next((name for name, known in self.controls.items() if known == i), None)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **arguments: Any) -> Any:
        """Ids of a conversation, by the tokenizer's chat template: see `chat.apply`."""
        return chat.apply(self, messages, **arguments)

    def as_target(self) -> "SentencePiece":
        """The tokenizer of the texts that are written: the same."""
        return self

    def in_language(self, code: str) -> "SentencePiece":
        """The tokenizer of texts in another language, for mBART's families; raises ConfigError where there is no such code."""
        if code not in self.scheme.languages:
            known = ", ".join(self.scheme.languages) or "none: its family marks no languages"
            raise ConfigError(f"{str(code)[:30]!r} is no language of this tokenizer; it knows {known}")
        swap = lambda names: tuple(code if name in self.scheme.languages else name for name in names)
        scheme = dataclasses.replace(self.scheme, before=swap(self.scheme.before), after=swap(self.scheme.after))
        return dataclasses.replace(self, scheme=scheme, settings={**self.settings, "src_lang": code})

    def save(self, directory: str | Path) -> None:
        """Write the model file and the `tokenizer_config.json` by which transformers' AutoTokenizer opens it."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.name).write_bytes(self.model)
        settings = {**self.settings, **fast.names_of_roles(self), **chat.to_settings(self.chat_template)}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _found_in_text(piece: Piece) -> bool:
    """Whether the library would find a control token in text."""
    return piece.kind in (1, 4, 5) and bool(
        conventions.SENTINEL.fullmatch(piece.text) or (piece.kind == 4 and conventions.LOOKS.fullmatch(piece.text))
    )


CLASSES = {
    "t5": "T5Tokenizer", "mt5": "T5Tokenizer", "albert": "AlbertTokenizer", "xlmroberta": "XLMRobertaTokenizer", "mbart": "MBartTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer", "mbart50": "MBart50Tokenizer", "pegasus": "PegasusTokenizer", "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer", "mixtral": "LlamaTokenizer",
}  # fmt: skip
# What a class must be told to number its tokens, or to begin its texts, as its family does.
SAID = {"pegasus": {"mask_token_sent": "<mask_1>"}, "llama": {"add_bos_token": True, "add_eos_token": False}}


def load(directory: Path) -> SentencePiece:
    """Read a folder's SentencePiece model; raises DataError where it is damaged or of a family that is not read."""
    folder = Path(directory)
    path = next(folder / name for name in NAMES if (folder / name).is_file())
    return read(path, added.named(folder))


def read(path: Path, named: Mapping[str, Any]) -> SentencePiece:
    """The tokenizer of one model file, by the settings beside it."""
    folder, data = path.parent, file_bytes(path)
    pieces = read_pieces(data, path)
    kind = conventions.family(folder, named, pieces)
    try:
        scheme = _with_added(conventions.FAMILIES[kind](pieces, named), folder, named)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    settings = {**SAID.get(CLASSES[kind].removesuffix("Tokenizer").lower(), {}), **named, "tokenizer_class": CLASSES[kind]}
    found = SentencePiece(data, path.name, settings, pieces, scheme, chat.find(folder, named))
    with fast.readable(path):
        found.decode(found.encode("a 1"))  # some damage shows only at the first use
    return found


def file_bytes(path: Path) -> bytes:
    """What is in a file; raises DataError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): copy it again") from error


def _with_added(scheme: conventions.Scheme, folder: Path, named: Mapping[str, Any]) -> conventions.Scheme:
    """The scheme with the tokens that the folder adds beyond the model's; they must follow it without a hole."""
    known, size = dict(scheme.controls), scheme.size
    for i, token in added.tokens(folder, named).items():
        if i > size:
            raise DataError(f"{folder}: the added token {token['content'][:40]!r} has id {i}, and none has {size}: copy its files again")
        if i == size:
            known, size = {**known, token["content"]: i}, size + 1
    return dataclasses.replace(scheme, controls=known, size=size)
