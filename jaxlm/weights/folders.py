"""Which reader a path of foreign weights wants, and what is refused at sight. Read next: `safetensors_files.py`."""

from pathlib import Path

from jaxlm.errors import DataError
from jaxlm.weights import flax_files, gguf_models, safetensors_files
from jaxlm.weights.strict_json import read_object
from jaxlm.weights.tensors import Checkpoint

PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5")
UNPICKLE = "reading it could run code; where you trust it, torch saves it anew: model.from_pretrained(DIR).save_pretrained(NEW)"


def kind_of(path: Path) -> str:
    """ "gguf", "flax" or "safetensors"; raises DataError for a path that holds none of them."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise DataError(f"{path} is no GGUF file: give it, or the folder of a model")
        return "gguf"
    if not path.is_dir():
        raise DataError(f"there is no {path}: give a run directory, a Hugging Face folder, an old Flax folder or a GGUF file")
    for kind, module in (("safetensors", safetensors_files), ("flax", flax_files)):
        if any((path / name).is_file() for name in (module.FILE, module.INDEX)):
            return kind
    found = [name for name in PICKLES if (path / name).exists()]
    if found:
        raise DataError(f"{path / found[0]} is not opened: {UNPICKLE}")
    raise DataError(f"{path} holds no weights: it needs {safetensors_files.FILE}, {flax_files.FILE}, or checkpoints of a run")


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at a path, its tensors under torch's names; nothing of them is read yet.

    Raises DataError for whatever is missing, damaged or not read here.
    """
    kind = kind_of(path)
    if kind == "gguf":
        return gguf_models.open_checkpoint(path)
    module = safetensors_files if kind == "safetensors" else flax_files
    return module.open_folder(path, read_object(path / "config.json"))
