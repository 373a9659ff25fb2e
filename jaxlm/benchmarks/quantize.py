"""What few bits cost: size and perplexity of a real model on a real text, with weights of 32, 8 and 4 bits and a cache of 8.

The text is read in windows of the model's own tokens, each by itself, a piece at a time over a cache, so that what the cache rounds is
seen by what comes after.
"""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.planning.memory import human

PIECE = 32  # tokens that are read together


def run(model: str, text: str, length: int, windows: int) -> None:
    """Print size of weights and cache, perplexity, and seconds for each kind.

    Args:
      length: tokens of a window.
      windows: how many, from the beginning of the text.
    """
    import jaxlm
    from jaxlm.inference.quantize import quantize_params, size

    made, params = jaxlm.load(model, dtype="float32")
    ids = jaxlm.load_tokenizer(model).encode(Path(text).read_text(encoding="utf-8"))
    rows = np.array([ids[i * length : (i + 1) * length] for i in range(min(windows, len(ids) // length))], np.int32)
    print(f"{model} on {text}: {len(rows)} windows of {length} tokens")
    for name, weights, cache in (
        ("float32", params, "float32"), ("cache of 8 bits", params, "int8"),
        ("weights of 8 bits", quantize_params(params, 8), "float32"), ("weights of 4 bits", quantize_params(params, 4), "float32"),
    ):  # fmt: skip
        loss, kept = perplexity(made, weights, rows, cache)
        print(
            f"  {name:<18} weights {human(size(weights)):>9}  cache {human(kept):>9} a window  perplexity {math.exp(loss):8.3f}", flush=True
        )


def perplexity(model: Any, params: Any, rows: np.ndarray, dtype: str) -> tuple[float, int]:
    """Mean negative log-likelihood of a token in nats, and the bytes of one window's cache."""
    import jax

    from jaxlm.inference.quantize import size
    from jaxlm.layers.cache import make_cache
    from jaxlm.models import dims

    known, total = dims(model.config), 0.0
    read = jax.jit(functools.partial(_piece, model))
    empty = make_cache(known.layers, (1, rows.shape[1], known.kv_heads, known.head_size), dtype)
    for row in rows:
        cache = empty
        for at in range(0, len(row) - 1, PIECE):
            targets = np.append(row[1:], -1)[at : at + PIECE]
            loss, cache = read(params, row[None, at : at + PIECE], targets, cache)
            total += float(loss)
    return total / (rows.shape[0] * (rows.shape[1] - 1)), size(empty["layers"])


def _piece(model, params, tokens, targets, cache):
    import jax
    import jax.numpy as jnp

    from jaxlm.inference.quantize import dense

    out = model.apply({"params": dense(params)}, tokens, cache=cache)
    chances = jnp.take_along_axis(jax.nn.log_softmax(out.logits[0]), jnp.maximum(targets, 0)[:, None], axis=1)[:, 0]
    return -jnp.where(targets >= 0, chances, 0.0).sum(), out.cache
