"""Where metrics go beside metrics.jsonl: the progress bar, TensorBoard, Weights & Biases. Read next: `report.py`."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxlm.config import Run
from jaxlm.errors import ConfigError


def make_sinks(run: Run) -> list[Any]:
    """What is asked for and installed; each has `write(step, values)` and `close()`."""
    sinks: list[Any] = [WandbSink(run)] if run.logging.wandb else []
    if run.logging.tensorboard:
        try:
            sinks.append(TensorBoardSink(Path(run.workdir) / "tensorboard"))
        except ImportError:
            print("no TensorBoard files: tensorboardX is not installed (metrics.jsonl holds the same)")
    return sinks


def make_bar(total: int, start: int) -> Any:
    """A progress bar on the terminal; None where rich is not installed."""
    try:
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        return None
    bar = Progress(BarColumn(bar_width=8), TextColumn("{task.fields[text]}", markup=False))
    bar.add_task("", total=total, completed=start, text=f"step {start}/{total}  compiling")
    bar.start()
    return bar


class TensorBoardSink:
    """Scalars in TensorBoard's event files."""

    def __init__(self, folder: Path):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def write(self, step: int, values: dict[str, float]) -> None:
        """One point of each metric."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        self.writer.close()


class WandbSink:
    """Scalars in a Weights & Biases run."""

    def __init__(self, run: Run):
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("logging.wandb needs Weights & Biases: pip install wandb, or leave the key out") from error
        self.run = wandb.init(project=run.logging.wandb, dir=run.workdir, resume="allow", config=dataclasses.asdict(run))

    def write(self, step: int, values: dict[str, float]) -> None:
        """One point of all metrics."""
        self.run.log(values, step=step)

    def close(self) -> None:
        """End the run on the server."""
        self.run.finish()
