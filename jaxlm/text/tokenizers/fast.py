"""A tokenizer of the `tokenizers` library, with its control tokens: what `tokenizer.json` holds, and what `../training.py` makes.

User text never becomes a control token; lone surrogates, which are no text, become U+FFFD first. Read next: `tokenizer_json.py`, `bpe.py`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import chat, tokenizer_json
from jaxlm.text.tokenizers.encoding import Encoding, in_given
from jaxlm.text.unicode import places, well_formed
from jaxlm.weights import strict_json

EOS = "<|endoftext|>"
# What published vocabularies call the token that ends a document, and the one that pads; the first that is there counts
# (RoBERTa's has `<|endoftext|>` too, unused).
EOS_NAMES = ("</s>", EOS, "<|end_of_text|>", "<|im_end|>", "[SEP]")
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>")
CONTROL = ("<s>", "<unk>", "<mask>", *EOS_NAMES, *PAD_NAMES)
ROLES = {
    "eos": EOS_NAMES, "pad": PAD_NAMES, "bos": ("<s>", "<|begin_of_text|>", "<bos>"), "unk": ("<unk>", "[UNK]"), "cls": ("[CLS]",),
    "sep": ("[SEP]",), "mask": ("[MASK]", "<mask>"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FastTokenizer:
    """A tokenizer of the `tokenizers` library with its control ids; make one by `finish` or `load`."""

    engine: Any  # tokenizers.Tokenizer, whose control tokens are found in text: what allow_special=True uses
    eos_id: int | None
    pad_id: int | None
    bos_id: int | None = None
    unk_id: int | None = None
    cls_id: int | None = None
    sep_id: int | None = None
    mask_id: int | None = None
    chat_template: chat.Template = None

    @functools.cached_property
    def _plain(self) -> Any:
        """Its own engine, for a flag on a shared one would not be safe among threads."""
        return tokenizer_json.text_only(self.engine)

    @functools.cached_property
    def controls(self) -> dict[str, int]:
        """Name -> id of the control tokens."""
        return {token.content: i for i, token in self.engine.get_added_tokens_decoder().items() if token.special}

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id: a vocabulary may have holes."""
        return max(self.engine.get_vocab(with_added_tokens=True).values()) + 1

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.engine.to_str()}\n{self.eos_id} {self.pad_id}".encode()).hexdigest()

    def encode(self, text: str, pair: str | None = None, *, add_special_tokens: bool = True, allow_special: bool = False) -> Encoding:
        """Ids of a text or of two, with what the file's own template adds around them (GPT-2's adds nothing).

        Control tokens that the text spells are text, unless `allow_special`.
        """
        fixed, second = well_formed(text), None if pair is None else well_formed(pair)
        with readable("text"):
            engine = self.engine if allow_special else self._plain
            found = engine.encode(fixed, second, add_special_tokens=add_special_tokens)
        return Encoding(found.ids, lambda: (found.type_ids, _offsets(found, text, pair)))

    def encode_batch(
        self, texts: Sequence[str | tuple[str, str]], *, add_special_tokens: bool = True, allow_special: bool = False
    ) -> list[list[int]]:
        """Ids of many texts, or of many pairs, in parallel."""
        items = [tuple(map(well_formed, text)) if isinstance(text, tuple) else well_formed(text) for text in texts]
        with readable("texts"):
            engine = self.engine if allow_special else self._plain
            return [found.ids for found in engine.encode_batch_fast(items, add_special_tokens=add_special_tokens)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens are no text and are left out. Raises DataError outside the vocabulary."""
        ids = [int(i) for i in ids]
        check_ids(ids, self.vocab_size)
        with readable("ids"):
            return self.engine.decode(ids, skip_special_tokens=True)

    def piece(self, i: int) -> str | None:
        """How the vocabulary spells an id; None for a hole in it."""
        return self.engine.id_to_token(int(i)) if i >= 0 else None

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **arguments: Any) -> Any:
        """Ids of a conversation, by the tokenizer's chat template: see `chat.apply`."""
        return chat.apply(self, messages, **arguments)

    def as_target(self) -> "FastTokenizer":
        """The tokenizer of the texts that are written: the same."""
        return self

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json` and the `tokenizer_config.json` by which transformers' AutoTokenizer opens it."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        settings |= names_of_roles(self) | chat.to_settings(self.chat_template)
        (folder / "tokenizer.json").write_text(self.engine.to_str(pretty=True), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _offsets(found: Any, text: str, pair: str | None) -> list[tuple[int, int]]:
    if all(t is None or places(t) is None for t in (text, pair)):
        return found.offsets
    known = (places(text), None if pair is None else places(pair))
    rows = zip(found.offsets, found.sequence_ids, strict=True)
    return [span if side is None else in_given([span], known[side])[0] for span, side in rows]


def check_ids(ids: Sequence[int], size: int) -> None:
    """Raise DataError for an id outside 0 .. size - 1."""
    wrong = [i for i in ids if not 0 <= i < size]
    if wrong:
        raise DataError(f"id {wrong[0]} is not of this tokenizer: its ids are 0 to {size - 1}")


def names_of_roles(tokenizer: Any) -> dict[str, str]:
    """ "eos_token" -> its spelling, and so on for each role that the tokenizer has."""
    ids = {role: getattr(tokenizer, f"{role}_id") for role in ROLES}
    return {f"{role}_token": tokenizer.piece(i) for role, i in ids.items() if i is not None}


def finish(engine: Any, eos: str | None, pad: str | None, chat_template: chat.Template = None, **others: str | None) -> FastTokenizer:
    """The tokenizer of an engine, nothing cut and nothing padded; `others` name further roles (bos="<s>"), else the usual ones count."""
    engine.no_truncation()  # some published files cut at 128 tokens, silently
    engine.no_padding()
    names = {"eos": eos, "pad": pad, **others}
    missing = [role for role in ROLES if role not in names]
    names |= {role: next((name for name in ROLES[role] if engine.token_to_id(name) is not None), None) for role in missing}
    ids = {f"{role}_id": None if name is None else engine.token_to_id(name) for role, name in names.items()}
    return FastTokenizer(engine, **ids, chat_template=chat_template)


def load(directory: Path) -> FastTokenizer:
    """Read `tokenizer.json`, and the names of its control tokens from the files beside it where they say.

    Raises DataError where a file is damaged, or has sizes that no real one has.
    """
    from tokenizers import Tokenizer

    path = Path(directory) / "tokenizer.json"
    named = {**settings(path.with_name("special_tokens_map.json")), **settings(path.with_name("tokenizer_config.json"))}
    with readable(path):
        text = path.read_text(encoding="utf-8")
        tokenizer_json.check(json.loads(text), path)
        engine = Tokenizer.from_str(text)
        names = set(engine.get_vocab(with_added_tokens=True))
        roles = {role: control(named, f"{role}_token", usual, names) for role, usual in ROLES.items()}
        found = finish(engine, chat_template=chat.find(path.parent, named), **roles)
        tokenizer_json.check_template(engine, found.vocab_size, path)
        found.encode("a 1", "b")  # some damage shows only at the first use
    return found


def settings(path: Path) -> dict[str, Any]:
    """What a JSON file of settings holds; nothing where there is none. Raises DataError where it is damaged."""
    return strict_json.read_object(path) if path.is_file() else {}


def control(named: Mapping[str, Any], role: str, usual: Sequence[str], vocabulary: set[str]) -> str | None:
    """The control token of a role: the one that the settings name, else the first usual one in the vocabulary."""
    name = named.get(role)
    name = name.get("content") if isinstance(name, dict) else name
    return next((n for n in (name, *usual) if isinstance(n, str) and n in vocabulary), None)


@contextlib.contextmanager
def readable(what: object) -> Iterator[None]:
    """Turn whatever the library meets in a bad file into one DataError; a Rust panic is no Exception in Python."""
    try:
        yield
    except DataError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"the tokenizer cannot read {what} ({reason}): copy its files again or train another") from error
        raise
