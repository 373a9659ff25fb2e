"""A model's folder from the Hugging Face hub, where a name is no local path. Nothing here runs or unpickles what it fetches."""

import os
import re
from pathlib import Path

from jaxlm.errors import DataError

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
NAME = re.compile(r"[\w-][\w.-]{0,95}(/[\w-][\w.-]{0,95})?", re.ASCII)  # owner/name, or name alone
ABOUT = ["*.json", "*.txt", "*.model", "*.spm", "*.jinja"]
# In the order of preference.
WEIGHTS = ["model*.safetensors", "flax_model*.msgpack"]


def find(path: str | Path) -> Path:
    """The local path that is meant: itself if it exists, else the folder of the hub's model of that name, fetched if need be.

    Raises DataError where there is neither; offline (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE) only what was fetched before is found.
    """
    local = Path(path).expanduser()
    if local.exists():
        return local
    if not NAME.fullmatch(str(path)) or local.suffix == ".gguf":
        raise DataError(f"there is no {local}: give a run directory, a Hugging Face folder, an old Flax folder or a GGUF file")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise DataError(f"there is no {local} here; to look it up on the hub: pip install 'jaxlm[hub]'") from error
    offline = any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE)
    fetch = lambda *patterns: Path(snapshot_download(str(path), allow_patterns=[*ABOUT, *patterns], local_files_only=offline))
    try:
        for pattern in WEIGHTS:
            folder = fetch(pattern)
            if any(folder.glob(pattern)):
                break
        return folder
    except Exception as error:  # of the hub's many kinds, and of the network's
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        mend = "unset " + " and ".join(OFFLINE) if offline else "check the name and the network"
        raise DataError(f"there is no {local} here, and the hub does not give it ({reason}): {mend}") from error
