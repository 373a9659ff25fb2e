"""What a run tells: a line or a progress bar on the terminal, metrics.jsonl, TensorBoard and Weights & Biases.

metrics.jsonl is the record: one JSON object a line, {"step", "elapsed", ...}, in order of steps; lines beyond the step a
run resumes from are dropped, because they are written again. Read next: `sinks.py`, `summary.py`.
"""

import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.config import Run
from jaxlm.errors import DataError
from jaxlm.training.sinks import make_bar, make_sinks

QUIET = 10.0  # seconds between two lines where there is no progress bar


@dataclasses.dataclass(frozen=True)
class Rates:
    """What turns tokens per second into FLOP/s and a share of the peak."""

    flops_per_token: float
    peak: float
    peak_source: str


class Report:
    """Says how a run goes. On hosts other than the first it keeps silent."""

    def __init__(self, run: Run, rates: Rates, start: int, owner: bool):
        self.run, self.rates, self.owner = run, rates, owner
        self.path = Path(run.workdir) / "metrics.jsonl"
        past = truncate(self.path, start) if owner else []
        self.elapsed = max((row.get("elapsed", 0.0) for row in past), default=0.0)
        self.begun, self.since, self.away = time.perf_counter(), None, 0.0
        self.tokens, self.steps_timed, self.evaluation_seconds = 0.0, 0, 0.0
        self.last, self.shown = {}, -math.inf
        self.file = open(self.path, "a") if owner else None
        self.sinks = make_sinks(run) if owner else []
        self.bar = make_bar(run.steps, start) if owner and sys.stdout.isatty() else None

    def step(self, number: int, metrics: dict[str, float]) -> None:
        """Metrics of one finished step; written every `logging.every` steps."""
        now = time.perf_counter()
        if self.since is None:  # the first step of a process has compiled; rates and the ETA leave it out
            self.since = now
            self.note(f"first step after {now - self.begun:.1f} s: tracing and compiling, mostly")
        else:
            self.tokens, self.steps_timed = self.tokens + metrics["tokens"], self.steps_timed + 1
        if number % self.run.logging.every == 0 or number == self.run.steps:
            self._write(number, {**metrics, **self._speed()})
            self._draw(number)
        elif self.bar:
            self._draw(number)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Evaluations and checkpoints inside the block do not count into the time of a step."""
        begun = time.perf_counter()
        yield
        self.away += time.perf_counter() - begun

    def evaluation(self, number: int, metrics: dict[str, float], seconds: float = 0.0) -> None:
        """Validation metrics after a step, and how long they took."""
        self.evaluation_seconds = seconds
        self._write(number, {f"validation_{name}": value for name, value in metrics.items()})
        if metrics:
            worded = (WORDING.get(name, f"{name} {{:.4g}}").format(value) for name, value in metrics.items())
            self.note(f"step {number}: validation {', '.join(worded)}")

    def note(self, text: str) -> None:
        """A line of its own."""
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False)
        elif self.owner:
            print(text, flush=True)

    def seconds(self) -> float:
        """Time of training so far, over all calls, validation included, without the compilation of this one."""
        return self.elapsed + (0.0 if self.since is None else time.perf_counter() - self.since)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
        for sink in self.sinks:
            sink.close()
        if self.file:
            with contextlib.suppress(OSError):  # a full disk has been reported when the line was written
                self.file.close()

    def _busy(self) -> float:
        """Seconds of steps alone, since the first."""
        return max(time.perf_counter() - self.since - self.away, 1e-9)

    def _speed(self) -> dict[str, float]:
        if not self.steps_timed:
            return {}
        rate = self.tokens / self._busy()
        flops = rate * self.rates.flops_per_token
        return {"tokens_per_second": rate, "flops_per_second": flops, "share_of_peak": flops / self.rates.peak}

    def _write(self, number: int, values: dict[str, float]) -> None:
        self.last = {**self.last, **values}
        if not self.owner:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        try:
            self.file.write(json.dumps({"step": number, "elapsed": round(self.seconds(), 3), **finite}) + "\n")
            self.file.flush()
        except OSError as error:
            mend = "mend that and run the same command again, it goes on"
            raise DataError(f"{self.path} cannot be written ({error.strerror}): {mend}") from error
        for sink in self.sinks:
            sink.write(number, values)

    def _draw(self, number: int) -> None:
        text, eta = describe(self.last), self._eta(number)
        left = "" if eta is None else f"  ETA {clock(eta)}"
        if self.bar:  # two lines: one would not fit into 80 columns
            self.bar.update(0, completed=number, text=f"step {number}/{self.run.steps}{left}\n{text}")
        elif self.owner and (time.perf_counter() - self.shown > QUIET or number == self.run.steps):
            self.shown = time.perf_counter()
            print(f"step {number:>{len(str(self.run.steps))}}/{self.run.steps}  {text}{left}", flush=True)

    def _eta(self, number: int) -> float | None:
        """Seconds left: of the steps, and of the evaluations at the last one's pace."""
        if not self.steps_timed:
            return None
        evaluations = self.run.steps // self.run.evaluation.every - number // self.run.evaluation.every
        return self._busy() / self.steps_timed * (self.run.steps - number) + evaluations * self.evaluation_seconds


WORDING = {"loss": "loss {:.3f}", "perplexity": "perplexity {:.1f}", "bits_per_byte": "{:.3f} bits per byte"}


def describe(metrics: dict[str, float]) -> str:
    """The last metrics in one line."""
    parts = []
    if "loss" in metrics:
        parts += [f"loss {metrics['loss']:.3f}", f"lr {metrics['learning_rate']:.1e}", f"|g| {metrics['grad_norm']:.2f}"]
    if "tokens_per_second" in metrics:
        parts += [f"{metrics['tokens_per_second']:,.0f} tok/s", f"{flops(metrics['flops_per_second'])} ({metrics['share_of_peak']:.0%})"]
    return "  ".join(parts)


def flops(rate: float) -> str:
    """Floating-point operations per second in three digits.

    >>> flops(17.94e9), flops(3.2e14)
    ('17.9 GFLOP/s', '320 TFLOP/s')
    """
    unit, size = next((unit, size) for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 0)) if rate >= size)
    return f"{rate / (size or 1e6):.3g} {unit}FLOP/s"


def truncate(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to `step`, which stay; later ones and a torn last line go."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and row.get("step", math.inf) <= step:
            kept.append(row)
    partial = path.with_suffix(".tmp")
    partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
    os.replace(partial, path)
    return kept


def clock(seconds: float) -> str:
    """75 -> '1:15'.

    >>> clock(3675)
    '1:01:15'
    """
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
