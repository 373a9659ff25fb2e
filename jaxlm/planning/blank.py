"""A batch of nothing, in the shapes and types that a task's batches have: what plans are made with before there is any data."""

from typing import Any

import numpy as np

from jaxlm.config import Run
from jaxlm.data.batches import Kind
from jaxlm.ops.noise import Vocabulary
from jaxlm.tasks import task_named


def blank_batch(run: Run, rows: int, length: int) -> dict[str, np.ndarray]:
    """Arrays [rows, length, ...] of a task's micro-batch."""
    task = task_named(run.task)
    ids, weights = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.float32)
    if task.RECORDS:
        named = {"tokens": ids, "segments": ids, "groups": ids}
        named |= {"token_types": ids} if getattr(run.model, "type_vocab_size", 0) > 1 else {}
        return named | _columns(run, task, (rows, length))
    made = {"tokens": ids, "targets": ids, "weights": weights}
    pairs = Kind(getattr(task, "ROWS", run.task)).pairs
    made |= {"segments": ids} if pairs or run.data.packing == "documents" else {}
    made |= {"token_types": ids, "labels": np.zeros(rows, np.int32)} if pairs else {}
    return task.features(made, _vocabulary(run.model.vocab_size), np.zeros(rows, np.uint64), run)


def _columns(run: Run, task: Any, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    columns = task.columns(run.records) if hasattr(task, "columns") else {name: ((), kind) for name, kind in task.COLUMNS.items()}
    return {name: np.zeros((*shape, *more), kind) for name, (more, kind) in columns.items()}


def _vocabulary(size: int) -> Vocabulary:
    return Vocabulary(0, 0, 0, np.zeros(size, bool), np.arange(size, dtype=np.int32), np.zeros(size, bool))
