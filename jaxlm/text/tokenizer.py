"""The tokenizer as the rest of the house sees it: a protocol, one way to load one.

Read next: `fast.py`, `bpe.py`, `characters.py`, `wordpiece.py`, `gguf_vocabulary.py`; `../data/prepare.py` is where texts become ids.
"""

import shutil
import typing
from collections.abc import Sequence
from pathlib import Path

from jaxlm.errors import DataError
from jaxlm.text import bpe, characters, fast, gguf_vocabulary, wordpiece
from jaxlm.weights import hub


class Tokenizer(typing.Protocol):
    """Text to ids and back; what is text never becomes a control token, whatever it spells."""

    vocab_size: int  # ids are 0 .. vocab_size - 1
    eos_id: int | None  # ends a document
    pad_id: int | None
    digest: str  # SHA-256 of the canonical files: equal digests mean equal ids

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def save(self, directory: str | Path) -> None: ...


# The files that tell what lies in a folder -> the function that reads it; the first row that fits is taken.
FORMATS = {
    ("tokenizer.json",): fast.load,
    ("vocab.json", "merges.txt"): bpe.load_vocab_and_merges,
    ("characters.json",): characters.load,
    ("vocab.txt",): wordpiece.load,
}

# Further files of published tokenizers.
PUBLISHED = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "source.spm", "target.spm",
)  # fmt: skip


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a folder, by the files of FORMATS; of a run directory; of a GGUF file; of a model's name on the hub.

    Raises DataError where there is none, or where its files are damaged.
    """
    folder = hub.find(path) if hub.NAME.fullmatch(str(path)) else Path(path).expanduser()
    if folder.suffix == ".gguf" and folder.is_file():
        return gguf_vocabulary.load(folder)
    if (folder / "tokenizer").is_dir():
        folder = folder / "tokenizer"
    for names, load in FORMATS.items():
        if all((folder / name).is_file() for name in names):
            return load(folder)
    wanted = ", ".join(" + ".join(names) for names in FORMATS)
    state = "holds no tokenizer" if folder.is_dir() else "is not a folder"
    raise DataError(f"{folder} {state}: give a folder with {wanted}, or a run directory")


def save_tokenizer(tokenizer: Tokenizer | str | Path | None, directory: str | Path) -> None:
    """Save a tokenizer (None: nothing); of a path, the tokenizer files in that folder are copied as they are."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(tokenizer, str | Path):
        for name in (*PUBLISHED, *(name for names in FORMATS for name in names)):
            if (Path(tokenizer) / name).is_file():
                shutil.copyfile(Path(tokenizer) / name, folder / name)
    elif tokenizer is not None:
        tokenizer.save(folder)
