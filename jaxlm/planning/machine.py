"""What this machine has, and what is wrong with it: each check prints what it finds and returns the mends it asks for."""

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxlm.planning.flops import measured_peak
from jaxlm.planning.memory import device_limit, human

CORE = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyarrow")
OPTIONAL = {
    "tensorflow-datasets": "data.source=tfds:NAME",
    "tensorflow-cpu": "data.loader=tf (else data.loader=threads)",
    "tokenizers": "subword tokenizers",
    "sentencepiece": "SentencePiece tokenizers",
    "safetensors": "Hugging Face weights",
    "tensorboardX": "TensorBoard files",
    "rich": "the progress bar",
}


def version(name: str) -> str | None:
    """The installed version of a distribution; None if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_versions() -> list[str]:
    """The packages and what is missing of them."""
    found = {name: version(name) for name in (*CORE, *OPTIONAL)}
    if found["tensorflow-cpu"] is None:
        found["tensorflow-cpu"] = version("tensorflow")
    print("  ".join(f"{name} {number}" for name, number in found.items() if number))
    for name, use in OPTIONAL.items():
        if found[name] is None:
            print(f"{name} is not installed; it serves {use}")
    return [f"{name} is not installed: pip install {name}" for name in CORE if found[name] is None]


def check_devices() -> list[str]:
    """The devices that JAX uses, and an accelerator that it does not."""
    limit = device_limit()
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})" + (f", {human(limit)} each" if limit else ""))
    free = shutil.disk_usage(".").free
    print(f"{human(free)} free on this disk")
    idle = unused_accelerator(jax.default_backend())
    return [idle] if idle else []


def unused_accelerator(backend: str) -> str | None:
    """What to do about a GPU or TPU that is there and not used."""
    if backend != "cpu":
        return None
    if shutil.which("nvidia-smi"):
        return 'an NVIDIA GPU is there and JAX does not use it: pip install "jaxlm[cuda]", and unset JAX_PLATFORMS'
    if importlib.util.find_spec("libtpu"):
        if any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists():
            return 'a TPU is there and JAX does not use it: pip install "jaxlm[tpu]", unset JAX_PLATFORMS, end other processes that hold it'
    return None


def check_known_pairs() -> list[str]:
    """Pairs of versions that are known not to work together."""
    wrong = []
    python_part, jaxlib = version("jax"), version("jaxlib")
    if python_part and jaxlib and python_part.split(".")[:2] != jaxlib.split(".")[:2]:
        wrong.append(f"jax {python_part} and jaxlib {jaxlib} do not belong together: pip install -U jax jaxlib")
    if version("tensorflow-datasets") and not importlib.util.find_spec("importlib_resources"):
        wrong.append("tensorflow-datasets needs importlib_resources and forgets to say so: pip install importlib_resources")
    if version("tensorflow") and version("tensorflow-cpu"):
        wrong.append("tensorflow and tensorflow-cpu overwrite each other: pip uninstall one of them and reinstall the other")
    if jaxlib and tuple(map(int, jaxlib.split(".")[:2])) >= (0, 11):
        print("jaxlib 0.11 copies caches inside loops on CPU (jax#40101): generation goes step by step from the host instead")
    return wrong


def check_product() -> list[str]:
    """A matrix product on the first device: right, and how fast."""
    x = jnp.arange(64.0).reshape(8, 8)
    if not jax.device_get(jnp.allclose(jnp.einsum("ij,jk->ik", x, jnp.eye(8)), x)):
        return [f"a matrix product on {jax.devices()[0]} is wrong: reinstall jaxlib, look at the driver"]
    print(f"matrix product in float32: {measured_peak('float32') / 1e9:,.0f} GFLOP/s")
    return []
