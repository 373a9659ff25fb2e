"""The preparation of a corpus of a given size: seconds, megabytes a second, peak memory of all its processes.

The corpus is the standard library's sources again and again, each copy with other words replaced, some copies whole: text that
must be cleaned, compared and tokenized. Read next: `../data/prepare.py`, which is measured.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from jaxlm.data.stdlib import stdlib_documents

CLEAN = '("unicode", "controls", "whitespace", "pii", "exact_duplicates", "near_duplicates")'
NOISE = 0.3  # share of a copy's words that are replaced
WORD = re.compile(r"[A-Za-z]{3,}")


def run(megabytes: int, workers: int, clean: str | None = None) -> None:
    """Write the corpus, prepare it by the command, print the figures and the card."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.jsonl")
        size = write_corpus(path, megabytes * 10**6)
        line = [f"data.source={path}", f"data.cache={folder}/cache", f"data.clean={clean or CLEAN}", f"--workers={workers}"]
        start = time.perf_counter()
        running = subprocess.Popen([sys.executable, "-m", "jaxlm.prepare", *line], stdout=subprocess.PIPE, text=True)
        peaks: list[int] = []
        watcher = threading.Thread(target=_watch, args=(running, peaks))
        watcher.start()
        card, _ = running.communicate()
        watcher.join()
        seconds = time.perf_counter() - start
    print(card)
    speed = f"{size / 1e6:.0f} MB of text in {seconds:.0f} s, {size / 1e6 / seconds:.2f} MB/s"
    print(f"{speed}, {workers} workers, exit code {running.returncode}")
    print(f"peak memory of all processes {max(peaks, default=0) / 2**20:.0f} MiB (proportional set size, every half second)")


def write_corpus(path: Path, size: int) -> int:
    """Write jsonl of at least `size` bytes of text; returns how many there are."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for text in _copies():
            file.write(json.dumps({"text": text}) + "\n")
            written += len(text.encode())
            if written >= size:
                return written
    return written


def _copies() -> Iterator[str]:
    draw = random.Random(0)
    texts = [text for text in stdlib_documents() if text]
    words = sorted({word for text in texts[:200] for word in WORD.findall(text)})
    for text in texts:
        yield text
    while True:
        for text in texts:
            noisy = draw.random() < 0.9
            yield WORD.sub(lambda found: draw.choice(words) if draw.random() < NOISE else found[0], text) if noisy else text


def _watch(running: subprocess.Popen, peaks: list[int]) -> None:
    while running.poll() is None:
        peaks.append(sum(_memory(process) for process in _family(running.pid)))
        time.sleep(0.5)


def _family(process: int) -> list[int]:
    """A process and all its descendants."""
    try:
        children = [int(child) for task in Path(f"/proc/{process}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [process, *(one for child in children for one in _family(child))]


def _memory(process: int) -> int:
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0
