"""The verdict on a candidate: *pass*, *fail* or *hold*, per metric and look.

Where the numbers come from
    The handler reads raw counters by instance (`promql`), turns answers into `Reading`s
    (`request_readings`, `latency_readings`, `parity_readings`) and adds them to the `Ledger` kept in
    ``status.counters``. The ledger holds the last value of each series, so that a restart of a pod is a
    reset and not a loss, and the sums per metric, role and weight step. Its first look at a metric only
    records where the counters stand; a series that appears later counts from zero.

How a verdict is reached
    * latency-p50, -p90, -p95, -p99: the share of requests slower than `max`, against 50, 10, 5, 1 %.
    * error-rate: the share of 5xx, tested against `max`.
    * feature-parity: the share of recomputed vectors that differ, tested against `max`.
    * ``compare: {to: stable}`` of each of these: the candidate's share against stable's plus `maxIncrease`.
    * quality such as roc_auc: the monitor's gauge against `min` or `max`, once `minRequests` labels are in.
    * query: the user's number against `min` or `max`, as it stands.

    *fail* needs `minRequests` and an e-value past the budget (`sequential`): 1 − confidence, divided by
    the number of tests. *pass* needs `minRequests`, an observed share within the limit and no such
    evidence. Everything else holds: too few requests, a share above the limit that may be chance, no
    data, NaN, an unreachable Prometheus. The last two kinds of metric are thresholds on one number and
    stand outside the guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.api.servingdeployment import Verdict
from modelyard.serving.sequential import Counts, log_e_above, log_e_increase, log_e_strata, log_threshold

LATENCY_SHARES = {"latency-p50": 0.5, "latency-p90": 0.1, "latency-p95": 0.05, "latency-p99": 0.01}
COUNTED = frozenset({*LATENCY_SHARES, "error-rate", "feature-parity"})
REQUESTS = "error-rate"
"""The metric whose counts are the requests themselves; read in every rollout, whether it is judged or not."""


@dataclass(frozen=True)
class Metric:
    """One metric of ``spec.rollout.metrics``, in the words of the judge."""

    name: str
    min: float | None = None
    max: float | None = None
    query: str | None = None
    max_increase: float | None = None
    max_decrease: float | None = None
    """Compared with stable; a decrease is only asked of numbers that are not counted."""

    @property
    def counted(self) -> bool:
        """Whether it is a share of counted events, which the guarantee covers."""
        return self.query is None and self.name in COUNTED

    @property
    def limit(self) -> float | None:
        """The share that is allowed: a latency's `max` is in seconds and already in what was counted."""
        return LATENCY_SHARES.get(self.name, self.max) if self.max is not None else None

    @property
    def tests(self) -> int:
        """How many tests share the budget on its account."""
        return ((self.limit is not None) + (self.max_increase is not None)) if self.counted else 0


@dataclass(frozen=True)
class Reading:
    """A pair of cumulative counters of one series, as Prometheus has them."""

    metric: str
    version: int
    instance: str
    bad: float
    total: float

    @property
    def series(self) -> str:
        """What identifies the series in the ledger."""
        return f"{self.metric}|{self.version}|{self.instance}"


