"""The tokenizers of both sides of a pair: most models share one; Marian's has two models, and a run may train a second one.

Read first: `tokenizer.py`. Read next: `../tasks/text_to_text.py`.
"""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

from jaxlm.text.tokenizer import Tokenizer, load_tokenizer, save_tokenizer

FOLDER = "target_tokenizer"  # of a run directory, beside its "tokenizer"


@dataclasses.dataclass(frozen=True)
class Sides:
    """A tokenizer of sources and another of targets: what is asked of the two is asked of the source's, but for the digest."""

    source: Tokenizer
    target: Tokenizer

    def __getattr__(self, name: str) -> Any:
        if name in ("source", "target"):  # while it is being copied or unpickled they are not there yet
            raise AttributeError(name)
        return getattr(self.source, name)

    def as_target(self) -> Tokenizer:
        """The target's."""
        return self.target

    @functools.cached_property
    def digest(self) -> str:
        """Of both."""
        return hashlib.sha256(f"{self.source.digest}\n{self.target.digest}".encode()).hexdigest()


def load_sides(path: str | Path) -> Tokenizer:
    """The tokenizer of a run directory, or of all that `load_tokenizer` takes: both of them where the run has two.

    Raises DataError where there is none, or one is damaged.
    """
    source, folder = load_tokenizer(path), Path(path).expanduser() / FOLDER
    return Sides(source, load_tokenizer(folder)) if folder.is_dir() else source


def copy_target(source: str | Path, folder: str | Path) -> None:
    """Copy the tokenizer of a run's targets to another folder, where it has one of its own."""
    if (Path(source) / FOLDER).is_dir():
        save_tokenizer(Path(source) / FOLDER, Path(folder) / FOLDER)
