"""Batches made ahead of the step that needs them, in order: by threads, or by tf.data (`tf_loader.py`), the same bit for bit.

`make(step)` is pure, so that a loader holds no state worth saving. Read next: `tf_loader.py`.
"""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from jaxlm.data.tf_loader import tf_data
from jaxlm.errors import ConfigError

Batch = dict[str, np.ndarray]


def load(loader: str, make: Callable[[int], Batch], steps: range, prefetch: int) -> Iterator[Batch]:
    """`make(step)` for every step, in order, up to `prefetch` made ahead by the loader of this name.

    Raises ConfigError for an unknown name; what `make` raises comes out at its step.
    """
    if loader not in LOADERS:
        raise ConfigError(f"unknown data.loader={loader}: choose {' or '.join(LOADERS)}")
    return LOADERS[loader](make, steps, prefetch)


def threads(make: Callable[[int], Batch], steps: range, prefetch: int) -> Iterator[Batch]:
    """Worker threads: NumPy lets go of the interpreter while it gathers. Closing the iterator stops them."""
    pool = concurrent.futures.ThreadPoolExecutor(max(1, min(prefetch, 4)), thread_name_prefix="jaxlm-data")
    waiting: collections.deque = collections.deque()
    remaining = iter(steps)
    try:
        waiting.extend(pool.submit(make, step) for step in itertools.islice(remaining, max(1, prefetch)))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(make, step) for step in itertools.islice(remaining, 1))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


LOADERS = {"tf": tf_data, "threads": threads}
