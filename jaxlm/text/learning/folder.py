"""A folder that appears whole or not at all. Read next: `../../tokenize.py`, which writes one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxlm.errors import ConfigError


def free(path: str | Path) -> Path:
    """The absolute path. Raises ConfigError where it is there and not an empty folder, or cannot be made."""
    target = Path(path).expanduser().absolute()
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise ConfigError(f"{path} exists and is not an empty folder: name another, or remove it first")
    above = next(folder for folder in target.parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"{path} cannot be made: {above} is not a folder")
    return target


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A place beside `path` to write files in, which becomes `path` where the body ends well, and is removed where it does not.

    Raises ConfigError, before anything is done, where `path` is there and not an empty folder.
    """
    target = free(path)
    made = next((folder for folder in reversed(target.parents) if not folder.exists()), None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True) as partial:
            yield Path(partial)
            os.chmod(partial, 0o755)  # a temporary directory is its owner's alone
            os.rename(partial, target)
    finally:
        if made is not None and not target.exists():
            _remove_empty(target.parent, made)


def _remove_empty(folder: Path, top: Path) -> None:
    """Take away the folders made for nothing, from `folder` up to `top`."""
    with contextlib.suppress(OSError):
        while folder != top.parent:
            folder.rmdir()
            folder = folder.parent
