"""Checkpoints: `checkpoints/<step>/` holds the state (Orbax), the run's files and, written last, their digests.

    save      Writer.save copies the state to the host; a thread writes it to `<step>.tmp`, adds files and digests, renames
    latest    the newest checkpoint whose digests match; a damaged one is moved to `<step>.damaged` and named
    restore   the state, onto any mesh; every leaf's shape and dtype must be the run's

On disk a state is flat: leaf names as in `opt/0/mu/params/wte`, so that no optimizer's classes are stored. This is the only
module that imports Orbax. Read next: `manifest.py` (digests, and which checkpoint is good), `lock.py` (one run a directory).
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxlm import atomic
from jaxlm.errors import CheckpointError
from jaxlm.training import manifest
from jaxlm.training.manifest import checkpoint_steps

STATE, PARTIAL = "state", ".tmp"


class Writer:
    """Writes checkpoints behind the training's back: at most one at a time, `keep` newest ones beside the best.

    Every process of a run calls the same methods with the same steps; process 0 adds files and digests and removes what is
    old. What fails in the background is raised, as CheckpointError, by the next `save`, `check` or `close`; the checkpoints
    that were finished before stay as they are.
    """

    def __init__(self, workdir: str | Path, keep: int, files: dict[str, Path | bytes]):
        """`files`: name below each checkpoint -> its content, or the file or folder to copy."""
        self._folder, self._keep, self._files = manifest.folder(workdir), max(1, keep), files
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future | None = None
        _orbax()  # its import takes 0.3 s: here, not in the first save
        if jax.process_index() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            for leftover in self._folder.glob("*" + PARTIAL):
                _remove(leftover)

    def save(self, step: int, state: Any, best: float | None = None, block: bool = False) -> None:
        """Write the state of `step`: a pytree of jax arrays, none of size 0; a step that is there already is left as it is.

        Returns once the state is safe to donate; waits for the save before it, and with `block` for this one.

        Args:
          best: the validation loss, where it makes this the best checkpoint so far.
        """
        self._wait()
        if not _agree(manifest.finished(self._folder / str(step))):
            response = self._start(step, state)
            self._writing = self._thread.submit(self._finish, step, response, best)
        elif best is not None:
            self._mark(step, best)
        if block:
            self._wait()

    def check(self) -> None:
        """Raise what went wrong in the background, if anything; costs nothing, for every step of a loop."""
        if self._writing and self._writing.done():
            self._wait()

    def close(self) -> None:
        """Wait until everything is written."""
        try:
            self._wait()
        finally:
            self._thread.shutdown()

    def _wait(self) -> None:
        if self._writing:
            wait([self._writing])  # a Ctrl-C here leaves it ours
            done, self._writing = self._writing, None
            done.result()

    def _start(self, step: int, state: Any) -> Any:
        partial = self._folder / f"{step}{PARTIAL}"
        try:
            if jax.process_index() == 0:
                _remove(partial)
                partial.mkdir()
            context = _orbax().Context()
            context.array.saving.use_compression = False  # weights shrink by 8 % only, in twice the time
            context.asynchronous.create_directories_asynchronously = False  # else a failed save leaves a thread waiting 20 minutes
            with context:
                return _orbax().save_async(partial.absolute() / STATE, _flatten(state))
        except Exception as error:
            raise self._failure(step, error) from error

    def _finish(self, step: int, response: Any, best: float | None) -> None:
        try:
            response.result()  # on process 0: every process has committed its part (Orbax's barrier before it finalizes)
            if jax.process_index() == 0:
                self._publish(step)
                if best is not None:
                    self._mark(step, best)
                self._prune()
        except Exception as error:
            raise self._failure(step, error) from error

    def _publish(self, step: int) -> None:
        partial, final = self._folder / f"{step}{PARTIAL}", self._folder / str(step)
        for name, source in self._files.items():
            _copy(source, partial / name)
        manifest.write_digest(partial, step)
        if final.exists():  # without digests: nobody uses it
            manifest.set_aside(final)
        os.rename(partial, final)
        atomic.sync_directory(self._folder)

    def _mark(self, step: int, loss: float) -> None:
        if jax.process_index() == 0:
            manifest.write_atomically(self._folder / manifest.BEST, json.dumps({"step": step, "loss": float(loss)}).encode())

    def _prune(self) -> None:
        marked = manifest.best(self._folder.parent)
        for step in checkpoint_steps(self._folder.parent)[: -self._keep]:
            if marked is None or step != marked[0]:
                leaving = self._folder / f"{step}{PARTIAL}"  # a kill between rename and removal leaves no half checkpoint
                os.rename(self._folder / str(step), leaving)
                _remove(leaving)

    def _failure(self, step: int, error: Exception) -> CheckpointError:
        if jax.process_index() == 0:  # what a thread of Orbax may still add to it goes at the next start
            shutil.rmtree(self._folder / f"{step}{PARTIAL}", ignore_errors=True)
        steps = checkpoint_steps(self._folder.parent)
        mend = f"{_reason(error)} and run the same command again: it {f'goes on from step {steps[-1]}' if steps else 'starts again'}"
        return CheckpointError(f"checkpoint {step} cannot be written to {self._folder}: {mend}")


def latest(workdir: str | Path, say: Callable[[str], None], owner: bool = True) -> Path | None:
    """The newest checkpoint whose digests match; None where there is no checkpoint yet.

    Unfinished and damaged ones are named through `say`. The `owner` of the run directory also moves damaged ones to
    `<step>.damaged`; a reader (`owner=False`) moves nothing. Process 0 decides for all processes. Raises CheckpointError
    where only damaged ones are left.
    """
    step = _agree(manifest.newest_good(workdir, say, owner) if jax.process_index() == 0 else 0)
    if step == manifest.ONLY_DAMAGED:
        where = manifest.folder(workdir)
        raise CheckpointError(f"{where} holds only damaged checkpoints: put a good one back, or start from step 0 in another workdir=...")
    return None if step == manifest.NO_CHECKPOINT else manifest.folder(workdir) / str(step)


def leaves(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Name -> shape and dtype of every leaf a checkpoint holds, as in `params/wte`; reads no array."""
    try:
        stored = _orbax().metadata(path.absolute() / STATE).metadata
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({_one_line(error)}): choose another one") from error
    return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in stored.items()}


