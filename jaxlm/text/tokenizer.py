"""The tokenizer as the rest of the house sees it: a protocol, one way to load one.

Read next, in `tokenizers/`: `encoding.py`, `fast.py`, `bpe.py`, `wordpiece.py`, `sentencepiece.py`, `bytes.py`, `characters.py`,
`chat.py`; `../data/prepare.py` is where texts become ids.
"""

import os
import shutil
import tempfile
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import bpe, bytes, characters, fast, gguf_vocabulary, marian, sentencepiece, wordpiece
from jaxlm.text.tokenizers.encoding import Encoding
from jaxlm.weights import hub


class Tokenizer(typing.Protocol):
    """Text to ids and back; what is text never becomes a control token, whatever it spells, unless `allow_special`.

    A text is a `str`; lone surrogates in it count as U+FFFD (`unicode.repaired` says how many). decode(encode(text)) is the text for bytes,
    characters and byte-level BPE; for the others it is the text as their normalizer and cutting leave it.
    """

    vocab_size: int  # ids are 0 .. vocab_size - 1
    bos_id: int | None  # begins a document
    eos_id: int | None  # ends a document
    pad_id: int | None
    unk_id: int | None
    cls_id: int | None
    sep_id: int | None
    mask_id: int | None
    controls: Mapping[str, int]  # name -> id of the control tokens
    digest: str  # SHA-256 of the canonical files: equal digests mean equal ids
    chat_template: str | Mapping[str, str] | None

    def encode(self, text: str, pair: str | None = None, *, add_special_tokens: bool = True, allow_special: bool = False) -> Encoding: ...

    def encode_batch(
        self, texts: Sequence[str | tuple[str, str]], *, add_special_tokens: bool = True, allow_special: bool = False
    ) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def piece(self, i: int) -> str | None: ...

    def apply_chat_template(self, messages: Sequence[Mapping[str, typing.Any]], **arguments: typing.Any) -> typing.Any: ...

    def as_target(self) -> "Tokenizer": ...  # that of the texts that are written; for most the same

    def save(self, directory: str | Path) -> None: ...


# The files that tell what lies in a folder -> the function that reads it; the first row that fits is taken.
FORMATS = {
    ("characters.json",): characters.load,
    ("tokenizer.json",): fast.load,
    marian.FILES: marian.load,
    ("vocab.json", "merges.txt"): bpe.load_vocab_and_merges,
    ("vocab.txt",): wordpiece.load,
    **{(name,): sentencepiece.load for name in sentencepiece.NAMES},
}

# Further files of published tokenizers.
PUBLISHED = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a folder, by the files of FORMATS; of a run directory; of a GGUF file; of a model's name on the hub.

    ByT5's needs no vocabulary: its folder is known by tokenizer_config.json or config.json. Raises DataError where there is none, where its
    files are damaged, or of a family that is not read.
    """
    folder = hub.find(path) if hub.NAME.fullmatch(str(path)) else Path(path).expanduser()
    if folder.suffix == ".gguf" and folder.is_file():
        return gguf_vocabulary.load(folder)
    if (folder / "tokenizer").is_dir():
        folder = folder / "tokenizer"
    for names, load in FORMATS.items():
        if all((folder / name).is_file() for name in names):
            return load(folder)
    if bytes.described(folder):
        return bytes.load(folder)
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


def keep_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Save a tokenizer to a new folder, whole or not at all; of several processes that do so at once, the first one's stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as partial:
        tokenizer.save(partial)
        os.chmod(partial, 0o755)  # a temporary directory is its owner's alone
        try:
            os.rename(partial, folder)
        except OSError:
            if not folder.is_dir():
                raise
