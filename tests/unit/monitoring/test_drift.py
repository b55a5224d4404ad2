"""The binned distances against scipy's, and when they mean anything."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from modelyard.monitoring import drift

cell = st.integers(20, 10_000)  # so that no ratio is below EPSILON
counts = st.lists(cell, min_size=2, max_size=12)
pairs = counts.flatmap(lambda a: st.tuples(st.just(a), st.lists(cell, min_size=len(a), max_size=len(a))))


@given(pairs)
def test_scores_are_scipys(pair):
    before, now = pair
    q, p = np.array(before) / sum(before), np.array(now) / sum(now)
    places = np.arange(len(q))
    assert drift.psi(before, now) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), abs=1e-9)
    assert drift.jensen_shannon(before, now) == pytest.approx(distance.jensenshannon(p, q, base=2), abs=1e-7)
    assert drift.kolmogorov_smirnov(before, now) == pytest.approx(np.abs(np.cumsum(p - q)).max(), abs=1e-9)
    earth = stats.wasserstein_distance(places, places, p, q) / (len(q) - 1)
    assert drift.wasserstein(before, now) == pytest.approx(earth, abs=1e-9)
    expected = stats.chi2_contingency([before, now], correction=False)
    statistic, p_value = drift.chi_squared(before, now)
    assert statistic == pytest.approx(expected.statistic, rel=1e-6, abs=1e-9)
    assert p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


@given(pairs)
def test_scores_are_zero_for_equals_and_bounded(pair):
    before, now = pair
    for name, test in drift.TESTS.items():
        assert test(before, before) == pytest.approx(0, abs=1e-7), name
        if name != "psi":
            assert 0 <= test(before, now) <= 1 + 1e-12, name


@pytest.mark.parametrize(
    "name", ["psi", "jensen-shannon", "jensenShannon", "kolmogorov-smirnov", "chi-squared", "wasserstein"]
)
def test_every_name_of_the_api_is_known(name):
    assert drift.score(name, [1, 1], [1, 3]) > 0


def test_an_unknown_test_is_named():
    with pytest.raises(ValueError, match="anderson"):
        drift.score("anderson", [1, 1], [1, 1])


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ({"0": 50, "1": 50}, "hold"),
        ({}, "hold"),
        ({"0": 500, "1": 500}, "ok"),
        ({"0": 950, "1": 50}, "drifted"),
        ({"0": 500, "1": 100, "new": 400}, "drifted"),
    ],
)
def test_verdicts(now, verdict):
    judged = drift.judge("f", {"0": 0.5, "1": 0.5}, now, limit=0.2)
    assert judged.verdict == verdict
    assert (judged.score is None) == (verdict == "hold")


def test_a_high_score_by_chance_is_no_drift():
    """Many buckets, few values, no limit to speak of: chance alone explains it."""
    reference = {str(i): 1 / 100 for i in range(100)}
    now = {str(i): 2 + i % 2 for i in range(100)}
    judged = drift.judge("f", reference, now, limit=0.01)
    assert judged.score > 0.01
    assert judged.verdict == "ok"


def test_retraining_respects_the_cooldown():
    now = datetime(2013, 11, 20, tzinfo=UTC)
    scores = [drift.FeatureDrift("temp", "drifted", 9.0, 8.0, 500), drift.FeatureDrift("hour", "ok", 0.0, 0.2, 500)]
    six = timedelta(hours=6)
    assert drift.decide_retrain(scores, six, None, now) == drift.Retrain(True, "drift in temp", ("temp",))
    assert not drift.decide_retrain(scores, six, now - timedelta(hours=5), now).start
    assert drift.decide_retrain(scores, six, now - six, now).start
    assert not drift.decide_retrain(scores[1:], six, None, now).start
