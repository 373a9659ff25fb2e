"""The lock on a run directory: two writers would damage each other's checkpoints.

The kernel holds the lock for the open file and drops it when the owner dies, so there is nothing stale to clean up; the
text in the file only tells a person who the owner is. Read next: `checkpoint.py`, which writes into that directory.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from jaxlm.errors import ConfigError, InUseError

NAME = ".lock"


@contextlib.contextmanager
def lock(workdir: str | Path, owner: bool = True) -> Iterator[None]:
    """Own `workdir` (made if missing) inside the block; of a run's processes only the first is the `owner`, the others pass.

    Raises InUseError where another living process owns it, ConfigError where it cannot be written.
    """
    if not owner:
        yield
        return
    descriptor = _open(Path(workdir))
    try:
        _take(descriptor, workdir)
        yield
    finally:
        os.close(descriptor)


def _open(workdir: Path) -> int:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return os.open(workdir / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unusable(workdir, error) from error


def _take(descriptor: int, workdir: str | Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_self()).encode(), 0)
    except BlockingIOError:
        raise InUseError(f"{workdir} is in use by {_owner(descriptor)}: wait, or choose another workdir=...") from None
    except OSError as error:
        raise _unusable(workdir, error) from error


def _unusable(workdir: str | Path, error: OSError) -> ConfigError:
    return ConfigError(f"workdir={workdir} cannot be written ({error.strerror}): mend that, or choose another workdir=...")


def _self() -> dict[str, str | int]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _owner(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has the lock and is just about to write its name
