"""Several predictions of one example, by dropout or by several models, as one; and what they disagree about.

A task says by `decisions` what classes it chooses between, and by `decided` how log-probabilities of these are an output again.
Read first: `explain/calibration.py`. Read next: `finished.py`.
"""

from typing import Any

import numpy as np

from jaxlm.config import Records
from jaxlm.evaluation import Outputs
from jaxlm.explain import calibration

Row = dict[str, Any]


def pooled(samples: list[Outputs], rows: list[Row], task: Any, options: Records) -> Outputs:
    """One output an example: the mean probability of what is decided, as logits; of scores and numbers (answers' places) the mean."""
    if len(samples) == 1:
        return samples[0]
    tiny = np.finfo(np.float64).tiny
    found = []
    for row, group in zip(rows, zip(*samples, strict=True), strict=True):
        mean = np.mean(group, axis=0)
        made = [decide(task, output, row, options) for output in group]
        if made[0] is not None:
            shares = np.mean([calibration.to_probabilities(logits) for logits, _ in made], axis=0)
            mean = task.decided(mean, row, np.log(np.maximum(shares, tiny)), options)
        found.append(mean)
    return found


def decide(task: Any, output: np.ndarray, row: Row, options: Records) -> tuple[np.ndarray, np.ndarray] | None:
    """The task's `decisions`; None where it has no classes."""
    return task.decisions(output, row, options) if hasattr(task, "decisions") else None


def all_decisions(samples: list[Outputs], rows: list[Row], task: Any, options: Records) -> tuple[np.ndarray, np.ndarray] | None:
    """Logits [K, U, C] and right classes [U] (-1: not known) of all examples; choices that an example lacks have no chance."""
    made = [[decide(task, output, row, options) for output, row in zip(outputs, rows, strict=True)] for outputs in samples]
    if made[0][0] is None:
        return None
    width = max(logits.shape[-1] for logits, _ in made[0])
    wide = lambda logits: np.pad(logits, ((0, 0), (0, width - logits.shape[-1])), constant_values=-1e9)
    return np.stack([np.concatenate([wide(logits) for logits, _ in one]) for one in made]), np.concatenate(
        [labels for _, labels in made[0]]
    )


def with_uncertainty(predictions: list[Row], samples: list[Outputs], rows: list[Row], task: Any, options: Records) -> list[Row]:
    """What is uncertain about each record, in nats: the sums over what is decided in it. Spans and numbers stay as they are."""
    found = []
    for prediction, row, group in zip(predictions, rows, zip(*samples, strict=True), strict=False):
        made = [decide(task, output, row, options) for output in group]
        if made[0] is None:
            return predictions
        shares = calibration.to_probabilities(np.stack([logits for logits, _ in made]))
        more = {"entropy": calibration.predictive_entropy(shares), "mutual_information": calibration.mutual_information(shares)}
        found.append({**prediction, **{name: float(values.sum()) for name, values in more.items()}})
    return found
