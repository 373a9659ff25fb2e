"""The device mesh and the one table that says which mesh axis holds which axis of an array.

The mesh shape is the strategy: data parallel, fully sharded and tensor parallel are the same code with other sizes, and
size 1 costs nothing. Axes are Explicit: an array's type carries its sharding, and a contradiction is an error at trace
time. Without a mesh `spec()` is None everywhere. This module is a leaf. Read next: `ops/attention.py`.
"""

import contextlib
import dataclasses
import os

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxlm.errors import ConfigError

# The name of an array's axis -> the mesh axes that divide it. Names that are not listed are never divided.
AXES: dict[str, str | tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "experts": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}
GATHERED = {"embed"}  # divided where a weight is kept, whole where it is used (FSDP)


def spec(*names: str | None) -> PartitionSpec | None:
    """How an array with these axis names lies on the current mesh; None without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return None
    return PartitionSpec(*(AXES.get(name) if name else None for name in names))


def gather(weight: jax.Array, *names: str | None) -> jax.Array:
    """A weight ready for use: whole along its `embed` axis. Its gradient is scattered back the same way."""
    if jax.sharding.get_abstract_mesh().empty:
        return weight
    return jax.reshard(weight, spec(*(None if name in GATHERED else name for name in names)))


def replicate(array: jax.Array) -> jax.Array:
    """The array, whole on every device of the current mesh."""
    return array if jax.sharding.get_abstract_mesh().empty else jax.reshard(array, PartitionSpec())


def make_mesh(sizes, devices: list | None = None) -> jax.sharding.Mesh | None:
    """The mesh of these sizes (a dataclass of axis names); None for one device: then nothing is sharded at all.

    Raises ConfigError where the sizes do not fit the devices.
    """
    devices = devices or jax.devices()
    shape = dataclasses.asdict(sizes)
    free = [name for name, size in shape.items() if size == -1]
    known = int(np.prod([size for size in shape.values() if size != -1]))
    if len(free) > 1 or any(size < 1 and size != -1 for size in shape.values()):
        raise ConfigError(f"mesh {shape}: sizes are at least 1, and at most one is -1 (what is left)")
    if free:
        shape[free[0]] = max(1, len(devices) // known)
    total = int(np.prod(list(shape.values())))
    if total != len(devices):
        named = ", ".join(f"mesh.{name}={size}" for name, size in shape.items())
        raise ConfigError(f"{named} make {total} devices and there are {len(devices)}: {_mend_mesh(shape, len(devices))}")
    if total == 1:
        return None
    return jax.make_mesh(tuple(shape.values()), tuple(shape), devices=devices)


def _mend_mesh(shape: dict[str, int], devices: int) -> str:
    rest = int(np.prod([size for name, size in shape.items() if name != "data"]))
    if devices % rest == 0:
        return f"set mesh.data={devices // rest} (or -1)"
    return f"choose sizes whose product is {devices}, such as mesh.data={devices} with the others 1"


def use(mesh: jax.sharding.Mesh | None) -> contextlib.AbstractContextManager:
    """Make a mesh the current one; None is no mesh."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def check_sizes(sizes: dict[str, int], mesh: jax.sharding.Mesh | None, settings: dict[str, str]) -> None:
    """Refuse, before anything is traced, an axis that its mesh axes do not divide.

    Args:
      sizes: axis name -> its size in this run.
      settings: axis name -> the configuration key that sets the size, for the message.
    """
    if mesh is None:
        return
    for name, size in sizes.items():
        divisor = mesh_size(mesh, name)
        if size % divisor:
            axes = AXES[name] if isinstance(AXES[name], tuple) else (AXES[name],)
            named = " x ".join(f"mesh.{axis}={mesh.shape[axis]}" for axis in axes)
            near = _nearest_multiple(size, divisor, below=name != "vocab")  # every token needs its row
            raise ConfigError(
                f"axis {name}: {settings.get(name, name)}={size} is not divisible by {named}; the nearest size that works is {near}"
            )


def mesh_size(mesh: jax.sharding.Mesh | None, name: str) -> int:
    """Into how many parts the mesh divides the axis of this name."""
    if mesh is None:
        return 1
    axes = AXES[name] if isinstance(AXES[name], tuple) else (AXES[name],)
    return int(np.prod([mesh.shape[axis] for axis in axes]))


def _nearest_multiple(size: int, divisor: int, below: bool) -> int:
    under = size // divisor * divisor
    return under if below and under and size - under <= under + divisor - size else under + divisor


def batch_sharding(mesh: jax.sharding.Mesh | None, leading: int = 0) -> NamedSharding | None:
    """Where a batch lies: divided along its axis `leading`; None without a mesh."""
    if mesh is None:
        return None
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, AXES["batch"]))


def host_rows(sharding: NamedSharding | None, rows: int) -> tuple[int, int]:
    """The range [start, stop) of a batch's rows that this host's devices hold."""
    if sharding is None:
        return 0, rows
    flat = NamedSharding(sharding.mesh, PartitionSpec(AXES["batch"]))
    slices = [index[0].indices(rows) for index in flat.addressable_devices_indices_map((rows,)).values()]
    return min(s[0] for s in slices), max(s[1] for s in slices)


def join_hosts() -> None:
    """Join the other processes of this run, where the environment says that there are some.

    `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` name them by hand; Cloud TPU slices and Slurm
    steps of several tasks are found by JAX itself.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        try:
            count, rank = int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
        except (KeyError, ValueError) as error:
            mend = "set the numbers JAX_NUM_PROCESSES and JAX_PROCESS_ID too, or unset it"
            raise ConfigError(f"JAX_COORDINATOR_ADDRESS is set: {mend}") from error
        loopback = address if address.startswith("127.") else None  # without it a local test listens on every interface
        jax.distributed.initialize(address, count, rank, coordinator_bind_address=loopback)
    elif "," in os.environ.get("TPU_WORKER_HOSTNAMES", "") or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        jax.distributed.initialize()
