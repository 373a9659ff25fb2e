"""Encoding in batches, beside the bare `tokenizers` library on the same texts, on one core and on all.

Both sides give lists of ids. Read next: `pairs.py`.
"""

import contextlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.benchmarks.pairs import show
from jaxlm.data.stdlib import stdlib_documents

CHARACTERS = 500_000  # a step encodes so many
LENGTHS = {"lines": 60, "paragraphs": 1000, "documents": 50_000}  # characters a text, on average
KINDS = ("bpe", "wordpiece")


def ours(folder: str, length: int) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """`encode_batch`: control tokens in texts stay text, lone surrogates are mended."""
    from jaxlm.text.tokenizer import load_tokenizer

    tokenizer, texts = load_tokenizer(folder), cut(length)
    return {}, lambda: tokenizer.encode_batch(texts) and None, lambda: None


def theirs(folder: str, length: int) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """The library's `encode_batch_fast`, which leaves offsets out."""
    from tokenizers import Tokenizer

    engine, texts = Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), cut(length)
    return {}, lambda: [found.ids for found in engine.encode_batch_fast(texts)] and None, lambda: None


def cut(length: int) -> list[str]:
    """Texts of the standard library, each between a half and one and a half of `length` characters."""
    draw, texts, size = random.Random(0), [], 0
    whole = "".join(text for text, _ in zip(stdlib_documents(), range(600), strict=False))
    while size < min(CHARACTERS, len(whole)):
        texts.append(whole[size : size + draw.randint(length // 2, 3 * length // 2)])
        size += len(texts[-1])
    return texts


def run(rounds: int, steps: int) -> None:
    """Train two small tokenizers, then print a comparison for each kind, number of cores and length of texts."""
    from jaxlm.text.training import train_tokenizer

    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as root:
        for kind in KINDS:
            folder = str(Path(root, kind))
            train_tokenizer(kind, cut(50_000), 8192).save(folder)
            for cores in sorted({1, available}):
                for name, length in LENGTHS.items():
                    print(f"{kind}, {name} of {length:,} characters, {cores} core{'s' * (cores > 1)}; tokens are characters here")
                    arguments = {"folder": folder, "length": length}
                    with threads(cores):
                        show({"jaxlm": (ours, arguments), "tokenizers": (theirs, arguments)}, rounds, steps, CHARACTERS)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Processes started inside use so many threads in the library."""
    there = {name: os.environ.get(name) for name in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM")}
    os.environ |= {"RAYON_NUM_THREADS": str(number), "TOKENIZERS_PARALLELISM": "true" if number > 1 else "false"}
    try:
        yield
    finally:
        for name, value in there.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
