"""How a run ended: validation against a general compressor, samples, and what to type next."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from jaxlm.config import Run
from jaxlm.tasks import task_named
from jaxlm.training.report import clock


def tell(run: Run, samples: list[str], compress: Callable[[], tuple[float, float]], arguments: list[str]) -> None:
    """Print the last validation, the samples (kept in samples.txt too) and the next commands.

    Args:
      compress: bits per byte that a general compressor needs for the held-out documents: each on its own, all in one.
      arguments: the command line that ran.
    """
    path = Path(run.workdir) / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    validated = [row for row in rows if row.get("validation_loss") is not None]
    if validated:
        last = validated[-1]
        named = [(name.removeprefix("validation_"), value) for name, value in last.items() if name.startswith("validation_")]
        print(f"\nvalidation at step {last['step']}: {', '.join(f'{name} {value:.4f}' for name, value in named if value is not None)}")
        if "validation_bits_per_byte" in last:
            print("\n".join(compression_lines(validated, *compress())))
    for number, text in enumerate(samples, 1):
        print(f"\n--- sample {number} ---\n{text.rstrip()}")
    if samples:
        (Path(run.workdir) / "samples.txt").write_text("\n\n-----\n\n".join(samples))
    print("\n".join(["\nnext:", *(f"  {line}" for line in next_commands(run, arguments))]))


def next_commands(run: Run, arguments: list[str]) -> list[str]:
    """What to type after a run."""
    kept = [argument for argument in arguments if not argument.startswith(("steps=", "epochs="))]
    longer = f"steps={2 * run.steps}" if run.epochs is None else f"epochs={2 * run.epochs:g}"
    where = shlex.quote(run.workdir)
    if run.task == "causal-lm":
        lines = [f'python -m jaxlm.generate {where} --prompt "def "']
    else:
        predicts = run.task == "masked-lm" or task_named(run.task).RECORDS
        lines = [f"python -m jaxlm.evaluate {where}", *[f"python -m jaxlm.predict {where} < lines.txt"] * predicts]
    lines = [*lines, f"python -m jaxlm.train {shlex.join([*kept, longer])}    (goes on from here)"]
    return lines + [f"tensorboard --logdir {where}/tensorboard"] * run.logging.tensorboard


def compression_lines(validated: list[dict], each: float, together: float) -> list[str]:
    """Bits per byte beside the compressor's, and after how long the model passed it."""
    reached = validated[-1]["validation_bits_per_byte"]
    lines = [f"bits per byte {reached:.3f}; lzma needs {each:.3f} for each document on its own, {together:.3f} for all in one"]
    for name, bar in (("each on its own", each), ("all in one", together)):
        passed = next((row for row in validated if row["validation_bits_per_byte"] < bar), None)
        when = f"passed at step {passed['step']}, after {clock(passed['elapsed'])} of training" if passed else "not passed yet"
        lines.append(f"  lzma, {name}: {when}")
    return lines
