"""A function applied to a stream in several processes: results in order, few items waiting, no process left behind.

Read next: `prepare.py`.
"""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxlm.errors import DataError


def ordered_map(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """`function(item)` of each item, in their order, from `workers` processes; fewer than two: in this one.

    At most `workers` + 1 items wait, so that memory does not grow with the stream. The function and the items are pickled,
    and workers import the main script again: one that calls this guards its main part.

    Raises DataError where a process was killed, as it is when memory runs out; whatever the function raises, too.
    """
    if workers < 2:
        yield from map(function, items)
        return
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _settle)
    try:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise DataError("a worker process died, most often of too little memory: try again with fewer --workers") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _settle() -> None:
    """In a worker: one thread of tokenization each, Ctrl-C left to the parent, and no life after the parent's."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
