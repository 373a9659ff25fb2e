"""Files that are there whole, also after a power cut, or not at all; and one writer at a time. A leaf."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` at once where the body ends well, and is removed where it does not."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # of this writer alone, on this host or another
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: Any) -> None:
    """Write bytes, or a buffer of them, to a file: a reader sees the old content or the new, never a part."""
    with new_file(path) as file:
        file.write(content)


def sync_directory(directory: Path) -> None:
    """Bring the names in a directory to the disk: a rename lasts only once its directory is written."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock on a file (made if missing), after waiting for whoever holds it; the kernel drops it if its holder dies.

    Where a file system knows no locks the block runs without one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
