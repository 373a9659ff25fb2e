"""Two programs side by side: each in a process of its own, round by round in turn, so that a drifting machine hits both.

A side is a function that returns (facts, step): `step()` does one unit of work and waits for it. Only rounds in which the
rest of the machine was quiet are counted, where Linux can tell. Read next: `train.py`.
"""

import dataclasses
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlm.command import keep_freed_memory
from jaxlm.planning.memory import human

QUIET = 0.06  # share of all processors that others may use in a round that counts


@dataclasses.dataclass(frozen=True)
class Side:
    """Seconds of one step in each round, and what the side says of itself."""

    name: str
    facts: dict[str, Any]
    seconds: np.ndarray
    peak_bytes: int


def beside(ours: Callable, torchs: Callable, shape: Any, compiled: bool, alone: bool) -> dict[str, tuple[Callable, dict]]:
    """The sides of a bench of one shape: ours; torch's unless `alone`; and torch.compile's where it is asked for."""
    sides: dict[str, tuple[Callable, dict]] = {"jaxlm": (ours, {"shape": shape})}
    for name, how in {"torch": False, "torch.compile": True}.items():
        if not alone and (compiled or not how):
            sides[name] = (torchs, {"shape": shape, "compiled": how})
    return sides


def alternate(sides: dict[str, tuple[Callable, dict]], rounds: int, steps: int) -> tuple[list[Side], np.ndarray]:
    """Run every side's `steps` in turn, `rounds` times.

    Args:
      sides: name -> (function, its keyword arguments); the function must be importable by name.

    Returns:
      The sides, and the share of the machine that others used in each round.
    """
    context = multiprocessing.get_context("spawn")
    workers = {}
    for name, (make, arguments) in sides.items():
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, name, make, arguments), daemon=True)
        process.start()
        workers[name] = (process, here, _receive(here, name))
    seconds, others = {name: [] for name in sides}, []
    for _ in range(rounds):
        before = _busy()
        for name, (_, pipe, _) in workers.items():
            pipe.send(steps)
            seconds[name].append(_receive(pipe, name)["seconds"] / steps)
        others.append(_others(before, _busy()))
    result = []
    for name, (process, pipe, facts) in workers.items():
        pipe.send(0)
        result.append(Side(name, facts, np.array(seconds[name]), _receive(pipe, name)["peak"]))
        process.join()
    return result, np.array(others)


def _serve(pipe: Any, name: str, make: Callable, arguments: dict) -> None:
    if name == "jaxlm":
        keep_freed_memory()  # as in every command; a peer runs as it comes
    try:
        facts, step, peak = make(**arguments)
        step()  # beside the first call, which `make` has timed: caches are warm now
        pipe.send(facts)
        while steps := pipe.recv():
            start, cpu = time.perf_counter(), sum(os.times()[:2])
            for _ in range(steps):
                step()
            pipe.send({"seconds": time.perf_counter() - start, "cpu": sum(os.times()[:2]) - cpu})
        pipe.send({"peak": peak() or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss})
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"})


def _receive(pipe: Any, name: str) -> dict[str, Any]:
    try:
        message = pipe.recv()
    except EOFError:
        message = {"error": "its process ended"}
    if "error" in message:
        raise RuntimeError(f"{name}: {message['error']}")
    if "cpu" in message:
        _OWN[0] += message["cpu"]
    return message


_OWN = [0.0]  # processor seconds of our own workers so far


def _busy() -> tuple[float, float, float] | None:
    """Seconds of work and of all processors since boot, and those of our workers."""
    try:
        with open("/proc/stat") as file:
            numbers = [float(n) / os.sysconf("SC_CLK_TCK") for n in file.readline().split()[1:9]]
    except OSError:
        return None
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers), _OWN[0]


def _others(before: tuple | None, after: tuple | None) -> float:
    if before is None or after is None:
        return float("nan")
    work, whole, own = (b - a for a, b in zip(before, after, strict=True))
    return max(0.0, (work - own) / max(whole, 1e-9))


def quiet(others: np.ndarray) -> np.ndarray:
    """Which rounds count: all where it cannot be told or none was quiet."""
    calm = ~(others > QUIET)
    return calm if calm.any() else np.ones_like(calm)


def spread(ratios: np.ndarray) -> str:
    """Median and the 10 % and 90 % quantiles."""
    low, middle, high = np.quantile(ratios, [0.1, 0.5, 0.9])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def show(sides: dict[str, tuple[Callable, dict]], rounds: int, steps: int, tokens: int) -> Side:
    """Run the sides, print a line each and the ratios of the first side's speed to the others', and return the first; `tokens` a step."""
    results, others = alternate(sides, rounds, steps)
    calm = quiet(others)
    noisy = "" if (others[calm] <= QUIET).all() else "; NO round was quiet: believe the ratios only roughly"
    print(f"{rounds} rounds of {steps} steps, {calm.sum()} of them counted (others used {np.nanmedian(others):.0%} of the machine{noisy})")
    for side in results:
        print("  " + _line(side, tokens, results[0].facts.get("flops"), calm))
    for side in results[1:]:
        print(f"  {results[0].name} / {side.name}: {spread(side.seconds[calm] / results[0].seconds[calm])} median [10 %, 90 %]")
    return results[0]


def _line(side: Side, tokens: int, flops: float | None, calm: np.ndarray) -> str:
    seconds = float(np.median(side.seconds[calm]))
    parts = [f"{side.name:<14} {1e3 * seconds:8.1f} ms a step (best {1e3 * side.seconds.min():.1f})", f"{tokens / seconds:10,.0f} tokens/s"]
    if flops:
        parts.append(f"{tokens / seconds * flops / 1e9:8,.0f} GFLOP/s")
    parts.append(f"peak {human(side.peak_bytes)}")
    if "first step" in side.facts:
        parts.append(
            f"first step done {side.facts['first step']:.1f} s after imports ({side.facts['compile']:.1f} s of it in the step's first call)"
        )
    return "  ".join(parts)
