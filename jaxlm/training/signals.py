"""Asked to stop: SIGTERM or Ctrl-C end the run after the step in hand, saved."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Yields `asked(step)`: whether to stop after this step; all processes of a run get the same answer.

    One process notes SIGTERM and Ctrl-C itself. Several agree on a step through JAX's preemption service, which hears
    SIGTERM only as long as Python has no handler of its own for it; there Ctrl-C is turned into SIGTERM. A second Ctrl-C
    is not waited for: it interrupts at once.
    """
    seen: list[int] = []

    def note(number: int, _frame) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(number)
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    signals = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield _agreed if jax.process_count() > 1 else lambda _step: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agreed(step: int) -> bool:
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)
