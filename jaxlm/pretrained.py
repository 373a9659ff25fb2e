"""Load and save a model with its parameters: the one place that joins models, weights, text and checkpoints.

A path is a run directory, a Hugging Face folder, an old Flax folder or a GGUF file; what is none of them is looked up on
the hub. Read next: `weights/mapping.py`.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm import config
from jaxlm.config import Compute
from jaxlm.errors import DataError
from jaxlm.layers.block import unstack
from jaxlm.models import configuration, family, family_named, init_params, make_model
from jaxlm.models.names import Names, entries
from jaxlm.training import checkpoint, manifest
from jaxlm.training.resume import DIGESTS
from jaxlm.weights import mapping, safetensors_files
from jaxlm.weights.tensors import Checkpoint


def load(path: str | Path, task: str | None = None, dtype: str | None = None) -> tuple[Any, dict]:
    """A model and its parameters.

    Args:
      path: a run directory (its best checkpoint, else the newest; the moving average if there is one) or a Hugging Face folder.
      task: decides the head; None: the run's own, or what the checkpoint's `architectures` say.
      dtype: of parameters and activations; None: as stored.

    Raises:
      DataError: there is nothing to load, or it does not fit the task or the configuration.
    """
    path = Path(path).expanduser()
    if (path / "checkpoints").is_dir() or not path.is_dir():
        return load_run(path, task, dtype)
    values = json.loads((path / "config.json").read_text())
    return from_checkpoint(safetensors_files.open_folder(path, values), task, dtype)[:2]


def from_checkpoint(source: Checkpoint, task: str | None, dtype: str | None) -> tuple[Any, dict, mapping.Match]:
    """A model, its parameters, and which tensor went where."""
    known = family_named(source.config.get("model_type"))
    task = task or _task(source, known.NAMES)
    stored = dtype or _stored_dtype(source)
    model = make_model(configuration.from_json(known.Config, source.config), Compute(dtype=stored), task)
    abstract = paths(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))
    shapes = {name: leaf.shape for name, leaf in abstract.items()}
    found = entries((*known.NAMES.body, *known.NAMES.heads), shapes)
    matched = mapping.match(source, known.NAMES, found, shapes, optional=task == "features")
    return model, mapping.read(source, matched, abstract, dtype and jnp.dtype(dtype)), matched


def _task(source: Checkpoint, names: Names) -> str:
    wanted = source.config.get("architectures") or []
    for task, architecture in names.architectures.items():
        if architecture in wanted:
            return task
    said = f"names {wanted[0]}" if wanted else "names no architecture"
    raise DataError(f"{source.where}: its config.json {said}: give task=, one of {', '.join(names.architectures)}")


def _stored_dtype(source: Checkpoint) -> str:
    """The type that most of the stored values have."""
    sizes: dict[str, int] = {}
    for spec in source.specs.values():
        sizes[str(spec.dtype)] = sizes.get(str(spec.dtype), 0) + math.prod(spec.shape)
    floats = {name: size for name, size in sizes.items() if "float" in name}
    return max(floats, key=floats.get, default="float32")


def paths(tree: Any) -> dict[str, Any]:
    """A tree of parameters as {path: leaf}."""
    return {"/".join(entry.key for entry in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def save(path: str | Path, model: Any, params: Any, tokenizer: Any = None) -> None:
    """Write a Hugging Face folder that torch's `AutoModel*.from_pretrained` opens: config.json, model.safetensors, tokenizer files.

    Every parameter keeps its type.
    """
    names = family(model.config).NAMES
    flat = paths(unstack(params))
    found = entries((*names.body, *names.heads), {name: leaf.shape for name, leaf in flat.items()})
    body = {row.theirs for row in names.body}
    prefix = f"{names.base}." if names.base and model.task != "features" else ""
    tensors: dict[str, Any] = {}
    for entry in found:
        front = prefix if entry.row.theirs in body else ""
        tensors |= mapping.export([entry], flat, lambda name, front=front: front + name)
    values = configuration.to_json(model.config, names.architectures[model.task])
    safetensors_files.write_folder(Path(path).expanduser(), values, tensors)
    if tokenizer is not None:
        tokenizer.save(path)


def load_run(path: str | Path, task: str | None = None, dtype: str | None = None) -> tuple[Any, dict]:
    """A model and its parameters from a run directory."""
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
    return make_model(run.model, compute, run.task), checkpoint.restore_part(folder, target, None)[part]


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
