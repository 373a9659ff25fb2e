"""The corpus that is on every machine: the standard library of the running interpreter, about 13 MB of real text.

Read next: `prepare.py`.
"""

import importlib
import os
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

SKIPPED = {"test", "tests", "idle_test", "fixtures", "site-packages", "dist-packages", "__pycache__"}
TOPICS = Path("pydoc_data", "topics.py")  # read as a dictionary of texts, not as source


def stdlib_files() -> list[Path]:
    """The library's source files, sorted by their relative path."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def stdlib_documents(report: Callable[[str], None] | None = None) -> Iterator[str]:
    """Every source file, then every reference topic, each a document; what is no UTF-8 is left out and reported."""
    undecodable = 0
    for path in stdlib_files():
        if path.parts[-2:] == TOPICS.parts:
            continue
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            undecodable += 1
    yield from _topics()
    if undecodable and report:
        report(f"standard library: {undecodable} files that are no UTF-8 were left out")


def _topics() -> Iterator[str]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions leave it out
        return
    for name in sorted(topics):
        yield topics[name]
