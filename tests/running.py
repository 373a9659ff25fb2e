"""Training runs small enough for a test: a config file, a text, `python -m jaxlm.train` as a process or in this one."""

import functools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from jaxlm import sharding, train
from jaxlm.errors import exits
from jaxlm.training import checkpoint, manifest

CONFIG = """
from jaxlm.config import Checkpoint, Data, Evaluation, Logging, Optimizer, Run, Tokenizer
from jaxlm.models import gpt2

config = Run(
    model=gpt2.Config(vocab_size=None, n_positions=32, n_embd=32, n_layer=1, n_head=2),
    workdir={workdir!r}, steps=60, batch_size=8,
    data=Data(source={text!r}, validation=0.1, sequence_length=16, loader="threads", cache={cache!r}),
    tokenizer=Tokenizer(kind="char"), optimizer=Optimizer(learning_rate=1e-2, warmup=5),
    evaluation=Evaluation(every=20), checkpoint=Checkpoint(every=5), logging=Logging(every=1, tensorboard=False, samples=0),
)
"""
WORDS = "the a cat dog sat on mat and ran over hill to see moon".split()
UNMEASURED = """
import sys
from jaxlm import train
from jaxlm.errors import exits
from jaxlm.planning import banner

banner.peak_flops = lambda dtype: (1e12, "not measured here")  # with simulated devices it takes many seconds
with exits():
    train.main(sys.argv[1:])
"""
PEAK = lambda dtype: (1e12, "not measured here")  # measuring takes seconds
CLOCKED = ("elapsed", "tokens_per_second", "flops_per_second", "share_of_peak")


def make_config(folder: Path) -> str:
    """A config file in `folder`, whose text, cache and workdir (`run`) are there too."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    (folder / "text.txt").write_text("\n".join(" ".join(draw.choice(WORDS) for _ in range(8)) for _ in range(100)))
    path = folder / "tiny.py"
    path.write_text(CONFIG.format(workdir=str(folder / "run"), text=str(folder / "text.txt"), cache=str(folder / "cache")))
    return str(path)


def start(cache: Path, *arguments: str, devices: int = 1, **environment: str) -> subprocess.Popen:
    """`python -m jaxlm.train` as a process, with its output in pipes; `cache` keeps what was compiled."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")
    kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONUNBUFFERED": "1"}
    here = {"PYTHONPATH": str(Path(train.__file__).parent.parent), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, *(["-m", "jaxlm.train"] if devices == 1 else ["-c", UNMEASURED]), *arguments]
    variables = {**os.environ, **here, **kept, **environment}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, timeout: float = 100) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, out, err


def run_here(*arguments: str, devices: int = 1) -> int:
    """`python -m jaxlm.train` in this process, on its first devices; returns the exit code."""
    mesh = functools.partial(sharding.make_mesh, devices=jax.devices()[:devices])
    try:
        with exits(), mock.patch.object(sharding, "make_mesh", mesh), mock.patch("jaxlm.planning.banner.peak_flops", PEAK):
            train.main(list(arguments))
    except SystemExit as leaving:
        return leaving.code
    return 0


def last_step(workdir: Path) -> int:
    """The last step in metrics.jsonl; 0 before the first."""
    return max((row["step"] for row in rows(workdir)), default=0) if (workdir / "metrics.jsonl").exists() else 0


def wait_for_step(workdir: Path, step: int, process: subprocess.Popen | None = None) -> bool:
    """Wait until metrics.jsonl shows a step; False if the process has ended before, or after a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until and (process is None or process.poll() is None):
        if last_step(workdir) >= step:
            return True
        time.sleep(0.002)
    return False


def rows(workdir: Path) -> list[dict]:
    """The whole lines of metrics.jsonl."""
    lines = (workdir / "metrics.jsonl").read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines if line]


def record(workdir: Path) -> list[dict]:
    """metrics.jsonl without what depends on the clock."""
    return [{name: value for name, value in row.items() if name not in CLOCKED} for row in rows(workdir)]


def state(workdir: Path) -> dict[str, np.ndarray]:
    """Every leaf of the newest checkpoint."""
    folder = manifest.folder(workdir) / str(manifest.checkpoint_steps(workdir)[-1])
    stored = checkpoint.restore(folder, checkpoint.leaves(folder), None)
    return {name: np.asarray(leaf) for name, leaf in stored.items()}


def same_end(one: Path, other: Path) -> bool:
    """Whether two runs ended in the same bits, by the same steps."""
    a, b = state(one), state(other)
    bits = a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)
    return bits and record(one) == record(other)


def damage(checkpoint_folder: Path) -> None:
    """Flip a bit in the biggest file of the state."""
    path = max((path for path in (checkpoint_folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
