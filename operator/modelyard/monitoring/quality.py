"""How good predictions are: AUC, Brier score, log loss, and the bootstrap by day.

Flights of one day share the weather and the queue, so they are not independent draws, and a bootstrap over rows
would be far too sure of itself.  Days are resampled whole instead (a cluster bootstrap; Davison and Hinkley 1997,
3.8).  Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def roc_auc(labels: Bools, scores: Floats, weights: Floats | None = None) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative) + ½ P(equal); NaN with one class only."""
    weights = np.ones(len(labels)) if weights is None else weights
    _, place = np.unique(scores, return_inverse=True)
    return float(_auc_by_place(labels, place, weights[None, :])[0])


def brier(labels: Bools, scores: Floats) -> float:
    """Mean squared difference of probability and outcome (Brier 1950)."""
    return float(np.mean((scores - labels) ** 2))


def log_loss(labels: Bools, scores: Floats) -> float:
    """Mean negative log-likelihood, in nats, with probabilities kept 1e-15 from 0 and 1."""
    clipped = np.clip(scores, 1e-15, 1 - 1e-15)
    return float(-np.mean(np.where(labels, np.log(clipped), np.log1p(-clipped))))


@dataclass(frozen=True)
class Gain:
    """AUC of a candidate less that of a baseline, with the bounds of a 95 % interval on one side each."""

    gain: float
    lower: float
    upper: float
    days: int
    replicates: int

    @property
    def better(self) -> bool:
        """Whether the lower bound is above 0."""
        return self.lower > 0


def auc_gain(
    labels: Bools,
    candidate: Floats,
    baseline: Floats,
    days: npt.NDArray[np.int64],
    *,
    replicates: int = 500,
    seed: int = 0,
    confidence: float = 0.95,
) -> Gain:
    """Bootstrap the AUC difference by day, both models on the same rows and the same days of each replicate.

    A replicate is a vector of weights, one per day, times each drawn; so rows are ranked once, and a replicate costs
    one weighted cumulative sum.
    """
    found, day = np.unique(days, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(found), np.full(len(found), 1 / len(found)), size=replicates)
    gain = roc_auc(labels, candidate) - roc_auc(labels, baseline)
    places = [np.unique(scores, return_inverse=True)[1] for scores in (candidate, baseline)]
    differences = []
    for start in range(0, replicates, 16):  # few at once: 16 × rows × 8 bytes
        weights = drawn[start : start + 16, day].astype(np.float64)
        ours, theirs = (_auc_by_place(labels, place, weights) for place in places)
        differences.append(ours - theirs)
    values = np.concatenate(differences)
    values = values[np.isfinite(values)]
    if len(found) < 2 or not values.size:
        return Gain(gain, float("-inf"), float("inf"), len(found), 0)
    lower, upper = np.quantile(values, [1 - confidence, confidence])
    return Gain(gain, float(lower), float(upper), len(found), int(values.size))


def _auc_by_place(labels: Bools, place: npt.NDArray[np.int64], weights: Floats) -> Floats:
    """Weighted AUC per row of ``weights``; ``place`` is each score's rank among the distinct scores, from 0."""
    distinct = int(place.max()) + 1 if len(place) else 0
    results = np.full(len(weights), np.nan)
    for number, weight in enumerate(weights):
        positive = np.bincount(place, weights=weight * labels, minlength=distinct)
        negative = np.bincount(place, weights=weight * ~labels, minlength=distinct)
        total = positive.sum() * negative.sum()
        if total > 0:
            below = np.cumsum(negative) - negative
            results[number] = float((positive * (below + negative / 2)).sum() / total)
    return results
