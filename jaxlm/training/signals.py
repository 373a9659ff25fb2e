"""Asked to stop: SIGTERM or Ctrl-C end the run after the step in hand, saved."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM interrupts as Ctrl-C does: for the time in which there is nothing to save.

    Several processes leave it to JAX's preemption service, which hears it only while Python has no handler of its own.
    """
    before = None if jax.process_count() > 1 else signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Yields `asked(step)`: whether to stop after this step; all processes of a run get the same answer.

    One process notes SIGTERM and Ctrl-C itself. Several agree on a step through JAX's preemption service; Ctrl-C is turned
    into SIGTERM for it. A second Ctrl-C is not waited for: it interrupts at once.
    """
    several, seen = jax.process_count() > 1, []

    def note(number: int, _frame) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not seen and jax.process_index() == 0:
            os.write(2, b"\nstopping after this step; Ctrl-C again interrupts at once\n")  # print may be what was interrupted
        seen.append(number)
        if several:
            os.kill(os.getpid(), signal.SIGTERM)

    signals = [signal.SIGINT] if several else [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield _agreed if several else lambda _step: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agreed(step: int) -> bool:
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)