@dataclass(frozen=True)
class Ledger:
    """What has been counted in one rollout; `to_json` is what status keeps."""

    candidate: int
    stable: int | None = None
    seen: frozenset[str] = frozenset()
    """The metrics that have had their first look."""
    last: Mapping[str, Counts] = field(default_factory=dict)
    sums: Mapping[tuple[str, int, int], Counts] = field(default_factory=dict)
    """By metric, version and step."""

    def add(self, readings: Iterable[Reading], step: int) -> Ledger:
        """The ledger after one look; requests since the last one belong to `step`."""
        last, sums = dict(self.last), dict(self.sums)
        metrics = set()
        for reading in readings:
            metrics.add(reading.metric)
            if reading.version not in {self.candidate, self.stable} or not _finite(
                reading.bad, reading.total
            ):
                continue
            # A bucket and its total may be scraped a moment apart.
            now = Counts(min(max(reading.bad, 0.0), max(reading.total, 0.0)), max(reading.total, 0.0))
            before = last.get(reading.series)
            last[reading.series] = now
            if before is None and reading.metric not in self.seen:
                continue
            key = (reading.metric, reading.version, step)
            delta = _delta(before or Counts(), now)
            if delta.total:
                sums[key] = sums.get(key, Counts()) + delta
        return replace(self, seen=self.seen | metrics, last=last, sums=sums)

    def counts(self, metric: str, version: int | None) -> Counts:
        """All that was counted of a metric for a version."""
        total = Counts()
        for (name, of, _), counts in self.sums.items():
            if name == metric and of == version:
                total += counts
        return total

    def strata(self, metric: str) -> list[tuple[Counts, Counts]]:
        """Candidate and stable by step, for comparisons."""
        steps = sorted({step for name, _, step in self.sums if name == metric})
        return [
            (
                self.sums.get((metric, self.candidate, step), Counts()),
                self.sums.get((metric, self.stable if self.stable is not None else -1, step), Counts()),
            )
            for step in steps
        ]

    def to_json(self) -> dict[str, Any]:
        """The ledger as JSON for status, in a stable order."""
        return {
            "candidate": self.candidate,
            **({"stable": self.stable} if self.stable is not None else {}),
            "seen": sorted(self.seen),
            "last": [{"series": s, "bad": c.bad, "total": c.total} for s, c in sorted(self.last.items())],
            "sums": [
                {"metric": m, "version": v, "step": s, "bad": c.bad, "total": c.total}
                for (m, v, s), c in sorted(self.sums.items())
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ledger:
        """What `to_json` wrote."""
        return cls(
            candidate=data["candidate"],
            stable=data.get("stable"),
            seen=frozenset(data.get("seen", ())),
            last={entry["series"]: Counts(entry["bad"], entry["total"]) for entry in data.get("last", ())},
            sums={
                (entry["metric"], entry["version"], entry["step"]): Counts(entry["bad"], entry["total"])
                for entry in data.get("sums", ())
            },
        )


@dataclass(frozen=True)
class Gauge:
    """A single number for the candidate, with how many events it rests on."""

    value: float | None
    stable: float | None = None
    samples: float = math.inf
    error: str = ""


@dataclass(frozen=True)
class Judgement:
    """A verdict with the numbers that it rests on."""

    metric: str
    verdict: Verdict
    message: str
    value: float | None = None
    stable: float | None = None
    limit: float | None = None
    samples: int = 0


def judge(
    metrics: Sequence[Metric],
    ledger: Ledger,
    *,
    min_requests: int,
    confidence: float,
    steps: int,
    gauges: Mapping[str, Gauge] | None = None,
    unreachable: str = "",
    dispersion: float = 1.0,
) -> list[Judgement]:
    """One judgement per metric. `unreachable` is why Prometheus could not be asked, which holds them all.

    `steps` is the number of weight steps, over which comparisons average; `dispersion` the number of
    requests that may share one fate.
    """
    threshold = log_threshold(confidence, sum(metric.tests for metric in metrics))
    gauges = gauges or {}
    judgements = []
    for metric in metrics:
        if unreachable:
            judgements.append(
                Judgement(metric.name, Verdict.HOLD, f"no measurements: {unreachable}", limit=metric.limit)
            )
        elif metric.counted:
            judgements.append(_judge_counts(metric, ledger, min_requests, threshold, steps, dispersion))
        else:
            judgements.append(_judge_gauge(metric, gauges.get(metric.name, Gauge(None)), min_requests))
    return judgements


def overall(judgements: Sequence[Judgement]) -> Verdict:
    """The look as a whole: one fail fails it, one hold holds it."""
    verdicts = {judgement.verdict for judgement in judgements}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.HOLD if Verdict.HOLD in verdicts else Verdict.PASS


def _judge_counts(
    metric: Metric, ledger: Ledger, min_requests: int, threshold: float, steps: int, dispersion: float
) -> Judgement:
    ours, theirs = ledger.counts(metric.name, ledger.candidate), ledger.counts(metric.name, ledger.stable)
    rate, stable = ours.rate, theirs.rate
    compared = metric.max_increase is not None and ledger.stable is not None

    def judgement(verdict: Verdict, message: str) -> Judgement:
        return Judgement(
            metric.name, verdict, message, rate, stable if compared else None, metric.limit, round(ours.total)
        )

    if rate is None:
        return judgement(Verdict.HOLD, "no data for the candidate")
    if ours.total < min_requests:
        return judgement(Verdict.HOLD, f"{ours.total:.0f} of at least {min_requests} requests")
    holds = []
    if metric.limit is not None:
        if log_e_above(ours, metric.limit, dispersion) >= threshold:
            return judgement(
                Verdict.FAIL, f"{_percent(rate)} {_what(metric)}, more than {_percent(metric.limit)}"
            )
        if rate > metric.limit:
            holds.append(
                f"{_percent(rate)} {_what(metric)} is above {_percent(metric.limit)}, but may be chance"
            )
    if compared and metric.max_increase is not None:
        if stable is None or theirs.total < min_requests:
            holds.append(f"stable has {theirs.total:.0f} of at least {min_requests} requests")
        else:
            values = [
                log_e_increase(c, s, metric.max_increase, dispersion) for c, s in ledger.strata(metric.name)
            ]
            allowed = f"{_percent(stable)} of stable plus {_percent(metric.max_increase)}"
            if log_e_strata(values, steps) >= threshold:
                return judgement(Verdict.FAIL, f"{_percent(rate)} {_what(metric)}, more than {allowed}")
            if rate > stable + metric.max_increase:
                holds.append(f"{_percent(rate)} {_what(metric)} is above {allowed}, but may be chance")
    if holds:
        return judgement(Verdict.HOLD, "; ".join(holds))
    return judgement(Verdict.PASS, f"{_percent(rate)} {_what(metric)} in {ours.total:.0f}")


def _judge_gauge(metric: Metric, gauge: Gauge, min_requests: int) -> Judgement:
    samples = round(gauge.samples) if math.isfinite(gauge.samples) else 0
    limit = metric.max if metric.max is not None else metric.min
    value = gauge.value if gauge.value is not None and math.isfinite(gauge.value) else None
    if gauge.error or value is None:
        return Judgement(metric.name, Verdict.HOLD, gauge.error or "no data", limit=limit, samples=samples)
    if gauge.samples < min_requests:
        message = f"{gauge.samples:.0f} of at least {min_requests} labels"
        return Judgement(metric.name, Verdict.HOLD, message, value, None, limit, samples)
    if metric.max is not None and value > metric.max:
        return Judgement(
            metric.name, Verdict.FAIL, f"{value:g} is above {metric.max:g}", value, None, limit, samples
        )
    if metric.min is not None and value < metric.min:
        return Judgement(
            metric.name, Verdict.FAIL, f"{value:g} is below {metric.min:g}", value, None, limit, samples
        )
    if metric.max_increase is not None or metric.max_decrease is not None:
        stable = gauge.stable
        if stable is None or not math.isfinite(stable):
            return Judgement(metric.name, Verdict.HOLD, "no data of stable", value, None, limit, samples)
        most = stable + metric.max_increase if metric.max_increase is not None else math.inf
        least = stable - metric.max_decrease if metric.max_decrease is not None else -math.inf
        verdict = Verdict.PASS if least <= value <= most else Verdict.FAIL
        return Judgement(metric.name, verdict, f"{value:g}, stable {stable:g}", value, stable, limit, samples)
    return Judgement(metric.name, Verdict.PASS, f"{value:g}", value, None, limit, samples)


# From Prometheus' answers, as the HTTP API gives them: [{"metric": {labels}, "value": [time, "number"]}].


def request_readings(answer: Sequence[Mapping[str, Any]]) -> list[Reading]:
    """Readings of `error-rate` from `promql.router_requests`: 5xx are bad."""
    totals: dict[tuple[int, str], list[float]] = {}
    for labels, value in _samples(answer):
        pair = totals.setdefault(_owner(labels), [0.0, 0.0])
        pair[1] += value
        if labels.get("envoy_response_code_class") == "5":
            pair[0] += value
    return [Reading(REQUESTS, v, i, bad, total) for (v, i), (bad, total) in sorted(totals.items())]


def latency_readings(answer: Sequence[Mapping[str, Any]], metric: str, limit: float) -> list[Reading]:
    """Readings of a latency metric from `promql.router_latency`: slower than `limit` seconds is bad.

    Where no bucket ends at the limit, the next greater one is used: a request must be certainly too slow
    to count.
    """
    buckets: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for labels, value in _samples(answer):
        bound = labels.get("le", "+Inf")
        buckets.setdefault(_owner(labels), []).append(
            (math.inf if bound == "+Inf" else float(bound) / 1000, value)
        )
    readings = []
    for (version, instance), found in sorted(buckets.items()):
        total = max(value for _, value in found)
        within = min(
            ((bound, value) for bound, value in found if bound >= limit - 1e-9), default=(math.inf, total)
        )[1]
        readings.append(Reading(metric, version, instance, total - within, total))
    return readings


def parity_readings(
    checked: Sequence[Mapping[str, Any]], mismatched: Sequence[Mapping[str, Any]]
) -> list[Reading]:
    """Readings of `feature-parity` from the monitor's counters; mismatches not yet there are 0."""
    bad = {_owner(labels): value for labels, value in _samples(mismatched)}
    return [
        Reading("feature-parity", *_owner(labels), bad.get(_owner(labels), 0.0), total)
        for labels, total in _samples(checked)
    ]


def gauge_value(answer: Sequence[Mapping[str, Any]], version: int | None = None) -> float | None:
    """The one number of an instant query, of one version where it tells; None without exactly one."""
    found = [
        value
        for labels, value in _samples(answer)
        if version is None or labels.get("version") in {None, str(version)}
    ]
    return found[0] if len(found) == 1 else None


def _samples(answer: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, str], float]]:
    samples = []
    for sample in answer:
        value = float(sample["value"][1])
        if math.isfinite(value):
            samples.append((sample["metric"], value))
    return samples


def _owner(labels: Mapping[str, str]) -> tuple[int, str]:
    version = labels.get("version", "")
    return (int(version) if version.isdigit() else -1), labels.get("instance", "")


def _delta(before: Counts, now: Counts) -> Counts:
    """What came since; either counter falling means that the instance started anew, from zero."""
    if now.total < before.total or now.bad < before.bad:
        return now
    total = now.total - before.total
    return Counts(min(now.bad - before.bad, total), total)


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _what(metric: Metric) -> str:
    if metric.name in LATENCY_SHARES:
        return f"slower than {metric.max:g} s"
    return "mismatched" if metric.name == "feature-parity" else "errors"
