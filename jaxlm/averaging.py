"""Checkpoint averaging: the mean of a run's last checkpoints as one model (Vaswani et al. 2017, section 6.1).

Read first: `runs.py`, `training/checkpoint.py`. Read next: `convert.py`, whose option it is.
"""

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.errors import CheckpointError, ConfigError, DataError
from jaxlm.pretrained import Conversion, convert
from jaxlm.runs import is_run, trained_params
from jaxlm.training import checkpoint, manifest

CONFIG = "config.json"


def convert_mean(source: str | Path, target: str | Path, count: int) -> tuple[Conversion, list[int]]:
    """The mean of a run's `count` newest checkpoints as a Hugging Face folder, as `pretrained.convert` makes one; and their steps.

    Raises as `write_mean`, and DataError where the target is there and not empty.
    """
    target = Path(target).expanduser().absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # on the target's disk: there is room for it
        steps = write_mean(source, Path(folder) / "mean", count)
        return convert(Path(folder) / "mean", target), steps


def write_mean(source: str | Path, target: str | Path, count: int) -> list[int]:
    """Write a run directory that stands at the newest step of a run and holds the mean of its `count` newest checkpoints.

    It is evaluated, generated from and converted as any run; training does not go on from it, for it has no optimizer.

    Returns the steps of those checkpoints. Raises:
      ConfigError: the source is no run, or keeps fewer checkpoints.
      CheckpointError: one of them is damaged.
      DataError: the target is there and not empty.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    folders = _newest(source, count)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} is not empty: name a new folder")
    params = mean_parameters(folders)
    beside = {path.name: path for path in folders[-1].iterdir() if path.name not in (checkpoint.STATE, manifest.NAME)}
    values = json.loads(checkpoint.read_file(folders[-1], CONFIG)) | {"workdir": str(target)}
    files = {**beside, CONFIG: json.dumps(values, indent=1).encode()}
    step = int(folders[-1].name)
    with contextlib.closing(checkpoint.Writer(target, 1, files)) as writer:
        writer.save(step, {"params": jax.device_put(params)}, block=True)
    shutil.copytree(manifest.folder(target) / str(step), target, dirs_exist_ok=True, ignore=_state)
    return [int(folder.name) for folder in folders]


def _state(folder: str, names: list[str]) -> list[str]:
    """What of a checkpoint is not repeated in the run directory."""
    return [name for name in names if name in (checkpoint.STATE, manifest.NAME)]


def _newest(source: Path, count: int) -> list[Path]:
    """The newest checkpoints of a run, the oldest first."""
    if not is_run(source):
        raise ConfigError(f"--average {count} takes the checkpoints of a run, and {source} is none: leave it out")
    if count < 1:
        raise ConfigError(f"--average {count}: a mean is of at least 1 checkpoint")
    steps = manifest.checkpoint_steps(source)
    if len(steps) < count:
        raise ConfigError(
            f"--average {count}: {source} keeps {len(steps)} checkpoints; ask for fewer, or train with checkpoint.keep={count}"
        )
    folders = [manifest.folder(source) / str(step) for step in steps[-count:]]
    for folder in folders:
        if problems := manifest.verify(folder):
            raise CheckpointError(f"checkpoint {folder} is damaged ({problems[0]}): move it away, and the ones before it count")
    return folders


def mean_parameters(folders: list[Path]) -> dict[str, Any]:
    """The mean of the models of some checkpoints, float32 on the host.

    A model is what `pretrained.load` makes of a checkpoint: the moving average where there is one, frozen parts and low-rank updates
    put together. So with LoRA the mean is of matrices, not of their factors.
    """
    params = lambda folder: jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), trained_params(folder, {}, None))
    total = params(folders[0])
    for folder in folders[1:]:
        total = jax.tree.map(np.add, total, params(folder))
    return jax.tree.map(lambda leaf: leaf / np.float32(len(folders)), total)
