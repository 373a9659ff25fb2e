"""Scores of predictions: accuracy, F1, the correlations of Matthews, Pearson and Spearman. NumPy, float64, exact.

Of finite values they are finite: where a score is 0 / 0 (no examples, one class only, a constant) it is 0.0, without a warning.
scikit-learn gives 0.0 there too, SciPy NaN. Read next: `entities.py`.
"""

import numpy as np
from jaxtyping import Float, Int

from jaxlm.overrides import choose


def accuracy(labels: Int[np.ndarray, "N"] | Int[np.ndarray, "N C"], predicted: Int[np.ndarray, "..."]) -> float:
    """Share of the examples that are predicted right; of [N, C] flags, several labels at once, the share whose flags are all right.

    >>> accuracy([2, 0, 1, 1], [2, 0, 0, 1])
    0.75
    """
    labels, predicted = _alike(labels, predicted)
    right = labels == predicted
    return ratio((right if right.ndim == 1 else right.all(1)).sum(), len(labels))


def f1(labels: Int[np.ndarray, "N"] | Int[np.ndarray, "N C"], predicted: Int[np.ndarray, "..."], average: str = "macro") -> float:
    """F1, the harmonic mean of precision and recall: 2 hits / (predicted + true).

    Args:
      labels: ids [N], or flags [N, C], several labels at once.
      average: "macro", the mean over the classes that are true or predicted somewhere (flags: over all C); "micro", hits summed over the
        classes (of ids it equals the accuracy); "binary", class 1 of ids 0 and 1.

    Raises ConfigError for another average, ValueError for flags with "binary".

    >>> f1([1, 1, 0, 0], [1, 0, 0, 0], "binary")
    0.6666666666666666
    """
    labels, predicted = _alike(labels, predicted)
    choose("average", average, ("macro", "micro", "binary"))
    if labels.ndim == 1:
        classes = np.array([1]) if average == "binary" else np.union1d(labels, predicted)
        labels, predicted = labels[:, None] == classes, predicted[:, None] == classes
    elif average == "binary":
        raise ValueError("binary F1 takes ids [N] of two classes, not flags [N, C]: use macro or micro")
    hits, count = (labels * predicted).sum(0), labels.sum(0) + predicted.sum(0)
    if average == "micro":
        hits, count = hits.sum(keepdims=True), count.sum(keepdims=True)
    return ratio(sum(ratio(2 * h, c) for h, c in zip(hits, count, strict=True)), len(hits))


def matthews(labels: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"]) -> float:
    """Matthews' correlation of two or more classes (Gorodkin 2004), -1 to 1; 0.0 where either side has one class only."""
    labels, predicted = _alike(labels, predicted)
    classes = np.union1d(labels, predicted)
    true, guessed = ((x[:, None] == classes).sum(0).astype(np.float64) for x in (labels, predicted))
    n, hits = len(labels), (labels == predicted).sum()
    spread = [n**2 - (x**2).sum() for x in (true, guessed)]
    found = ratio(hits * n - true @ guessed, np.sqrt(spread[0]) * np.sqrt(spread[1]))
    return float(np.clip(found, -1, 1))


def pearson(values: Float[np.ndarray, "N"], predicted: Float[np.ndarray, "N"]) -> float:
    """Pearson's linear correlation, -1 to 1; 0.0 where either side is constant."""
    values, predicted = _alike(values, predicted)
    return float(np.clip(_standard(values) @ _standard(predicted), -1, 1))


def spearman(values: Float[np.ndarray, "N"], predicted: Float[np.ndarray, "N"]) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs; 0.0 where either side is constant.

    >>> spearman([1.0, 2.0, 3.0], [10.0, 100.0, 1000.0])
    1.0
    """
    values, predicted = _alike(values, predicted)
    return pearson(_ranks(values), _ranks(predicted))


def ratio(part: float, whole: float) -> float:
    """part / whole, and 0.0 of nothing."""
    return float(part / whole) if whole else 0.0


def _alike(labels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape:
        raise ValueError(f"labels have shape {labels.shape}, predictions {predicted.shape}: give one prediction a label")
    return labels, predicted


def _standard(x: np.ndarray) -> np.ndarray:
    """Centred and of length 1; zeros if constant."""
    if not len(x) or x.min() == x.max():  # asked of the values: a mean of equal floats may differ from them in the last place
        return np.zeros(len(x))
    x = x.astype(np.float64)
    x = x / np.abs(x).max()  # huge values would overflow in the square
    x = x - x.mean()
    return x / np.linalg.norm(x)


def _ranks(x: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]
