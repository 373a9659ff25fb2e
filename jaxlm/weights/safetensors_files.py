"""Folders of safetensors: one file, or several and an index; read and written by the format's own library."""

import json
from pathlib import Path

import numpy as np

from jaxlm.weights.tensors import Checkpoint, Spec

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


def open_folder(folder: Path, config: dict) -> Checkpoint:
    """The checkpoint of a folder with `model.safetensors`."""
    from safetensors import safe_open

    file = safe_open(folder / FILE, framework="np")
    specs = {}
    for name in file.keys():
        part = file.get_slice(name)
        specs[name] = Spec(tuple(part.get_shape()), np.dtype("float32"))
    return Checkpoint(config, specs, file.get_tensor, str(folder / FILE))


def write_folder(folder: Path, config: dict, tensors: dict[str, np.ndarray]) -> None:
    """config.json and model.safetensors."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
