"""Is this machine ready? `python -m jaxlm.doctor`: versions, devices, memory, known-bad pairs, a matrix product.

Exit code 0: ready; 78: something is wrong, and every line that begins with WRONG says how to mend it.
"""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys

from jaxlm.command import run_command
from jaxlm.errors import ConfigError

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


def main(arguments: list[str]) -> None:
    """Print what is found; fail if anything is wrong."""
    if arguments:
        raise ConfigError(f"{arguments[0]!r}: the doctor takes no arguments")
    print(f"python {platform.python_version()} on {platform.platform()}")
    wrong = [*check_versions(), *check_devices(), *check_known_pairs(), *check_product()]
    for line in wrong:
        print(f"WRONG {line}")
    if wrong:
        raise ConfigError(f"{len(wrong)} thing{'s' if len(wrong) > 1 else ''} to mend, see above")
    print("ready")


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
            print(f"without {name}: no {use}")
    return [f"{name} is not installed: pip install {name}" for name in CORE if found[name] is None]


def check_devices() -> list[str]:
    """The devices that JAX uses, and an accelerator that it does not."""
    import jax

    from jaxlm.planning.memory import device_limit, human

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
        from pathlib import Path

        if any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists():
            return 'a TPU is there and JAX does not use it: pip install "jaxlm[tpu]", unset JAX_PLATFORMS, and end other processes that hold it'
    return None


def check_known_pairs() -> list[str]:
    """Pairs of versions that are known not to work together."""
    wrong = []
    jax, jaxlib = version("jax"), version("jaxlib")
    if jax and jaxlib and jax.split(".")[:2] != jaxlib.split(".")[:2]:
        wrong.append(f"jax {jax} and jaxlib {jaxlib} do not belong together: pip install -U jax jaxlib")
    if version("tensorflow-datasets") and not importlib.util.find_spec("importlib_resources"):
        wrong.append("tensorflow-datasets needs importlib_resources and forgets to say so: pip install importlib_resources")
    if version("tensorflow") and version("tensorflow-cpu"):
        wrong.append("tensorflow and tensorflow-cpu overwrite each other: pip uninstall one of them and reinstall the other")
    if jaxlib and tuple(map(int, jaxlib.split(".")[:2])) >= (0, 11):
        print("jaxlib 0.11 copies whole caches inside loops on CPU (jax#40101): generation goes step by step from the host, which it does not touch")
    return wrong


def check_product() -> list[str]:
    """A matrix product on the first device: right, and how fast."""
    import jax
    import jax.numpy as jnp

    from jaxlm.planning.flops import measured_peak

    x = jnp.arange(64.0).reshape(8, 8)
    if not jax.device_get(jnp.allclose(jnp.einsum("ij,jk->ik", x, jnp.eye(8)), x)):
        return [f"a matrix product on {jax.devices()[0]} is wrong: reinstall jaxlib, look at the driver"]
    print(f"matrix product in float32: {measured_peak('float32') / 1e9:,.0f} GFLOP/s")
    return []


if __name__ == "__main__":
    sys.exit(run_command(main, __doc__))
