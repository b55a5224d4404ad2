"""Drift between two sets of bucket counts, and when it is reason to retrain.

Counts are what Prometheus can add up over replicas and time, so every test here is the *binned* form of a known one.
All scores grow with the difference and are 0 for equal shapes:

=================  ==================================================================================
``psi``            population stability index, Σ (p−q) ln(p/q) (Siddiqi, Credit Risk Scorecards, 2006)
``jensen-shannon`` Jensen-Shannon *distance*: the root of the divergence to base 2, in 0..1 (Lin 1991)
``ks``             Kolmogorov-Smirnov: the greatest difference of the cumulated ratios, in 0..1
``chi-squared``    Cramér's V of the two rows of counts, in 0..1 (1946); its p-value is Pearson's
``wasserstein``    earth mover's distance with buckets one apart, over the greatest possible, in 0..1
=================  ==================================================================================

With a million requests everything is significant, and with fifty nothing is: so a verdict asks for both, a score above
its limit *and* counts that chance does not explain.  Too few counts are neither drift nor its absence: ``hold``.

Standard library only: the operator imports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Counts = Sequence[float]
Verdict = Literal["drifted", "ok", "hold"]

#: An empty bucket counts as this ratio in logarithms, or one value in a new bucket would be infinitely far.
EPSILON = 1e-4
#: Fewer values than this decide nothing.
MIN_COUNT = 200
#: A score above its limit counts only if chance explains it with less than this probability.
SIGNIFICANCE = 0.01


def ratios(counts: Counts) -> list[float]:
    """Counts (or ratios) as ratios that sum to 1."""
    total = sum(counts)
    if total <= 0:
        raise ValueError("no counts")
    return [count / total for count in counts]


def psi(reference: Counts, current: Counts) -> float:
    """Population stability index, Σ (p−q) ln(p/q), with empty buckets at ``EPSILON``."""
    score = 0.0
    for q, p in _pairs(reference, current):
        q, p = max(q, EPSILON), max(p, EPSILON)
        score += (p - q) * math.log(p / q)
    return score


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """Jensen-Shannon distance, √(½ KL(p‖m) + ½ KL(q‖m)) with m the mean of both, to base 2."""
    divergence = 0.0
    for q, p in _pairs(reference, current):
        m = (p + q) / 2
        divergence += (p * math.log2(p / m) if p else 0.0) / 2 + (q * math.log2(q / m) if q else 0.0) / 2
    return math.sqrt(max(divergence, 0.0))


def kolmogorov_smirnov(reference: Counts, current: Counts) -> float:
    """The greatest difference of the cumulated ratios; buckets are in order."""
    greatest = gap = 0.0
    for q, p in _pairs(reference, current):
        gap += p - q
        greatest = max(greatest, abs(gap))
    return greatest


def wasserstein(reference: Counts, current: Counts) -> float:
    """Σ |cumulated difference| over the greatest possible: how far, in bucket widths, mass has moved."""
    pairs = _pairs(reference, current)
    if len(pairs) < 2:
        return 0.0
    work = gap = 0.0
    for q, p in pairs:
        gap += p - q
        work += abs(gap)
    return work / (len(pairs) - 1)


def chi_squared(reference: Counts, current: Counts) -> tuple[float, float]:
    """Pearson's statistic of the 2 by k table of counts, and its p-value; columns without any count are left out."""
    columns = [(r, c) for r, c in zip(reference, current, strict=True) if r + c > 0]
    rows, observed = sum(r for r, _ in columns), sum(c for _, c in columns)
    if len(columns) < 2 or rows <= 0 or observed <= 0:
        return 0.0, 1.0
    total = rows + observed
    statistic = 0.0
    for r, c in columns:
        for cell, row in ((r, rows), (c, observed)):
            expected = (r + c) * row / total
            statistic += (cell - expected) ** 2 / expected
    return statistic, chi_squared_tail(statistic, len(columns) - 1)


def cramers_v(reference: Counts, current: Counts) -> float:
    """Cramér's V, √(χ²/n) for two rows, both weighted alike so that the reference's size does not matter."""
    statistic, _ = chi_squared(ratios(reference), ratios(current))
    return math.sqrt(statistic / 2)


