"""Tests that may be looked at as often as one likes.

A rollout looks at its numbers every interval. A textbook test repeated at every look cries wolf sooner or
later, so verdicts rest on *e-processes*: numbers that start at 1, are never negative, and whose
expectation never exceeds 1 while the hypothesis "the candidate is fine" holds. By Ville's inequality the
chance that one *ever* reaches ``1 / alpha`` is then at most ``alpha``, however many looks are taken and
whatever decides when to stop.

One sample
    ``p <= limit``, from `bad` of `total` requests. A mixture of likelihood ratios ``(p1/limit)^bad
    ((1-p1)/(1-limit))^good`` over a fixed grid of alternatives ``p1 > limit``. Each ratio is a
    supermartingale for every sequence of conditional chances that stay at or below the limit, so the rate
    may wander as it likes below it. (Robbins 1970, "Statistical methods related to the law of the
    iterated logarithm"; Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by
    betting", section 4.)

Two samples
    ``p_candidate <= p_stable + increase``. Universal inference: the beta-binomial mixture likelihood of
    both samples divided by the greatest likelihood that the hypothesis allows. (Wasserman, Ramdas and
    Balakrishnan 2020, "Universal inference", section 8; Robbins' mixture as the numerator.) The rates of
    both samples are taken as steady *within a stratum*. The base rate of a service drifts by day and
    night while the candidate's share of the traffic grows, and pooling over both would blame the
    candidate for the hour (Simpson's paradox): a stratum is therefore one weight of the rollout, and the
    strata's e-values are averaged, which is again an e-value.

Dispersion
    Requests fail in bursts. ``dispersion`` > 1 raises the e-value to the power ``1 / dispersion``: still
    a supermartingale (Jensen), and safe where up to that many requests share one fate.

Only logarithms are handled, since a bad candidate's e-value passes the largest float within minutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Odds ratios of the alternatives, from "a little worse" to "everything fails". The grid costs log(12) =
# 2.5 nats in the worst case.
ODDS_RATIOS = (1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)

# Jeffreys' prior: as much mass near 0 as error rates deserve.
PRIOR = 0.5


@dataclass(frozen=True)
class Counts:
    """`bad` of `total` requests, both cumulative."""

    bad: float = 0.0
    total: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.bad <= self.total:
            raise ValueError(f"{self.bad} bad of {self.total} requests")

    @property
    def good(self) -> float:
        """The requests that were not bad."""
        return self.total - self.bad

    @property
    def rate(self) -> float | None:
        """The observed share, or None without requests."""
        return self.bad / self.total if self.total else None

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.bad + other.bad, self.total + other.total)


def log_threshold(confidence: float, metrics: int) -> float:
    """The log e-value at which one of `metrics` tests may reject; together they err at most 1 − confidence.

    >>> round(log_threshold(0.95, 4), 3)
    4.382
    """
    alpha = 1.0 - confidence
    return math.log(max(metrics, 1) / alpha) if alpha > 0 else math.inf


def log_e_above(sample: Counts, limit: float, dispersion: float = 1.0) -> float:
    """The log e-value against ``p <= limit``: large when the sample's true rate is above the limit.

    >>> log_e_above(Counts(5, 1000), 0.01) < 0 < log_e_above(Counts(40, 1000), 0.01)
    True
    """
    if sample.total == 0 or limit >= 1:
        return 0.0
    if limit <= 0:
        return math.inf if sample.bad > 0 else 0.0
    odds = limit / (1 - limit)
    ratios = []
    for ratio in ODDS_RATIOS:
        alternative = odds * ratio / (1 + odds * ratio)
        ratios.append(
            sample.bad * math.log(alternative / limit)
            + sample.good * (math.log1p(-alternative) - math.log1p(-limit))
        )
    return (_log_sum(ratios) - math.log(len(ratios))) / max(dispersion, 1.0)


def log_e_increase(candidate: Counts, stable: Counts, increase: float, dispersion: float = 1.0) -> float:
    """The log e-value against ``p_candidate <= p_stable + increase``, within one stratum.

    >>> stable = Counts(11, 1000)
    >>> log_e_increase(Counts(10, 1000), stable, 0.005) < 0 < log_e_increase(Counts(60, 1000), stable, 0.005)
    True
    """
    if candidate.total == 0 or stable.total == 0:
        return 0.0
    mixture = _log_mixture(candidate) + _log_mixture(stable)
    return (mixture - _null_log_likelihood(candidate, stable, increase)) / max(dispersion, 1.0)


def log_e_strata(log_values: Sequence[float], strata: int) -> float:
    """The average of the e-values of `strata` strata, those without requests yet counted as 1."""
    count = max(strata, len(log_values), 1)
    return _log_sum([*log_values, *[0.0] * (count - len(log_values))]) - math.log(count)


def _log_sum(values: Sequence[float]) -> float:
    top = max(values)
    if math.isinf(top):
        return top
    return top + math.log(sum(math.exp(value - top) for value in values))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_mixture(sample: Counts) -> float:
    return _log_beta(PRIOR + sample.bad, PRIOR + sample.good) - _log_beta(PRIOR, PRIOR)


def _log_likelihood(sample: Counts, rate: float) -> float:
    likelihood = 0.0
    if sample.bad > 0:
        likelihood += sample.bad * math.log(rate) if rate > 0 else -math.inf
    if sample.good > 0:
        likelihood += sample.good * math.log1p(-rate) if rate < 1 else -math.inf
    return likelihood


def _slope(sample: Counts, rate: float) -> float:
    slope = 0.0
    if sample.bad > 0:
        slope += sample.bad / rate if rate > 0 else math.inf
    if sample.good > 0:
        slope -= sample.good / (1 - rate) if rate < 1 else math.inf
    return slope


def _null_log_likelihood(candidate: Counts, stable: Counts, increase: float) -> float:
    """The greatest likelihood with ``p_candidate <= p_stable + increase``.

    Where the observed rates obey, it is theirs. Otherwise it lies on the boundary, where the likelihood
    is concave in the stable rate: bisection on its slope, between the stable rate and the candidate's
    less the increase.
    """
    theirs, ours = stable.bad / stable.total, candidate.bad / candidate.total
    if ours <= theirs + increase:
        return _log_likelihood(candidate, ours) + _log_likelihood(stable, theirs)
    low, high = theirs, ours - increase
    for _ in range(60):
        middle = (low + high) / 2
        if _slope(candidate, middle + increase) + _slope(stable, middle) > 0:
            low = middle
        else:
            high = middle
    # The greater of the ends, never less than the true maximum by more than rounding: a lesser value
    # would favour rejection.
    return max(
        _log_likelihood(candidate, min(rate + increase, 1.0)) + _log_likelihood(stable, rate)
        for rate in (low, high)
    )
