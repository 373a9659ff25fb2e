"""A tokenizer of the `tokenizers` library, with its control tokens: what `tokenizer.json` holds, and what `training.py` makes.

User text never becomes a control token; lone surrogates, which are no text, become U+FFFD first. Read next: `bpe.py`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError
from jaxlm.text.unicode import well_formed

EOS = "<|endoftext|>"
# What published vocabularies call the token that ends a document, and the one that pads; the first that is there counts
# (RoBERTa's has `<|endoftext|>` too, unused).
EOS_NAMES = ("</s>", EOS, "<|end_of_text|>", "<|im_end|>", "[SEP]")
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>")
CONTROL = ("<s>", "<unk>", "<mask>", *EOS_NAMES, *PAD_NAMES)


@dataclasses.dataclass(frozen=True)
class FastTokenizer:
    """A tokenizer of the `tokenizers` library with its control ids."""

    engine: Any  # tokenizers.Tokenizer
    eos_id: int | None
    pad_id: int | None

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id: a vocabulary may have holes."""
        return max(self.engine.get_vocab(with_added_tokens=True).values()) + 1

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.engine.to_str()}\n{self.eos_id} {self.pad_id}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with what the file's own template adds around it (GPT-2's adds nothing)."""
        with readable("text"):
            return self.engine.encode(well_formed(text)).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of many texts, in parallel."""
        with readable("texts"):
            return [found.ids for found in self.engine.encode_batch_fast([well_formed(text) for text in texts])]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens are no text and are left out. Raises DataError outside the vocabulary."""
        ids = [int(i) for i in ids]
        wrong = [i for i in ids if not 0 <= i < self.vocab_size]
        if wrong:
            raise DataError(f"id {wrong[0]} is not of this tokenizer: its ids are 0 to {self.vocab_size - 1}")
        return self.engine.decode(ids, skip_special_tokens=True)

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json` and the `tokenizer_config.json` by which transformers' AutoTokenizer opens it."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        for role, i in {"eos_token": self.eos_id, "pad_token": self.pad_id}.items():
            if i is not None:
                settings[role] = self.engine.id_to_token(i)
        (folder / "tokenizer.json").write_text(self.engine.to_str(pretty=True), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def finish(engine: Any, eos: str | None, pad: str | None) -> FastTokenizer:
    """The tokenizer of an engine, its text never a control token, nothing cut and nothing padded."""
    engine.encode_special_tokens = True  # the file does not keep it: user text must not become a control token
    engine.no_truncation()  # some published files cut at 128 tokens, silently
    engine.no_padding()
    ids = [None if name is None else engine.token_to_id(name) for name in (eos, pad)]
    return FastTokenizer(engine, *ids)


def load(directory: Path) -> FastTokenizer:
    """Read `tokenizer.json`, and the names of its control tokens from the files beside it where they say.

    Raises DataError where a file is damaged.
    """
    from tokenizers import Tokenizer

    path = Path(directory) / "tokenizer.json"
    with readable(path):
        engine = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        engine.encode("")  # some damage shows only at the first use
    named = {**settings(path.with_name("special_tokens_map.json")), **settings(path.with_name("tokenizer_config.json"))}
    names = set(engine.get_vocab(with_added_tokens=True))
    return finish(engine, control(named, "eos_token", EOS_NAMES, names), control(named, "pad_token", PAD_NAMES, names))


def settings(path: Path) -> dict[str, Any]:
    """What a JSON file of settings holds; nothing where there is none."""
    if not path.is_file():
        return {}
    with readable(path):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def control(named: dict[str, Any], role: str, usual: Sequence[str], vocabulary: set[str]) -> str | None:
    """The control token of a role: the one that the settings name, else the first usual one in the vocabulary."""
    name = named.get(role)
    name = name.get("content") if isinstance(name, dict) else name
    return next((n for n in (name, *usual) if n in vocabulary), None)


@contextlib.contextmanager
def readable(what: object) -> Iterator[None]:
    """Turn whatever the library meets in a bad file into one DataError; a Rust panic is no Exception in Python."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            reason = str(error)[:200]
            raise DataError(f"the tokenizer cannot read {what} ({reason}): copy its files again or train another") from error
        raise
