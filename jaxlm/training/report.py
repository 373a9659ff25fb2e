"""What a run tells: a line or a progress bar on the terminal, metrics.jsonl, TensorBoard and Weights & Biases.

metrics.jsonl is the record: one JSON object a line, {"step", "elapsed", ...}, in order of steps; lines beyond the step a
run resumes from are dropped, because they are written again.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from jaxlm.config import Run
from jaxlm.errors import ConfigError


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
        self.begun, self.since, self.tokens, self.steps_timed = time.perf_counter(), None, 0.0, 0
        self.start, self.bar, self.last = start, None, {}
        self.file = open(self.path, "a") if owner else None
        self.sinks = _sinks(run, owner)

    def step(self, number: int, metrics: dict[str, float]) -> None:
        """Metrics of one finished step; written every `logging.every` steps."""
        now = time.perf_counter()
        if self.since is None:  # the first step of a process has compiled; rates and the ETA leave it out
            self.compiled, self.since = now - self.begun, now
            self.note(f"first step after {self.compiled:.1f} s: tracing and compiling, mostly")
        else:
            self.tokens, self.steps_timed = self.tokens + metrics["tokens"], self.steps_timed + 1
        if number % self.run.logging.every == 0 or number == self.run.steps:
            self._write(number, {**metrics, **self._speed(now)})
        self._draw(number)

    def evaluation(self, number: int, metrics: dict[str, float]) -> None:
        """Validation metrics after a step."""
        named = {f"validation_{name}": value for name, value in metrics.items()}
        self._write(number, named)
        self.note(f"step {number}: " + "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in named.items()))

    def note(self, text: str) -> None:
        """A line of its own."""
        if self.owner:
            self.bar.console.print(text, highlight=False, markup=False) if self.bar else print(text, flush=True)

    def seconds(self) -> float:
        """Time of training so far, over all calls, without the compilation of this one."""
        return self.elapsed + (0.0 if self.since is None else time.perf_counter() - self.since)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
        for sink in self.sinks:
            sink.close()
        if self.file:
            self.file.close()

    def _speed(self, now: float) -> dict[str, float]:
        if not self.steps_timed:
            return {}
        rate = self.tokens / (now - self.since)
        flops = rate * self.rates.flops_per_token
        return {"tokens_per_second": rate, "flops_per_second": flops, "share_of_peak": flops / self.rates.peak}

    def _write(self, number: int, values: dict[str, float]) -> None:
        self.last = {**self.last, **values}
        if not self.owner:
            return
        self.file.write(json.dumps({"step": number, "elapsed": round(self.seconds(), 3), **values}) + "\n")
        self.file.flush()
        for sink in self.sinks:
            sink.write(number, values)

    def _draw(self, number: int) -> None:
        if not self.owner:
            return
        if self.bar is None and sys.stdout.isatty():
            self.bar = _bar(self.run.steps)
        if self.bar:
            self.bar.update(0, completed=number, text=self._text(number))
        elif number % (10 * self.run.logging.every) == 0 or number == self.run.steps:
            print(f"step {number:>6}/{self.run.steps}  {self._text(number)}", flush=True)

    def _text(self, number: int) -> str:
        parts = [f"loss {self.last['loss']:.3f}  lr {self.last['learning_rate']:.1e}  |g| {self.last['grad_norm']:.2f}"] if "loss" in self.last else []
        if "tokens_per_second" in self.last:
            share = self.last["share_of_peak"]
            parts.append(f"{self.last['tokens_per_second']:,.0f} tok/s  {self.last['flops_per_second'] / 1e9:,.0f} GFLOP/s ({share:.0%})")
            each = (time.perf_counter() - self.since) / max(self.steps_timed, 1)
            parts.append(f"ETA {clock(each * (self.run.steps - number))}")
        return "  ".join(parts)


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
        if row["step"] <= step:
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


def _bar(total: int) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.fields[text]}"))
    bar.add_task("", total=total, text="")
    bar.start()
    return bar


class _TensorBoard:
    def __init__(self, folder: Path):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    def __init__(self, run: Run):
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("logging.wandb needs Weights & Biases: pip install wandb, or leave the key out") from error
        self.run = wandb.init(project=run.logging.wandb, dir=run.workdir, resume="allow", config=dataclasses.asdict(run))

    def write(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


def _sinks(run: Run, owner: bool) -> list[Any]:
    if not owner:
        return []
    sinks: list[Any] = [_Wandb(run)] if run.logging.wandb else []
    if run.logging.tensorboard:
        try:
            sinks.append(_TensorBoard(Path(run.workdir) / "tensorboard"))
        except ImportError:
            print("no TensorBoard files: tensorboardX is not installed (metrics.jsonl holds the same)")
    return sinks
