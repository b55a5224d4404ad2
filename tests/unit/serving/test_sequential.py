"""The sequential tests: what they promise, by simulation with fixed seeds."""

import math
from random import Random

import numpy
import pytest

from modelyard.serving.sequential import (
    Counts,
    log_e_above,
    log_e_increase,
    log_e_strata,
    log_threshold,
)

ALPHA = 0.05
THRESHOLD = log_threshold(1 - ALPHA, 1)
RUNS, LOOKS, PER_LOOK = 400, 60, 50


def _rejections(rate, limit, dispersion=1.0, burst=1):
    generator = numpy.random.default_rng(7)
    bad = numpy.cumsum(generator.binomial(PER_LOOK // burst, rate, (RUNS, LOOKS)) * burst, axis=1)
    return (
        sum(
            any(
                log_e_above(Counts(b, PER_LOOK * (i + 1)), limit, dispersion) >= THRESHOLD
                for i, b in enumerate(row.tolist())
            )
            for row in bad
        )
        / RUNS
    )


@pytest.mark.parametrize("limit", [0.001, 0.01, 0.05, 0.5])
def test_a_fine_candidate_is_rarely_rejected_however_often_one_looks(limit):
    assert _rejections(limit, limit) <= ALPHA


def test_a_bad_candidate_is_found():
    assert _rejections(0.03, 0.01) >= 0.95
    assert _rejections(0.02, 0.01) >= 0.6


def test_bursts_need_the_dispersion():
    assert _rejections(0.01, 0.01, dispersion=5, burst=5) <= ALPHA


def _compared(candidate_rate, stable_rate, increase, share=0.05):
    generator = numpy.random.default_rng(11)
    ours, theirs = round(200 * share), round(200 * (1 - share))
    found = 0
    for _ in range(RUNS):
        c = numpy.cumsum(generator.binomial(ours, candidate_rate, LOOKS)).tolist()
        s = numpy.cumsum(generator.binomial(theirs, stable_rate, LOOKS)).tolist()
        found += any(
            log_e_increase(Counts(c[i], ours * (i + 1)), Counts(s[i], theirs * (i + 1)), increase)
            >= THRESHOLD
            for i in range(LOOKS)
        )
    return found / RUNS


@pytest.mark.parametrize(("stable", "increase"), [(0.01, 0.0), (0.01, 0.005), (0.2, 0.01)])
def test_a_candidate_at_the_allowed_increase_is_rarely_rejected(stable, increase):
    assert _compared(stable + increase, stable, increase, share=0.25) <= ALPHA


def test_a_candidate_that_is_worse_than_stable_is_found():
    assert _compared(0.06, 0.01, 0.005, share=0.25) >= 0.95


def test_strata_keep_a_drifting_base_rate_from_blaming_the_candidate():
    """Errors of both rise tenfold while the candidate's share grows: pooled it is damned, by strata not."""
    generator = Random(3)

    def draw(rate, total):
        return Counts(sum(generator.random() < rate for _ in range(total)), total)

    quiet = draw(0.005, 500), draw(0.005, 9500)
    noisy = draw(0.05, 5000), draw(0.05, 5000)
    pooled = log_e_increase(quiet[0] + noisy[0], quiet[1] + noisy[1], 0.0)
    strata = log_e_strata([log_e_increase(*quiet, 0.0), log_e_increase(*noisy, 0.0)], 4)
    assert pooled > THRESHOLD > strata


def test_the_expectation_of_the_e_value_is_at_most_one():
    """Exactly, by enumeration of every outcome of small samples."""
    for limit in (0.05, 0.3):
        total = 20
        mean = sum(
            math.comb(total, k)
            * limit**k
            * (1 - limit) ** (total - k)
            * math.exp(log_e_above(Counts(k, total), limit))
            for k in range(total + 1)
        )
        assert mean <= 1 + 1e-9
    n, m, p, q = 12, 15, 0.3, 0.2
    mean = sum(
        math.comb(n, i)
        * p**i
        * (1 - p) ** (n - i)
        * math.comb(m, j)
        * q**j
        * (1 - q) ** (m - j)
        * math.exp(log_e_increase(Counts(i, n), Counts(j, m), 0.1))
        for i in range(n + 1)
        for j in range(m + 1)
    )
    assert mean <= 1 + 1e-9


def test_edges():
    assert log_e_above(Counts(), 0.01) == 0
    assert log_e_above(Counts(1, 10), 0) == math.inf
    assert log_e_above(Counts(0, 10), 0) == 0
    assert log_e_above(Counts(10, 10), 1) == 0
    assert log_e_increase(Counts(10, 10), Counts(0, 10), 0) > 0
    assert log_e_increase(Counts(5, 10), Counts(), 0) == 0
    assert log_e_strata([], 3) == pytest.approx(0)
    assert log_threshold(1, 3) == math.inf
    with pytest.raises(ValueError, match="bad of"):
        Counts(2, 1)
