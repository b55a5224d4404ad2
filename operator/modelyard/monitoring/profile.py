"""The reference profile: what each feature looked like in training, in buckets that Prometheus can count.

Drift is counted where the values are, in the inference server, and added up by PromQL over replicas and time.  That
works only if everybody uses the same buckets, so the buckets are part of the profile and the profile is an artifact
of the training run.  Numbers fall into at most ten buckets between deduplicated quantiles of the training data;
categories are themselves, at most twenty, and ``other``; nulls and NaN are counted apart, as ``null``.

The outermost quantiles are the 1st and the 99th percentile, not deciles: a feed that changes its unit (Fahrenheit to
Celsius) lands where one percent of the reference lies, which a cold January week does not.

Data change by season without being wrong.  So a profile also says how far each *window* of the training data itself
is from the whole (the greatest PSI of any), and the limit above which a feature has drifted follows from that.

Needs numpy only, because the inference server imports it.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.monitoring.drift import EPSILON, psi

#: Inner quantiles; nine of them make ten buckets.
QUANTILES = (0.01, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.99)
MAX_CATEGORIES = 20
NULL = "null"
OTHER = "other"

#: The grid of predictions, one for every version, so that versions compare: 0..1 in 20.
PREDICTION_EDGES: tuple[float, ...] = tuple(index / 20 for index in range(1, 20))

DAY = 86_400.0
#: No limit is lower than this; 0.2 is the customary PSI of "a significant shift" (Siddiqi 2006).
LIMIT_FLOOR = 0.2
#: The limit is this many times the greatest PSI that any window of the training data has against the whole.
LIMIT_FACTOR = 1.1
#: Variation is measured for windows of a day and of a week.
WINDOWS = (DAY, 7 * DAY)
#: About the PSI of a column whose whole mass has moved to one bucket that was empty.
CEILING = math.log(1 / EPSILON)
#: A window with fewer values says little about variation, and much about luck.
MIN_WINDOW_ROWS = 200

Values = npt.NDArray[Any] | Sequence[Any]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Encoder:
    """Which bucket a value belongs to: ``labels[encode(values)]``.

    >>> Encoder.numeric([1.0, 2.0]).encode([0.5, 1.0, 1.5, 9.0, None]).tolist()
    [0, 0, 1, 2, 3]
    >>> Encoder.categorical(["AA", "UA"]).bucket("ZZ")
    'other'
    """

    labels: tuple[str, ...]
    edges: tuple[float, ...] | None = None
    index: Mapping[str, int] | None = None

    @classmethod
    def numeric(cls, edges: Iterable[float]) -> Encoder:
        """Buckets ``(-inf, e0], (e0, e1], …, (ek, inf)``, named ``0..k+1``, and ``null``."""
        fixed = tuple(float(edge) for edge in edges)
        return cls((*map(str, range(len(fixed) + 1)), NULL), edges=fixed)

    @classmethod
    def categorical(cls, categories: Iterable[str]) -> Encoder:
        """One bucket per category, then ``other`` and ``null``; a category so called joins that bucket."""
        kept = [category for category in categories if category not in (OTHER, NULL)]
        labels = (*kept, OTHER, NULL)
        return cls(labels, index={label: place for place, label in enumerate(labels)})

    @classmethod
    def of(cls, feature: Mapping[str, Any]) -> Encoder:
        """The encoder of one feature of a profile."""
        if feature["type"] == "numeric":
            return cls.numeric(feature["edges"])
        return cls.categorical(feature["categories"])

    def code(self, value: Any) -> int:
        """The bucket's index for one value; quick for single requests."""
        null = len(self.labels) - 1
        if value is None:
            return null
        if self.edges is None:
            assert self.index is not None
            if isinstance(value, float) and math.isnan(value):
                return null
            return self.index.get(str(value), null - 1)
        try:
            number = float(value)
        except (TypeError, ValueError):
            return null
        return null if math.isnan(number) else bisect_left(self.edges, number)

    def bucket(self, value: Any) -> str:
        """The bucket's name for one value."""
        return self.labels[self.code(value)]

    def encode(self, values: Values) -> Codes:
        """The buckets' indices for many values."""
        if self.edges is None:
            return np.fromiter((self.code(value) for value in values), np.int64, len(values))
        numbers = as_floats(values)
        codes = np.searchsorted(np.asarray(self.edges), numbers, side="left").astype(np.int64)
        codes[np.isnan(numbers)] = len(self.labels) - 1
        return codes

    def counts(self, values: Values) -> dict[str, int]:
        """How many values fall into each bucket."""
        counted = np.bincount(self.encode(values), minlength=len(self.labels))
        return dict(zip(self.labels, counted.tolist(), strict=True))


def as_floats(values: Values) -> npt.NDArray[np.float64]:
    """Numbers as float64, with NaN for None."""
    array = np.asarray(values)
    if array.dtype == object:
        array = np.array([math.nan if value is None else float(value) for value in array.tolist()])
    return array.astype(np.float64)


def encoders(profile: Mapping[str, Any]) -> dict[str, Encoder]:
    """An encoder for each feature of a profile."""
    return {name: Encoder.of(feature) for name, feature in profile["features"].items()}


def prediction_encoder() -> Encoder:
    """The encoder of predictions, the same for every version."""
    return Encoder.numeric(PREDICTION_EDGES)


def bucket_of(feature: Mapping[str, Any], values: Values) -> npt.NDArray[np.object_]:
    """The names of the buckets of ``values`` by the profile of their feature."""
    encoder = Encoder.of(feature)
    return np.asarray(encoder.labels, dtype=object)[encoder.encode(values)]


