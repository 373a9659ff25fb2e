"""How sure a score is, and whether one system is better than another: scores of texts drawn again and again (Koehn 2004).

Read first: `text_scores.py`.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from jaxlm.errors import DataError
from jaxlm.tasks.text_scores import Score

SAMPLES, SEED = 1000, 12345  # sacrebleu's


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of two systems over the same texts.

    Attributes:
      difference: score of the first - score of the second, in percent.
      wins: share of the resamples in which the first is better (Koehn 2004, section 4).
      p_value: how likely a difference as large would be if both were equally good, as sacrebleu counts it.
    """

    difference: float
    wins: float
    p_value: float


def resampled(score: Score, samples: int = SAMPLES, seed: int = SEED) -> Float[np.ndarray, "samples"]:
    """The score of `samples` corpora, each of as many texts drawn with replacement; one seed draws the same texts of every score."""
    generator, count = np.random.default_rng(seed), len(score.counts)
    return np.array([score.value(score.counts[generator.choice(count, count)].sum(0)) for _ in range(samples)])


def interval(score: Score, samples: int = SAMPLES, seed: int = SEED, level: float = 0.95) -> tuple[float, float]:
    """Between which values the score of other texts of the kind lies, in 95 of 100 cases."""
    low, high = np.quantile(resampled(score, samples, seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired(one: Score, other: Score, samples: int = SAMPLES, seed: int = SEED) -> Comparison:
    """Compare two systems by the same draws of texts. Raises DataError where they are not of the same number of texts."""
    if len(one.counts) != len(other.counts):
        raise DataError(f"{len(one.counts)} texts against {len(other.counts)}: a paired test needs the same ones on both sides")
    ours, theirs = resampled(one, samples, seed), resampled(other, samples, seed)
    wins = (ours < theirs) if one.less_is_better else (ours > theirs)
    difference, apart = one.corpus - other.corpus, np.abs(ours - theirs)
    beyond = int((apart - apart.mean() > abs(difference)).sum())
    return Comparison(difference, float(wins.mean()), (beyond + 1) / (samples + 1))
