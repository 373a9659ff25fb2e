"""A profile of some steps, for XProf: `profile.steps=[10,15]`."""

from typing import Any

import jax

from jaxlm.config import Run


class Trace:
    """Records the steps after `first`, up to and with `last`; what is left open at the end of the block is closed."""

    def __init__(self, run: Run, say: Any):
        self.first, self.last = run.profile.steps or (-1, -1)
        self.folder, self.say, self.running = f"{run.workdir}/profile", say, False

    def before(self, number: int, state: Any) -> None:
        """To be called before a step, with the number of steps done."""
        if self.running and number >= self.last:
            jax.block_until_ready(state)  # the device works on after the dispatch
            self._stop()
        elif not self.running and number == self.first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self.folder)
            self.running = True

    def _stop(self) -> None:
        self.running = False
        jax.profiler.stop_trace()
        view = f"pip install xprof && xprof --logdir {self.folder}"
        self.say(f"trace of steps {self.first + 1} to {self.last} in {self.folder}; view it: {view}")

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_) -> None:
        if self.running:
            self._stop()
