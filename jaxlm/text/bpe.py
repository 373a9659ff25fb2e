"""Byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2, Radford et al. 2019) over the `tokenizers` library.

All 256 bytes are in the vocabulary, so every text has ids and `decode(encode(text)) == text`; lone surrogates, which are
no text, become U+FFFD first. Any `tokenizer.json` loads here, whatever its model. Read next: `../data/prepare.py`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import ConfigError, DataError
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
        with _readable("text"):
            return self.engine.encode(well_formed(text)).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of many texts, in parallel."""
        with _readable("texts"):
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


def train(texts: Iterable[str], vocab_size: int) -> FastTokenizer:
    """Learn the merges from texts; GPT-2's pre-tokenizer, `<|endoftext|>` as id 0, the bytes after it.

    Raises ConfigError for a vocabulary that cannot hold the bytes, DataError for no text at all.
    """
    from tokenizers import models, pre_tokenizers, trainers

    if vocab_size < 257:
        raise ConfigError(f"tokenizer.vocab_size={vocab_size} is too small: 256 bytes and {EOS} need at least 257")
    engine = _byte_level(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False)
    seen = [0]
    engine.train_from_iterator(_counted(texts, seen), trainer)
    if not seen[0]:
        raise DataError("there is no text to train a tokenizer on: check data.source")
    return _finish(engine, EOS, None)


def _byte_level(model: Any) -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    engine = Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    return engine


def _counted(texts: Iterable[str], seen: list[int]) -> Iterator[str]:
    for text in texts:
        seen[0] += len(text)
        yield well_formed(text)


def _finish(engine: Any, eos: str | None, pad: str | None) -> FastTokenizer:
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
    with _readable(path):
        engine = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        engine.encode("")  # some damage shows only at the first use
    named = {**_settings(path.with_name("special_tokens_map.json")), **_settings(path.with_name("tokenizer_config.json"))}
    names = set(engine.get_vocab(with_added_tokens=True))
    return _finish(engine, _control(named, "eos_token", EOS_NAMES, names), _control(named, "pad_token", PAD_NAMES, names))


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with _readable(path):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def _control(named: dict[str, Any], role: str, usual: Sequence[str], vocabulary: set[str]) -> str | None:
    name = named.get(role)
    name = name.get("content") if isinstance(name, dict) else name
    return next((n for n in (name, *usual) if n in vocabulary), None)


def load_vocab_and_merges(directory: Path) -> FastTokenizer:
    """Read GPT-2's and RoBERTa's older pair of files; raises DataError where one is damaged."""
    from tokenizers import models

    folder = Path(directory)
    with _readable(f"{folder / 'vocab.json'} with merges.txt"):
        engine = _byte_level(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
        names = set(engine.get_vocab())
        engine.add_special_tokens([name for name in CONTROL if name in names])
    return _finish(engine, _control({}, "", EOS_NAMES, names), _control({}, "", PAD_NAMES, names))


@contextlib.contextmanager
def _readable(what: object) -> Iterator[None]:
    """Turn whatever the library meets in a bad file into one DataError; a Rust panic is no Exception in Python."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            reason = str(error)[:200]
            raise DataError(f"the tokenizer cannot read {what} ({reason}): copy its files again or train another") from error
        raise
