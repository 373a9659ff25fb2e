"""Digests: `digest.json` says what a finished checkpoint holds, so that a flipped bit or a cut file is noticed.

It is written last, after everything else has reached the disk: a checkpoint without it is unfinished. Here too: which of a
run's checkpoints is the newest good one. No array is read in this file. Read next: `checkpoint.py`, which writes them.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

from jaxlm import atomic
from jaxlm.errors import CheckpointError

NAME, BEST, DAMAGED = "digest.json", "best.json", ".damaged"
FORMAT = 1
NO_CHECKPOINT, ONLY_DAMAGED = -1, -2  # in the place of a step


def write_digest(directory: Path, step: int) -> None:
    """Bring every file below `directory` to the disk, then write their sizes and SHA-256 digests."""
    names = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    files = {name: {"bytes": (directory / name).stat().st_size, "sha256": _digest(directory / name, sync=True)} for name in names}
    for folder in (path for path in directory.rglob("*") if path.is_dir()):
        atomic.sync_directory(folder)
    write_atomically(directory / NAME, json.dumps({"format": FORMAT, "step": step, "files": files}, indent=1).encode())


def verify(directory: Path) -> list[str]:
    """What is wrong with a finished directory, one `file: problem` each; an empty list means that it is good.

    Files that the digest does not name do no harm and are not looked at. Raises CheckpointError where a newer jaxlm wrote it.
    """
    try:
        manifest = json.loads((directory / NAME).read_bytes())
        layout, step = manifest["format"], manifest["step"]
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{NAME}: unreadable"]
    if layout != FORMAT:
        raise CheckpointError(f"{directory} has format {layout} and this jaxlm reads {FORMAT}: use the jaxlm that wrote it, or a newer one")
    if str(step) != directory.name:
        return [f"{NAME}: belongs to step {step}"]
    problems = (_problem(directory / name, *expected) for name, expected in files.items())
    return [f"{name}: {problem}" for name, problem in zip(files, problems, strict=True) if problem]


def _problem(path: Path, size: int, sha256: str) -> str | None:
    try:
        found = path.stat().st_size
        if found != size:
            return f"{'cut' if found < size else 'grown'} from {size} to {found} bytes"
        return None if _digest(path) == sha256 else "changed"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable ({error.strerror})"


def _digest(path: Path, sync: bool = False) -> str:
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a run killed at any moment, sees the old content or the new, on the disk too."""
    atomic.write_atomically(path, content)
    atomic.sync_directory(path.parent)


def folder(workdir: str | Path) -> Path:
    """Where a run directory keeps its checkpoints."""
    return Path(workdir) / "checkpoints"


def finished(path: Path) -> bool:
    """Whether a checkpoint was written to its end; what it holds may still be damaged."""
    return (path / NAME).is_file()


def checkpoint_steps(workdir: str | Path) -> list[int]:
    """The steps of the finished checkpoints, in ascending order; their digests are not compared."""
    return sorted(int(path.name) for path in _numbered(workdir) if finished(path))


def _numbered(workdir: str | Path) -> list[Path]:
    return [path for path in sorted(folder(workdir).glob("*")) if path.name.isdecimal()]


def best(workdir: str | Path) -> tuple[int, float] | None:
    """Step and validation loss of the best checkpoint; None where none is marked, or it is no longer there."""
    try:
        found = json.loads((folder(workdir) / BEST).read_bytes())
        step, loss = int(found["step"]), float(found["loss"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (step, loss) if finished(folder(workdir) / str(step)) else None


def newest_good(workdir: str | Path, say: Callable[[str], None], owner: bool) -> int:
    """The newest step whose digests match, or NO_CHECKPOINT, or ONLY_DAMAGED; see `checkpoint.latest`."""
    unfinished = [path.name for path in _numbered(workdir) if not finished(path)]
    if unfinished:
        say(f"{folder(workdir)}: {', '.join(unfinished)} unfinished (no {NAME}), ignored")
    damaged = {}
    for step in reversed(checkpoint_steps(workdir)):
        path = folder(workdir) / str(step)
        problems = verify(path)
        if not problems:
            _walk_back(damaged, step, say, owner)
            return step
        if path.exists():  # for a reader: the run may just have removed it
            damaged[path] = problems[0] + (f" and {len(problems) - 1} more" if problems[1:] else "")
    for path, what in damaged.items():
        say(f"checkpoint {path} is damaged ({what})")
    return ONLY_DAMAGED if damaged or any(folder(workdir).glob("*" + DAMAGED + "*")) else NO_CHECKPOINT


def _walk_back(damaged: dict[Path, str], good: int, say: Callable[[str], None], owner: bool) -> None:
    for path, what in damaged.items():
        moved = f"moved to {set_aside(path).name}, " if owner else ""
        say(f"checkpoint {path} is damaged ({what}): {moved}going on from step {good}")


def set_aside(path: Path) -> Path:
    """Rename a checkpoint so that it is neither used nor in the way; returns where it is now."""
    names = (path.with_name(path.name + DAMAGED + (str(n) if n else "")) for n in itertools.count())
    return path.rename(next(name for name in names if not name.exists()))
