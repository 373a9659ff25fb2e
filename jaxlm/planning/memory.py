"""What a training step keeps in memory, from shapes alone: the one estimator, used by the banner and by `jaxlm.plan`.

Parameters, gradients and optimizer state are exact. Activations are what the forward pass hands to the backward pass:
the residuals of the traced loss, so every family and every remat policy is counted as it is. Read next: `flops.py`.
"""

import collections
import dataclasses
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxlm.training.tuning import assemble, paths, updated


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    recomputed: int = 0  # with rematerialization: what the backward pass of one layer makes again

    @property
    def total(self) -> int:
        """All together: the peak comes at the loss, in a layer's backward pass or in the update, whichever holds most."""
        kept = self.parameters + self.optimizer
        return kept + max(self.activations + max(self.logits, self.recomputed), self.gradients + self.activations // 2, self.gradients)


def estimate(loss: Any, state: dict[str, Any], batch: dict[str, jax.ShapeDtypeStruct], logits: tuple[int, int]) -> Memory:
    """The memory of one step.

    Args:
      loss: (the whole model's params, batch, key) -> (sum, weight).
      state: abstract training state; its leaves carry their sharding where there is a mesh. Frozen parameters have neither
        gradient nor optimizer state.
      batch: abstract micro-batch, as it lies on the mesh.
      logits: rows of logits that exist at once, and the vocabulary: the loss keeps them and their gradient in float32.
    """
    size = lambda tree: sum(map(device_bytes, jax.tree.leaves(tree)))
    trained, frozen = size(state["params"]), size(state.get("frozen"))
    kept = size({name: part for name, part in state.items() if name not in ("params", "frozen")})
    rows, vocabulary = logits
    return Memory(trained + frozen, trained, kept, residual_bytes(loss, state, batch), 2 * 4 * rows * vocabulary)


def residual_bytes(loss: Any, state: dict[str, Any], batch: Any) -> int:
    """Bytes that the forward pass keeps for the backward pass, beside the parameters and the batch.

    With low-rank updates these are the updated matrices too, of which there is a second copy during a step.
    """
    key, params, frozen = jax.eval_shape(lambda: jax.random.key(0)), state["params"], state.get("frozen")
    backward = lambda p, f, b, k: jax.vjp(lambda p: loss(assemble(p, f), b, k)[0], p)[1]
    kept = jax.tree.leaves(jax.eval_shape(backward, params, frozen, batch, key))
    there = [leaf for path, leaf in paths(frozen).items() if path not in updated(params)]
    given = collections.Counter((leaf.shape, leaf.dtype) for leaf in (*jax.tree.leaves((params, batch)), *there))
    total = 0
    for leaf in kept:
        if given[leaf.shape, leaf.dtype] > 0:  # an argument itself, handed on
            given[leaf.shape, leaf.dtype] -= 1
        else:
            total += device_bytes(leaf)
    return total


def device_bytes(leaf: Any) -> int:
    """Bytes of an abstract array on one device."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 8 * prod(leaf.shape)
    sharding = getattr(leaf, "sharding", None)
    return prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize // _parts(sharding)


def _parts(sharding: Any) -> int:
    spec = getattr(sharding, "spec", None)
    if not isinstance(spec, PartitionSpec):
        return 1
    names = [name for entry in spec if entry for name in (entry if isinstance(entry, tuple) else (entry,))]
    return prod(sharding.mesh.shape[name] for name in names)


def device_limit() -> int | None:
    """Bytes of memory of one device, where it can be known."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return host_bytes() if jax.default_backend() == "cpu" else None


def host_bytes() -> int | None:
    """Bytes of main memory that are free now, on Linux."""
    try:
        with open("/proc/meminfo") as file:
            return int(next(line for line in file if line.startswith("MemAvailable")).split()[1]) * 1024
    except (OSError, StopIteration):
        return None


def human(count: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
