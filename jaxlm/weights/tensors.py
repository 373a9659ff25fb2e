"""What every reader of foreign weights gives: names, shapes and types first, then one tensor at a time.

Read next: `safetensors_files.py`, `flax_files.py`, `gguf.py`; `mapping.py` makes parameters of them.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxlm.errors import DataError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclasses.dataclass(frozen=True)
class Spec:
    """Shape and type of a stored tensor; nothing of its data has been read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A foreign checkpoint: its config.json, and its tensors under the names that torch's models give them."""

    config: dict[str, Any]
    specs: Mapping[str, Spec]
    read: Callable[[str], np.ndarray]  # name -> tensor; reads the file at this moment, from several threads at once
    where: str  # for messages


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """A tensor to be written; its value is made when it is asked for, so that a model is never on the host twice."""

    name: str
    nbytes: int
    make: Callable[[], np.ndarray]


def map_file(path: Path) -> np.ndarray:
    """The bytes of a file, uint8 [size], read-only; they are read where and when they are used."""
    try:
        return np.memmap(path, np.uint8, "r").view(np.ndarray)
    except (OSError, ValueError) as error:  # a ValueError: the file is empty
        raise DataError(f"{path} cannot be read ({error}): get the file again") from error


def view(data: np.ndarray, start: int, spec: Spec) -> np.ndarray:
    """A tensor in place: `spec.nbytes` bytes of `data` from `start` on, which the caller has checked to be there.

    A copy where the file did not align it to its type.
    """
    tensor = data[start : start + spec.nbytes].view(spec.dtype).reshape(spec.shape)
    return tensor if tensor.flags.aligned else tensor.copy()


def natural(value: Any, limit: int = 2**48) -> bool:
    """Whether it is an integer from 0 to `limit`: what sizes and offsets are."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit
