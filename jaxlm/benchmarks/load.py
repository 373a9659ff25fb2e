"""Loading a model of SmolLM2's size from safetensors, beside the format's own `load_file` into NumPy; the file is in the page cache."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.benchmarks.pairs import show


def ours(folder: str) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """`jaxlm.load`: every parameter in its place."""
    import jax

    import jaxlm

    def one() -> None:
        jax.block_until_ready(jaxlm.load(folder)[1])

    return {}, one, lambda: None


def theirs(folder: str) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """safetensors' own reader, into fresh NumPy arrays."""
    from safetensors.numpy import load_file

    return {}, lambda: load_file(Path(folder) / "model.safetensors") and None, lambda: None


def run(rounds: int, steps: int, dtype: str) -> None:
    """Print seconds a load and the ratio of the speeds."""
    import jax

    from jaxlm.models import init_params, llama, make_model
    from jaxlm.pretrained import save

    with tempfile.TemporaryDirectory() as folder:
        model = make_model(llama.SIZES["smollm2-135m"])
        params = jax.jit(lambda: jax.tree.map(lambda leaf: leaf.astype(dtype), init_params(model, jax.random.key(0))))()
        save(folder, model, params)
        size = (Path(folder) / "model.safetensors").stat().st_size
        print(f"load smollm2-135m in {dtype}: {size / 1e6:.0f} MB")
        show({"jaxlm": (ours, {"folder": folder}), "load_file": (theirs, {"folder": folder})}, rounds, steps, 0)
