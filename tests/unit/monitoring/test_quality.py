"""Quality against scikit-learn, and the bootstrap by day."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from modelyard.monitoring import quality


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=80))
def test_metrics_are_scikit_learns(rows):
    labels = np.array([label for label, _ in rows])
    scores = np.array([score / 10 for _, score in rows])
    assert quality.brier(labels, scores) == pytest.approx(np.mean((scores - labels) ** 2))
    if len(set(labels)) == 2:
        assert quality.roc_auc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))
        inside = np.clip(scores, 0.01, 0.99)
        assert quality.log_loss(labels, inside) == pytest.approx(metrics.log_loss(labels, inside))
    else:
        assert np.isnan(quality.roc_auc(labels, scores))


def made(rows=6000, days=30, noise=1.0):
    rng = np.random.default_rng(3)
    day = rng.integers(0, days, rows)
    weather = rng.normal(0, 1, days)[day]
    labels = rng.random(rows) < 1 / (1 + np.exp(-weather - rng.normal(0, noise, rows)))
    return rng, day, weather, labels


def test_a_better_model_is_found_better():
    rng, day, weather, labels = made()
    gain = quality.auc_gain(labels, weather, rng.random(len(day)), day, replicates=300)
    assert gain.better
    assert gain.lower < gain.gain < gain.upper
    assert gain.days == 30


def test_an_equal_model_is_not_better_and_the_seed_decides():
    _, day, weather, labels = made()
    first, second = (quality.auc_gain(labels, weather, weather, day, replicates=200, seed=5) for _ in range(2))
    assert first == second
    assert not first.better


def test_days_are_resampled_whole():
    """A signal that is constant within days is far less certain than its rows would make believe."""
    _, day, weather, labels = made(days=12)
    by_day = quality.auc_gain(labels, weather, np.zeros(len(day)), day, replicates=300)
    by_row = quality.auc_gain(labels, weather, np.zeros(len(day)), np.arange(len(day)), replicates=300)
    assert by_day.upper - by_day.lower > 2 * (by_row.upper - by_row.lower)


def test_one_day_decides_nothing():
    _, day, weather, labels = made()
    assert not quality.auc_gain(labels, weather, np.zeros(len(day)), np.zeros(len(day), int)).better
