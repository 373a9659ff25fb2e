"""The tf.data loader, and the one way this room imports TensorFlow: quiet, and blind to every accelerator.

Read next: `batches.py`, whose `rows` it calls.
"""

import os
from collections.abc import Callable, Iterator

import numpy as np

from jaxlm.errors import ConfigError


def quiet_tensorflow():
    """TensorFlow, which sees no GPU or TPU (they are JAX's) and does not log; ConfigError where it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it only says, twice, that it is on: nothing is computed here
    try:
        import tensorflow
    except ImportError as error:
        raise ConfigError(f'TensorFlow cannot be imported ({error}): pip install "jaxlm[train]", or set data.loader=threads') from error
    for kind in ("GPU", "TPU"):
        if tensorflow.config.get_visible_devices(kind):
            tensorflow.config.set_visible_devices([], kind)
    return tensorflow


def tf_data(make: Callable[[int], dict[str, np.ndarray]], steps: range, prefetch: int) -> Iterator[dict[str, np.ndarray]]:
    """`make(step)` for every step of a range, in order, `prefetch` made ahead by tf.data; what `make` raises comes out."""
    if not steps:
        return
    tf = quiet_tensorflow()
    example = make(steps[0])  # tf.data asks for names and types before the first element
    raised: dict[int, Exception] = {}

    def batch(step: np.int64) -> list[np.ndarray]:
        try:
            found = make(int(step))
            return [found[name] for name in example]
        except Exception as error:
            raised[int(step)] = error  # TensorFlow hands on its text only
            raise

    types = [value.dtype for value in example.values()]
    numbers = tf.data.Dataset.range(steps.start, steps.stop, steps.step)
    ahead = max(1, min(prefetch, 4))
    made = numbers.map(lambda step: tf.numpy_function(batch, [step], types), num_parallel_calls=ahead, deterministic=True)
    try:
        for values in made.prefetch(max(1, prefetch)).as_numpy_iterator():
            yield dict(zip(example, values, strict=True))
    except tf.errors.OpError:
        if raised:
            raise raised[min(raised)] from None
        raise
