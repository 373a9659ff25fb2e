"""Floating-point operations of a training step, and the peak they are compared with."""

import time
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.models import dims
from jaxlm.training.tuning import paths

FORMULA = (
    "6 N + 12 L D T a token, N = parameters that are multiplied (kernels and the output embedding; frozen ones count 4), full attention"
)
WORDS = ("causal-lm", "masked-lm", "pretraining", "seq2seq-lm")  # tasks that multiply with the output embedding

# Dense peak of a device in bfloat16, FLOP/s, from the makers' data sheets: a prefix of jax's device_kind -> peak.
PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100": 989e12,
    "NVIDIA A100": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


def training_flops(model: Any, params: Any, length: int, target: int = 0, fixed: Collection[str] = ()) -> float:
    """FLOPs of forward and backward pass for one token of a row of `length` (Kaplan et al. 2020, section 2.1).

    Args:
      params: the whole model's parameters or their shapes.
      target: tokens of a row of a decoder over an encoder: a token passes one of the two, and the mean over both is returned.
      fixed: paths of those that get no gradient, which is a third of the work.
    """
    leaves = paths(params)
    sizes = {path: leaf.size for path, leaf in leaves.items() if path.rpartition("/")[2] == "kernel"}
    if model.task in WORDS:
        table = jax.eval_shape(model.output_table, params)  # T5 scales it
        alike = [path for path, leaf in leaves.items() if leaf.shape == table.shape and path not in sizes]
        sizes[next((path for path in alike if path.endswith("lm_head")), alike[0])] = table.size
    known = dims(model.config)
    share = lambda path: (length if path.startswith("encoder/") else target) / (length + target) if target else 1.0
    multiplied = sum((4.0 if path in fixed else 6.0) * size * share(path) for path, size in sizes.items())
    return multiplied + 12.0 * known.layers * known.embed * length


def peak_flops(dtype: str) -> tuple[float, str]:
    """FLOP/s that all devices could reach together, and where the figure comes from."""
    device, count = jax.devices()[0], jax.device_count()
    for kind, peak in PEAKS.items():
        if device.device_kind.startswith(kind):
            return peak * count, f"{count} x {device.device_kind}, data sheet, bfloat16"
    return measured_peak(dtype), f"a product of 2048 x 2048 matrices in {dtype}, measured on this {device.platform}"


def measured_peak(dtype: str, size: int = 2048, rounds: int = 3) -> float:
    """FLOP/s of the fastest of a few matrix products on one device."""
    x = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    product = jax.jit(lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32))
    product(x).block_until_ready()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