def restore(path: Path, target: Any, mesh: jax.sharding.Mesh | None) -> Any:
    """The whole state of a checkpoint, as a tree like `target`, bit by bit.

    Args:
      target: the abstract state, from `jax.eval_shape`; its leaves may carry shardings, on an abstract mesh too.
      mesh: where the arrays shall lie, whatever mesh they were saved on; None: on the first device.

    Raises CheckpointError where a leaf is missing, left over, or has another shape or dtype, with its name.
    """
    wanted, stored = _flatten(target), leaves(path)
    left_over = [name for name in stored if name not in wanted]
    if left_over:
        raise _mismatch(path, f"it holds {left_over[0]}, which this run has not")
    return _load(path, target, stored, mesh)


def restore_part(path: Path, target: dict[str, Any], mesh: jax.sharding.Mesh | None) -> dict[str, Any]:
    """Only the parts of the state that `target` names, as in `{"params": abstract}` or `{"ema": abstract}`; else as `restore`."""
    return _load(path, target, leaves(path), mesh)


def _load(path: Path, target: Any, stored: dict[str, jax.ShapeDtypeStruct], mesh: jax.sharding.Mesh | None) -> Any:
    wanted = _flatten(target)
    for name, leaf in wanted.items():
        _check_leaf(path, name, leaf, stored.get(name))  # Orbax casts dtypes silently
    ocp = _orbax()
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    try:
        with context:
            arrays = ocp.load(path.absolute() / STATE, {name: _placed(leaf, mesh) for name, leaf in wanted.items()})
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({_one_line(error)}): choose another one") from error
    return jax.tree.unflatten(jax.tree.structure(target), [arrays[name] for name in wanted])


def _check_leaf(path: Path, name: str, wanted: Any, stored: jax.ShapeDtypeStruct | None) -> None:
    if stored is None:
        raise _mismatch(path, f"it has no {name}")
    if (stored.shape, stored.dtype) != (wanted.shape, wanted.dtype):
        held, asked = (f"{leaf.dtype}{list(leaf.shape)}" for leaf in (stored, wanted))
        raise _mismatch(path, f"it holds {name} as {held} and this run has {asked}")


def _mismatch(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {path} is not this run's: {what}; use the config it was saved with, or another workdir=...")


def _placed(leaf: Any, mesh: jax.sharding.Mesh | None) -> jax.ShapeDtypeStruct:
    if mesh is None:
        sharding = SingleDeviceSharding(jax.local_devices()[0])
    else:
        sharding = NamedSharding(mesh, getattr(leaf.sharding, "spec", PartitionSpec()))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def read_file(path: Path, name: str) -> bytes:
    """One of the files that were saved beside the state."""
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} has no readable {name} ({error.strerror}): choose another one") from error


def _flatten(tree: Any) -> dict[str, Any]:
    pairs = jax.tree.leaves_with_path(tree)
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
    if len(flat) < len(pairs):
        raise ValueError("two leaves of the state have the same name: a key contains a slash")
    return flat


def _agree(value: int) -> int:
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _copy(source: Path | bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        target.write_bytes(source)
    elif source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    text = _one_line(error)
    if getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in text:
        return "the disk is full; free some space"
    if isinstance(error, PermissionError) or os.strerror(errno.EACCES) in text:
        return "permission denied; make it writable"
    return f"{text}; mend that"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")


def _orbax() -> Any:
    from orbax.checkpoint import v1 as ocp

    logging.getLogger("absl").addFilter(_worth_saying)  # a filter that is there already is not added twice
    return ocp


def _worth_saying(record: logging.LogRecord) -> bool:
    # Orbax logs every step of its way, and what it raises as a traceback as well: the raised error is enough
    return "orbax" not in record.pathname or (record.levelno >= logging.WARNING and not record.exc_info)
