"""Run directories as models: which checkpoint counts, and its parameters, whole. Read next: `pretrained.py`, which loads them."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxlm import config, sharding
from jaxlm.errors import DataError
from jaxlm.models import family_named, init_params, make_model
from jaxlm.models.electra_pair import ElectraPair, discriminator
from jaxlm.tasks import head_of
from jaxlm.training import checkpoint, manifest
from jaxlm.training.resume import DIGESTS
from jaxlm.training.tuning import assemble, nested, paths


def is_run(path: Path) -> bool:
    """Whether a path that exists is a run directory, even one without a checkpoint yet."""
    return path.is_dir() and ((path / "checkpoints").is_dir() or not any(path.iterdir()))


def load_run(path: str | Path, task: str | None = None, dtype: str | None = None) -> tuple[Any, dict]:
    """A model and its parameters from a run directory: frozen ones and low-rank updates are put together.

    A run of replaced tokens gives ELECTRA's pair, which is the discriminator when it is applied; with its task, "pretraining",
    the discriminator alone.
    """
    run, folder = read_run(path)
    model = make_model(run.model, dataclasses.replace(run.compute, dtype=dtype or run.compute.dtype), head_of(run.task), run.masking)
    mesh = None if jax.sharding.get_abstract_mesh().empty else jax.sharding.get_mesh()
    params = trained_params(folder, paths(abstract_params(model)) if mesh else {}, mesh)
    if task not in (None, run.task, model.task):
        model, params = kept(model, params)
    if task not in (None, run.task, model.task):
        raise DataError(f"{path} was trained for {run.task}, not for {task}")
    return model, params if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def kept(model: Any, params: dict) -> tuple[Any, dict]:
    """What is used of a model after its training: of ELECTRA's pair the discriminator."""
    return (model.discriminator, discriminator(params)) if isinstance(model, ElectraPair) else (model, params)


def trained_params(folder: Path, placed: Mapping[str, Any], mesh: jax.sharding.Mesh | None) -> dict:
    """The parameters of a checkpoint: the moving average where there is one, frozen parts and low-rank updates put together.

    Args:
      placed: path -> what has the sharding of a leaf on `mesh`; one that is not there lies whole on each device.
    """
    stored = checkpoint.leaves(folder)
    trained = "ema" if any(name.startswith("ema/") for name in stored) else "params"
    target = {}
    for name, leaf in stored.items():
        top, _, path = name.partition("/")
        if top in (trained, "frozen"):
            layout = placed[path].sharding if path in placed else None
            target[name] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout)
    state = checkpoint.restore_part(folder, nested(target), mesh)
    return assemble(state[trained], state.get("frozen"))


def abstract_params(model: Any) -> dict:
    """The parameters' shapes and shardings on the current mesh."""
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0), init_rows()))


def init_rows() -> int:
    """Rows that a batch needs at least on the current mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in sharding.AXES["batch"])


def stored_shapes(run: config.Run, folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the model that is kept of a checkpoint, by path; reads no array."""
    found, part = {}, "discriminator/" if run.task == "replaced-tokens" else ""
    for name, leaf in checkpoint.leaves(folder).items():
        top, _, path = name.partition("/")
        if top in ("params", "frozen") and path.startswith(part) and not path.startswith("lora/"):
            found[path.removeprefix(part)] = leaf.shape
    return found


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
