"""Probabilities to trust: how far off they are, the temperature that mends them, and what several samples of them disagree about.

Shapes: K samples, N examples, C classes; NumPy in float64, entropies and losses in nats. Of one or several yes-or-no labels, give
[1 - p, p] for each of them. Read next: `../tasks/scores.py`.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from jaxlm.errors import DataError

COLDEST, HOTTEST = 0.01, 100.0  # temperatures that are looked at
WIDTH = 40  # characters of a drawing's bars


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Examples in bins of equal width by the probability of their likeliest class: bin m of M holds those in ((m - 1) / M, m / M].

    Attributes:
      count: examples a bin.
      confidence: mean probability of the likeliest class a bin; 0.0 in an empty bin.
      accuracy: share whose likeliest class is right a bin; 0.0 in an empty bin.
    """

    count: Int[np.ndarray, "M"]
    confidence: Float[np.ndarray, "M"]
    accuracy: Float[np.ndarray, "M"]

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1 (Guo et al. 2017, equation 3): the mean gap between confidence and accuracy."""
        return float(np.abs(self.accuracy - self.confidence) @ self.count / self.count.sum())


def reliability(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"], bins: int = 15) -> Reliability:
    """The reliability bins of predictions (Guo et al. 2017, section 2). Raises DataError where there are no examples, or labels outside."""
    probabilities, labels = _checked(probabilities, labels)
    top = probabilities.max(1)
    which = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], top, side="left")
    total = lambda values: np.bincount(which, values, minlength=bins)
    count = np.bincount(which, minlength=bins)
    each = np.maximum(count, 1)
    return Reliability(count, total(top) / each, total(probabilities.argmax(1) == labels) / each)


def expected_calibration_error(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"], bins: int = 15) -> float:
    """How far confidence and accuracy lie apart, 0 to 1, over bins of equal width (Guo et al. 2017, equation 3).

    >>> expected_calibration_error([[0.9, 0.1], [0.9, 0.1]], [0, 1], bins=10)
    0.4
    """
    return reliability(probabilities, labels, bins).error


def draw(found: Reliability) -> str:
    """The bins that hold examples as lines of text: `=` reaches as far as the accuracy, `|` stands at the confidence.

    >>> print(draw(reliability([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], [0, 1, 0], bins=2)))
    confidence    examples  mean   right
    0.500-1.000          3  0.800  0.667  ===========================     |
    """
    edges = np.linspace(0, 1, len(found.count) + 1)
    lines = ["confidence    examples  mean   right"]
    for m in np.flatnonzero(found.count):
        bar = list(("=" * round(WIDTH * found.accuracy[m])).ljust(WIDTH + 1))
        bar[round(WIDTH * found.confidence[m])] = "|"
        figures = f"{found.count[m]:10d}  {found.confidence[m]:.3f}  {found.accuracy[m]:.3f}"
        lines.append(f"{edges[m]:.3f}-{edges[m + 1]:.3f} {figures}  {''.join(bar).rstrip()}")
    return "\n".join(lines)


def brier(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"]) -> float:
    """Brier's score, 0 to 2, less is better: the mean over examples of sum_c (p_c - [c is right])^2 (Brier 1950).

    >>> round(brier([[0.8, 0.2], [0.5, 0.5]], [0, 1]), 4)
    0.29
    """
    probabilities, labels = _checked(probabilities, labels)
    right = np.arange(probabilities.shape[1]) == labels[:, None]
    return float(((probabilities - right) ** 2).sum(1).mean())


def negative_log_likelihood(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"]) -> float:
    """Mean of -log p of the right class, in nats; a probability of 0 counts as the smallest float (708 nats), so that it stays finite."""
    probabilities, labels = _checked(probabilities, labels)
    picked = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(picked, np.finfo(np.float64).tiny)).mean())


def to_probabilities(logits: Float[np.ndarray, "... C"], temperature: float = 1.0) -> Float[np.ndarray, "... C"]:
    """softmax(logits / temperature): above 1 less sure, below 1 surer; the likeliest class stays."""
    return np.exp(_log_softmax(np.asarray(logits, np.float64) / temperature))


def fit_temperature(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"]) -> float:
    """The temperature, 0.01 to 100, whose probabilities have the least negative log-likelihood (Guo et al. 2017, section 4.2).

    Fit it on examples that were not trained on. The loss is convex in 1 / temperature, so that it has one minimum. It is 1.0 where the
    examples tell nothing: all logits are equal, or all examples right, which any lower temperature would only make surer.

    Raises DataError where there are no examples, labels outside, or logits that are not finite.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = _checked(logits, labels)
    if (logits.argmax(1) == labels).all():
        return 1.0
    rows = np.arange(len(labels))
    loss = lambda log_t: -_log_softmax(logits / np.exp(log_t))[rows, labels].mean()
    best = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(best.x)) if best.fun < loss(0.0) else 1.0


def mean_probabilities(samples: Float[np.ndarray, "K N C"]) -> Float[np.ndarray, "N C"]:
    """The prediction of several dropouts (Gal & Ghahramani 2016, equation 6) or models (Lakshminarayanan et al. 2017, section 2.4)."""
    return np.asarray(samples, np.float64).mean(0)


def predictive_entropy(samples: Float[np.ndarray, "K N C"]) -> Float[np.ndarray, "N"]:
    """H[mean_k p_k], 0 to log C nats: all that is uncertain about each example, in the data or the model."""
    return _entropy(mean_probabilities(samples))


def mutual_information(samples: Float[np.ndarray, "K N C"]) -> Float[np.ndarray, "N"]:
    """H[mean_k p_k] - mean_k H[p_k] in nats, 0 where all samples agree (BALD: Houlsby et al. 2011, equation 2).

    What more training examples could tell the model; the rest of `predictive_entropy` is in the data.
    """
    samples = np.asarray(samples, np.float64)
    return np.maximum(predictive_entropy(samples) - _entropy(samples).mean(0), 0)  # rounding may leave less than 0


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(probabilities * np.log(np.where(probabilities > 0, probabilities, 1))).sum(-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _checked(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, labels = np.asarray(values, np.float64), np.asarray(labels)
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise ValueError(f"values of shape {values.shape} with labels of {labels.shape}: give [N, C] and [N]")
    if not len(labels):
        raise DataError("there are no labelled examples to measure probabilities by: give some")
    if not np.isfinite(values).all():
        raise DataError("some logits or probabilities are not finite: the model has diverged, use an earlier checkpoint")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise DataError(
            f"labels are {labels.min()} to {labels.max()}, but there are {values.shape[1]} classes: evaluate with the run's labels"
        )
    return values, labels
