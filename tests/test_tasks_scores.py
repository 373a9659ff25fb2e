"""Scores beside scikit-learn's and SciPy's on random predictions, and what they are where there is nothing to divide by."""

import numpy as np
import pytest

from jaxlm.errors import ConfigError
from jaxlm.tasks.scores import accuracy, f1, matthews, pearson, spearman

metrics = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")


def cases(count=60):
    """Labels and predictions [N] of 2 to 6 classes, partly right; some classes never true, others never predicted."""
    random = np.random.default_rng(0)
    for _ in range(count):
        classes, n = random.integers(2, 7), random.integers(2, 60)
        labels = random.integers(0, classes, n)
        guesses = np.where(random.random(n) < 0.6, labels, random.integers(0, classes, n))
        yield labels * 3, guesses * 3  # ids need not be neighbours


def test_one_label_equals_sklearn():
    for labels, guesses in cases():
        assert accuracy(labels, guesses) == pytest.approx(metrics.accuracy_score(labels, guesses), abs=1e-12)
        assert matthews(labels, guesses) == pytest.approx(metrics.matthews_corrcoef(labels, guesses), abs=1e-12)
        for average in ("macro", "micro"):
            want = metrics.f1_score(labels, guesses, average=average, zero_division=0)
            assert f1(labels, guesses, average) == pytest.approx(want, abs=1e-12)


def test_binary_f1_is_of_class_one():
    for labels, guesses in cases():
        labels, guesses = labels > 3, guesses > 3
        assert f1(labels, guesses, "binary") == pytest.approx(metrics.f1_score(labels, guesses, zero_division=0), abs=1e-12)


def test_several_labels_equal_sklearn():
    random = np.random.default_rng(1)
    for _ in range(30):
        shape = random.integers(1, 20), random.integers(2, 6)
        labels, guesses = ((random.random(shape) < 0.4).astype(np.int32) for _ in range(2))
        guesses[:, 0], labels[:, 0] = 0, 0  # a label that nobody has counts in macro F1
        assert accuracy(labels, guesses) == pytest.approx(metrics.accuracy_score(labels, guesses), abs=1e-12)
        for average in ("macro", "micro"):
            want = metrics.f1_score(labels, guesses, average=average, zero_division=0)
            assert f1(labels, guesses, average) == pytest.approx(want, abs=1e-12)


def test_correlations_equal_scipy():
    random = np.random.default_rng(2)
    for n in (2, 3, 10, 200):
        for scale in (1.0, 1e-200, 1e200):
            x, noise = random.standard_normal((2, n)) * scale
            y = np.round(x / scale + noise / scale)  # with ties
            if np.ptp(y):
                assert pearson(x, y) == pytest.approx(stats.pearsonr(x / scale, y).statistic, abs=1e-10)
                assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-10)


def test_equal_values_share_their_mean_rank():
    assert spearman([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1])


def test_nothing_to_divide_by_is_zero():
    """pytest turns a warning into an error: there is none."""
    assert accuracy([], []) == f1([], []) == matthews([], []) == pearson([], []) == spearman([], []) == 0.0
    assert f1([0, 0], [0, 0], "binary") == 0.0 and f1([0, 0], [0, 0]) == 1.0
    assert matthews([1, 1, 1], [1, 1, 1]) == matthews([0, 1, 0], [1, 1, 1]) == 0.0
    assert pearson([0.1, 0.1, 0.1], [1, 2, 3]) == spearman([1, 2, 3], [0.3, 0.3, 0.3]) == pearson([1.0], [2.0]) == 0.0
    assert pearson([1e308, -1e308], [1.0, 2.0]) == pytest.approx(-1.0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one prediction a label"):
        accuracy(np.zeros(3), np.zeros((3, 1)))
    with pytest.raises(ConfigError, match="did you mean 'macro'"):
        f1([0], [0], "makro")
    with pytest.raises(ValueError, match="macro or micro"):
        f1(np.zeros((2, 2)), np.zeros((2, 2)), "binary")