def quantile_edges(values: npt.NDArray[np.float64]) -> list[float]:
    """At most nine deduplicated quantiles of the values that are there.

    ``inverted_cdf`` takes values that occur, so that a bucket's edge is never an invented number between two.  Where
    the least value is itself an edge (a spike, or a constant), what is less gets a bucket of its own if there is room.
    """
    present = values[np.isfinite(values)]
    if not present.size:
        return []
    edges = sorted(set(np.quantile(present, QUANTILES, method="inverted_cdf").tolist()))
    least = float(present.min())
    if edges[0] == least and len(edges) < len(QUANTILES):
        edges.insert(0, float(np.nextafter(least, -np.inf)))
    return edges


def top_categories(values: Iterable[Any]) -> list[str]:
    """The most frequent categories, at most twenty, the more frequent first and ties by name."""
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[str(value)] = counts.get(str(value), 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))[:MAX_CATEGORIES]


def profile_feature(
    values: Values,
    *,
    categorical: bool,
    times: npt.NDArray[np.float64] | None = None,
    windows: Sequence[float] = WINDOWS,
) -> dict[str, Any]:
    """The profile of one feature; ``times`` are seconds since the epoch, one per value."""
    feature: dict[str, Any]
    if categorical:
        feature = {"type": "categorical", "categories": top_categories(values)}
    else:
        numbers = as_floats(values)
        present = numbers[np.isfinite(numbers)]
        feature = {"type": "numeric", "edges": quantile_edges(numbers)}
        if present.size:
            feature |= {
                "min": float(present.min()),
                "max": float(present.max()),
                "mean": float(present.mean()),
                "std": float(present.std()),
            }
        values = numbers
    encoder = Encoder.of(feature)
    codes = encoder.encode(values)
    counts = np.bincount(codes, minlength=len(encoder.labels))
    total = max(int(counts.sum()), 1)
    feature |= {
        "count": int(counts[:-1].sum()),
        "nulls": int(counts[-1]),
        "ratios": {label: int(count) / total for label, count in zip(encoder.labels, counts, strict=True)},
    }
    feature["variation"] = []
    for window in windows:
        scores = [] if times is None else window_variation(codes, times, len(encoder.labels), window)
        greatest = max(scores, default=0.0)
        feature["variation"].append(
            {
                "windowSeconds": window,
                "windows": len(scores),
                "median": float(np.median(scores)) if scores else 0.0,
                "max": greatest,
                "limit": max(LIMIT_FLOOR, LIMIT_FACTOR * greatest),
            }
        )
    feature["limit"] = default_limit(feature)
    return feature


def default_limit(feature: Mapping[str, Any]) -> float:
    """The limit where nobody says how long the monitoring window is: that of the most variable length of window.

    Monday is no drift, although a window of one day holds nothing else.  But a limit that no data can pass protects
    nobody: where a day's variation comes near what PSI can reach at all (one cold day lies in one bucket as surely
    as a feed in Celsius does), the next length of window decides.
    """
    limits = sorted((float(item["limit"]) for item in feature["variation"] if item["windows"]), reverse=True)
    return next((limit for limit in limits if limit <= CEILING), limits[-1] if limits else LIMIT_FLOOR)


def limit_for(feature: Mapping[str, Any], window: float) -> float:
    """The drift limit for monitoring over windows of so many seconds.

    A day of requests is all one weekday and one weather, a week is not; so the shorter the monitoring window, the
    more it varies by itself.  The longest measured window that is no longer than the one asked for counts; for less
    than the shortest, the shortest.
    """
    measured = sorted(
        (item for item in feature["variation"] if item["windows"]),
        key=lambda item: float(item["windowSeconds"]),
    )
    if not measured:
        return LIMIT_FLOOR
    fitting = [item for item in measured if item["windowSeconds"] <= window] or measured[:1]
    return float(fitting[-1]["limit"])


def window_variation(codes: Codes, times: npt.NDArray[np.float64], buckets: int, window: float) -> list[float]:
    """The PSI of each whole window of the reference against all of it, oldest first; a rest at the start is left."""
    if not len(codes):
        return []
    whole = np.bincount(codes, minlength=buckets).tolist()
    windows = np.floor((times.max() - times) / window).astype(np.int64)  # counted back: the newest is complete
    scores = []
    whole_windows = int((times.max() - times.min() + window / 50) // window)
    for number in range(whole_windows - 1, -1, -1):
        part = np.bincount(codes[windows == number], minlength=buckets)
        if part.sum() >= MIN_WINDOW_ROWS:
            scores.append(psi(whole, part.tolist()))
    return scores


def profile_table(
    columns: Mapping[str, Values],
    categorical: Iterable[str] = (),
    times: npt.NDArray[np.float64] | None = None,
    windows: Sequence[float] = WINDOWS,
) -> dict[str, Any]:
    """The profile of a table of features, as JSON."""
    strings = set(categorical)
    return {
        "schema": "modelyard.dev/profile/v1",
        "rows": max((len(values) for values in columns.values()), default=0),
        "features": {
            name: profile_feature(values, categorical=name in strings, times=times, windows=windows)
            for name, values in columns.items()
        },
        "predictions": {"edges": list(PREDICTION_EDGES)},
    }


def load(path: str | Path) -> dict[str, Any]:
    """Read a profile; a file that is none is a ValueError that says so."""
    document = json.loads(Path(path).read_text())
    if not isinstance(document, dict) or not isinstance(document.get("features"), dict):
        raise ValueError(f"{path} is not a profile: it has no features")
    return document
