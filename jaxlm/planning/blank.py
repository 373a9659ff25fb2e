"""A batch of nothing, in the shapes and types that a task's batches have: what plans are made with before there is any data."""

from typing import Any

import jax
import numpy as np

from jaxlm.config import Run
from jaxlm.data.batches import Kind
from jaxlm.data.pair_rows import PairShape, rows_per_batch
from jaxlm.feeding import row_data, rows_multiple
from jaxlm.ops.noise import Vocabulary
from jaxlm.tasks import task_named


def row_tokens(run: Run) -> tuple[int, int]:
    """Tokens of a row as the model is given it: of the only side or the encoder's, and of the decoder's over an encoder, else 0."""
    task = task_named(run.task)
    return run.data.sequence_length, task.target_length(run) if hasattr(task, "target_length") else 0


def batch_rows(run: Run, mesh: jax.sharding.Mesh | None) -> int:
    """Rows of a batch; where it holds a fixed number of tokens those of the longest rows."""
    shape = PairShape(batch_tokens=run.data.batch_tokens, multiple=rows_multiple(run, mesh))
    return run.batch_size if run.data.batch_tokens is None else int(rows_per_batch(sum(row_tokens(run)), shape))


def blank_batch(run: Run, rows: int, length: int) -> dict[str, np.ndarray]:
    """Arrays [rows, length, ...] of a task's micro-batch; of pairs those of the target side have a length of their own."""
    task = task_named(run.task)
    length = row_data(run).sequence_length if hasattr(task, "row_length") else length
    ids, weights = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.float32)
    if task.RECORDS:
        named = {"tokens": ids, "segments": ids, "groups": ids}
        named |= {"token_types": ids} if getattr(run.model, "type_vocab_size", 0) > 1 else {}
        return named | _columns(run, task, (rows, row_tokens(run)[1] or length)) | _candidates(run, rows)
    made = {"tokens": ids, "targets": ids, "weights": weights}
    pairs = Kind(getattr(task, "ROWS", run.task)).pairs
    made |= {"segments": ids} if pairs or run.data.packing == "documents" else {}
    made |= {"token_types": ids, "labels": np.zeros(rows, np.int32)} if pairs else {}
    return task.features(made, _vocabulary(run.model.vocab_size), np.zeros(rows, np.uint64), run)


def _candidates(run: Run, rows: int) -> dict[str, np.ndarray]:
    """Of minimum risk: what `training/risk.py` puts beside the pairs; nothing without it."""
    if run.risk.reward is None:
        return {}
    shape = (rows, run.risk.candidates + 1, row_tokens(run)[1])
    one = np.zeros(shape[:2], np.float32)
    return {"candidates": np.zeros(shape, np.int32), "candidate_weights": np.zeros(shape, np.float32), "kept": one, "rewards": one}


def _columns(run: Run, task: Any, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    columns = task.columns(run.records) if hasattr(task, "columns") else {name: ((), kind) for name, kind in task.COLUMNS.items()}
    return {name: np.zeros((*shape, *more), kind) for name, (more, kind) in columns.items()}


def _vocabulary(size: int) -> Vocabulary:
    none, every = np.zeros(size, bool), np.arange(size, dtype=np.int32)
    return Vocabulary(0, 0, 0, none, every, none, eos_id=0, unk_id=0, sentinels=tuple(every.tolist()), ends=none)
