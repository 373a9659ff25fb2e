"""Calibration: cases by hand, scikit-learn's figures, a known temperature found again, and what samples disagree about."""

import numpy as np
import pytest

from jaxlm.errors import DataError
from jaxlm.explain.calibration import (
    brier,
    draw,
    expected_calibration_error,
    fit_temperature,
    mean_probabilities,
    mutual_information,
    negative_log_likelihood,
    predictive_entropy,
    reliability,
    to_probabilities,
)


def drawn(n=4000, classes=4, scale=2.0, seed=0):
    """Logits, and labels that are drawn from their softmax: calibrated."""
    random = np.random.default_rng(seed)
    logits = random.standard_normal((n, classes)) * scale
    gumbel = random.gumbel(size=logits.shape)
    return logits, (logits + gumbel).argmax(1)


def test_bins_by_hand():
    """Bins (0, 0.5] and (0.5, 1]: an edge belongs to the bin below it."""
    found = reliability([[0.5, 0.5], [0.6, 0.4], [0.1, 0.9], [1.0, 0.0]], [1, 0, 0, 0], bins=2)
    assert found.count.tolist() == [1, 3]
    np.testing.assert_allclose(found.confidence, [0.5, 2.5 / 3])
    np.testing.assert_allclose(found.accuracy, [0, 2 / 3])
    assert found.error == pytest.approx((0.5 + 0.5) / 4)
    assert reliability([[0.3, 0.3, 0.4]], [2], bins=10).count.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


def test_bins_equal_sklearn():
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    logits, labels = drawn(500)
    probabilities = to_probabilities(logits)
    found = reliability(probabilities, labels, bins=10)
    right, confidence = curve(probabilities.argmax(1) == labels, probabilities.max(1), n_bins=10)
    full = found.count > 0
    np.testing.assert_allclose(found.accuracy[full], right)
    np.testing.assert_allclose(found.confidence[full], confidence)
    assert found.count.sum() == 500
    gaps = np.abs(right - confidence) * found.count[full] / 500
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(gaps.sum())


def test_losses_equal_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    logits, labels = drawn(300)
    probabilities = to_probabilities(logits)
    assert brier(probabilities, labels) == pytest.approx(((probabilities - np.eye(4)[labels]) ** 2).sum(1).mean())
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(metrics.log_loss(labels, probabilities, labels=range(4)))
    two = probabilities[:, :2] / probabilities[:, :2].sum(1, keepdims=True)
    assert brier(two, labels % 2) == pytest.approx(2 * metrics.brier_score_loss(labels % 2, two[:, 1]))


def test_extremes_stay_finite():
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert negative_log_likelihood(sure, [1, 1]) == pytest.approx(708.4 / 2, abs=0.1)
    assert brier(sure, [0, 1]) == 0 and brier(sure, [1, 0]) == 2
    assert expected_calibration_error(sure, [0, 1]) == 0 and expected_calibration_error(sure, [1, 0]) == 1
    np.testing.assert_allclose(to_probabilities([[1e5, 0.0, -1e5]]), [[1, 0, 0]])


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_a_known_temperature_is_found_again(temperature):
    logits, labels = drawn()
    logits = logits * temperature
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    loss = lambda t: negative_log_likelihood(to_probabilities(logits, t), labels)
    assert loss(found) <= min(loss(found * 1.01), loss(found / 1.01), loss(temperature), loss(1.0))
    if temperature != 1:
        error = lambda t: expected_calibration_error(to_probabilities(logits, t), labels)
        assert error(found) < 0.03 < error(1.0)


def test_temperatures_without_a_minimum():
    assert fit_temperature(np.zeros((5, 3)), [0, 1, 2, 0, 1]) == 1.0
    assert fit_temperature([[2.0, 0.0], [0.0, 2.0]], [0, 1]) == 1.0  # always right
    assert fit_temperature([[2.0, 0.0], [0.0, 2.0]], [1, 0]) == pytest.approx(100, rel=0.01)  # always wrong


def test_what_samples_disagree_about():
    """Example 0: all say fifty-fifty, the data are uncertain. Example 1: sure samples of two minds, the model is. Example 2: nothing is."""
    samples = np.array([[[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]])
    np.testing.assert_allclose(mean_probabilities(samples), [[0.5, 0.5], [0.5, 0.5], [1, 0]])
    np.testing.assert_allclose(predictive_entropy(samples), [np.log(2), np.log(2), 0])
    np.testing.assert_allclose(mutual_information(samples), [0, np.log(2), 0], atol=1e-15)


def test_information_is_the_mean_divergence_from_the_mean():
    entropy = pytest.importorskip("scipy.stats").entropy
    samples = to_probabilities(np.random.default_rng(0).standard_normal((7, 20, 5)) * 2)
    mean = mean_probabilities(samples)
    np.testing.assert_allclose(mutual_information(samples), entropy(samples, mean[None], axis=-1).mean(0), rtol=1e-9)
    np.testing.assert_allclose(predictive_entropy(samples), entropy(mean, axis=-1), rtol=1e-9)
    assert (mutual_information(samples[[0, 0, 0]]) < 1e-15).all() and (mutual_information(samples[[0, 0, 0]]) >= 0).all()


def test_a_drawing_shows_the_gap():
    logits, labels = drawn(300)
    lines = draw(reliability(to_probabilities(logits, 0.2), labels, bins=5)).splitlines()
    assert lines[0].split() == ["confidence", "examples", "mean", "right"]
    assert lines[-1].startswith("0.800-1.000") and all(len(line) < 90 for line in lines)
    bar = lines[-1][36:]
    assert bar.strip("= ") == "|" and bar.rindex("=") < bar.index("|"), "too sure: the confidence stands beyond the bar"
    assert sum(int(line.split()[1]) for line in lines[1:]) == 300


def test_bad_values_are_one_line():
    with pytest.raises(DataError, match="no labelled examples"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, int))
    with pytest.raises(DataError, match="not finite"):
        fit_temperature([[np.nan, 0.0]], [0])
    with pytest.raises(DataError, match="labels are 2 to 2, but there are 2 classes"):
        brier([[0.5, 0.5]], [2])
    with pytest.raises(ValueError, match="give .N, C. and .N."):
        reliability([0.5, 0.5], [0, 1])
