"""Load a model with its parameters and tokenizer: the one place that joins models, weights, text and checkpoints."""

import json
from pathlib import Path
from typing import Any

import jax

from jaxlm import config
from jaxlm.config import Compute
from jaxlm.errors import DataError
from jaxlm.models import family_named, make_model
from jaxlm.training import checkpoint, manifest
from jaxlm.training.resume import DIGESTS


def load(path: str | Path, task: str | None = None, dtype: str | None = None) -> tuple[Any, dict]:
    """A model and its parameters from a run directory: the best checkpoint, else the newest; the moving average if there is one.

    Args:
      task: None: the run's own.
      dtype: of activations; None: the run's.

    Raises:
      DataError: `path` is no run directory, or has no checkpoint yet.
    """
    run, folder = read_run(path)
    if task not in (None, run.task):
        raise DataError(f"{path} was trained for {run.task}, not for {task}")
    compute = Compute(dtype or run.compute.dtype, run.compute.layout, run.compute.remat, run.compute.attention)
    stored = checkpoint.leaves(folder)
    part = "ema" if any(name.startswith("ema/") for name in stored) else "params"
    target: dict[str, Any] = {}
    for name, leaf in stored.items():
        keys = name.split("/")
        if keys[0] == part:
            place = target
            for key in keys[:-1]:
                place = place.setdefault(key, {})
            place[keys[-1]] = leaf
    return make_model(run.model, compute), checkpoint.restore_part(folder, target, None)[part]


def read_run(path: str | Path) -> tuple[config.Run, Path]:
    """The configuration of a run directory, and the checkpoint to load from it."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise DataError(f"there is no directory {path}; train one: python -m jaxlm.train workdir={path}")
    folder = _checkpoint(path)
    if folder is None:
        raise DataError(f"{path} holds no checkpoint; train one: python -m jaxlm.train workdir={path}")
    values = json.loads(checkpoint.read_file(folder, "config.json"))
    values = {key: value for key, value in values.items() if key not in DIGESTS}
    return config.from_dict(values, family_named(values["model"]["model_type"]).Config), folder


def _checkpoint(path: Path) -> Path | None:
    """The best checkpoint if its digests match, else the newest good one."""
    best = manifest.best(path)
    if best is not None:
        folder = manifest.folder(path) / str(best[0])
        if not manifest.verify(folder):
            return folder
    return checkpoint.latest(path, lambda text: print(text), owner=False)


def on_one_device(params: Any) -> Any:
    """Parameters of a mesh as plain arrays of the first device."""
    return jax.tree.map(lambda leaf: jax.numpy.asarray(jax.device_get(leaf)), params)