def chi_squared_tail(statistic: float, degrees: int) -> float:
    """P(χ² ≥ statistic): the regularised upper incomplete gamma function (Numerical Recipes, 6.2)."""
    a, x = degrees / 2, statistic / 2
    if x <= 0:
        return 1.0
    scale = math.exp(-x + a * math.log(x) - math.lgamma(a)) if x < 1e5 else 0.0
    if x < a + 1:  # the series converges quickly here
        term = total = 1 / a
        n = a
        while abs(term) > abs(total) * 1e-15:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1 - total * scale)
    b, c = x + 1 - a, 1e300  # and Lentz's continued fraction here
    d = 1 / b
    h = d
    for i in range(1, 10_000):
        step = -i * (i - a)
        b += 2
        d = 1 / ((step * d + b) or 1e-300)
        c = (b + step / c) or 1e-300
        h *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return scale * h


TESTS: Mapping[str, Callable[[Counts, Counts], float]] = {
    "psi": psi,
    "jensen-shannon": jensen_shannon,
    "ks": kolmogorov_smirnov,
    "chi-squared": cramers_v,
    "wasserstein": wasserstein,
}
_ALIASES = {
    "jensenshannon": "jensen-shannon",
    "js": "jensen-shannon",
    "kolmogorovsmirnov": "ks",
    "chisquared": "chi-squared",
    "chi2": "chi-squared",
}


def score(test: str, reference: Counts, current: Counts) -> float:
    """The score of a test by name, however it is spelt (``jensenShannon``, ``jensen-shannon``)."""
    plain = test.lower().replace("-", "").replace("_", "")
    name = _ALIASES.get(plain, plain)
    if name not in TESTS:
        raise ValueError(f"there is no drift test {test!r}; there are {', '.join(TESTS)}")
    return TESTS[name](reference, current)


@dataclass(frozen=True)
class FeatureDrift:
    """What one feature's counts say."""

    feature: str
    verdict: Verdict
    score: float | None
    limit: float
    count: float
    p_value: float | None = None


def judge(
    feature: str,
    reference: Mapping[str, float],
    current: Mapping[str, float],
    *,
    limit: float,
    test: str = "psi",
    min_count: int = MIN_COUNT,
    reference_rows: float = 1e6,
) -> FeatureDrift:
    """The verdict on one feature, from the reference's ratios and the counts of now, both by bucket.

    ``reference_rows`` turns the reference's ratios into counts for the test of significance.
    """
    buckets = [*reference, *sorted(set(current) - set(reference))]
    before = [max(reference.get(bucket, 0.0), 0.0) for bucket in buckets]
    now = [max(current.get(bucket, 0.0), 0.0) for bucket in buckets]
    count = sum(now)
    if count < min_count or sum(before) <= 0:
        return FeatureDrift(feature, "hold", None, limit, count)
    value = score(test, before, now)
    _, p_value = chi_squared([ratio * reference_rows for ratio in before], now)
    drifted = value > limit and p_value < SIGNIFICANCE
    return FeatureDrift(feature, "drifted" if drifted else "ok", value, limit, count, p_value)


@dataclass(frozen=True)
class Retrain:
    """Whether to start a retraining, and why or why not."""

    start: bool
    reason: str
    features: tuple[str, ...] = ()


def decide_retrain(
    scores: Sequence[FeatureDrift], cooldown: timedelta, last: datetime | None, now: datetime
) -> Retrain:
    """Retrain when any feature has drifted, unless one retraining was started less than a cool-down ago.

    ``now`` and ``last`` are on the same clock: event time where that is allowed, else wall time.
    """
    drifted = tuple(sorted(item.feature for item in scores if item.verdict == "drifted"))
    if not drifted:
        held = sum(item.verdict == "hold" for item in scores)
        return Retrain(False, f"no drift; {held} of {len(scores)} features have too few values")
    if last is not None and now - last < cooldown:
        return Retrain(False, f"drift, but a retraining was started at {last.isoformat()}", drifted)
    return Retrain(True, f"drift in {', '.join(drifted)}", drifted)


def _pairs(reference: Counts, current: Counts) -> list[tuple[float, float]]:
    """(reference, current) ratios, bucket by bucket."""
    if len(reference) != len(current):
        raise ValueError(f"{len(reference)} reference buckets, {len(current)} current ones")
    return list(zip(ratios(reference), ratios(current), strict=True))
