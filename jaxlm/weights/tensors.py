"""What every reader of foreign weights gives: names, shapes and types first, then one tensor at a time.

Read next: `safetensors_files.py`, `flax_files.py`, `gguf.py`; `mapping.py` makes parameters of them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Spec:
    """Shape and type of a stored tensor; nothing of its data has been read."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A foreign checkpoint: its config.json, and its tensors under the names that torch's models give them."""

    config: dict[str, Any]
    specs: Mapping[str, Spec]
    read: Callable[[str], np.ndarray]  # name -> tensor; reads the file at this moment
    where: str  # for messages
