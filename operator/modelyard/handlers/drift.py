"""Drift: the counts of the window against the training data's shares, and a retraining where that is wanted."""

from __future__ import annotations

import datetime
from typing import Any

from modelyard.api.names import drift_run_name
from modelyard.api.servingdeployment import ServingDeployment
from modelyard.cluster.queue import Key
from modelyard.cluster.status import rfc3339
from modelyard.handlers import metrics
from modelyard.handlers.context import Condition, Context, Object
from modelyard.handlers.prometheus import Unreachable
from modelyard.handlers.trainingpipeline import create_run
from modelyard.monitoring.drift import FeatureDrift, decide_retrain, judge
from modelyard.pipelines.observe import timestamp
from modelyard.serving import analysis, promql

_last: dict[tuple[str, str], datetime.datetime] = {}


async def evaluate_drift(
    ctx: Context, key: Key, serving: ServingDeployment, stable: int | None, status: Object, period: float
) -> tuple[Object, list[Condition]]:
    """Fields of status and the condition `Drifted`; nothing where it is not due. Starts the retraining it asks for."""
    monitoring, now = serving.spec.monitoring, ctx.now()
    if monitoring is None or stable is None:
        return {}, []
    last = _last.get((key.namespace, key.name))
    if last is not None and (now - last).total_seconds() < period:
        return {}, []
    _last[(key.namespace, key.name)] = now
    try:
        scores = await _scores(ctx, key, serving, stable)
        logical = await _logical_time(ctx, key, serving)
    except Unreachable as error:
        return {}, [Condition("Drifted", None, "PrometheusUnreachable", str(error))]
    test = serving.spec.monitoring.drift.test if serving.spec.monitoring else "psi"
    entries: list[dict[str, Any]] = []
    for score in scores:
        entry: dict[str, Any] = {
            "feature": score.feature,
            "test": test,
            "drifted": score.verdict == "drifted",
        }
        entry |= {"limit": round(score.limit, 4), "samples": round(score.count)}
        if score.score is not None:
            entry["score"] = round(score.score, 4)
            metrics.DRIFT.labels(key.namespace, key.name, score.feature, test).set(score.score)
        entries.append(entry)
    fields: Object = {"drift": entries}
    drifted = [entry["feature"] for entry in entries if entry["drifted"]]
    message = ", ".join(drifted) if drifted else "as in the training data"
    said = Condition("Drifted", bool(drifted), "DriftDetected" if drifted else "NoDrift", message)
    if monitoring.on_drift is not None:
        earlier = timestamp(status.get("lastDriftTrigger"))
        retrain = decide_retrain(scores, monitoring.on_drift.cooldown.timedelta, earlier, logical)
        if retrain.start and await _retrain(ctx, key, monitoring.on_drift.pipeline, stable, logical, retrain.reason):
            fields["lastDriftTrigger"] = rfc3339(logical)
    return fields, [said]


async def _scores(ctx: Context, key: Key, serving: ServingDeployment, stable: int) -> list[FeatureDrift]:
    monitoring = serving.spec.monitoring
    assert monitoring is not None
    target = promql.Target(key.namespace, key.name, stable)
    window = f"{int(monitoring.window.timedelta.total_seconds())}s"
    counts = _by_feature(await ctx.prometheus.query(promql.drift_counts(target, window)))
    reference = _by_feature(await ctx.prometheus.query(promql.drift_reference(target)))
    limits = {
        sample["metric"].get("feature", ""): float(sample["value"][1])
        for sample in await ctx.prometheus.query(promql.drift_limits(target))
    }
    drift = monitoring.drift
    return [
        judge(
            feature,
            shares,
            counts.get(feature, {}),
            limit=drift.max if drift.max is not None else limits.get(feature, 0.2),
            test=drift.test,
        )
        for feature, shares in sorted(reference.items())
    ]


def _by_feature(answer: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for sample in answer:
        labels = sample["metric"]
        found.setdefault(labels.get("feature", ""), {})[labels.get("bucket", "")] = float(sample["value"][1])
    return found


async def _logical_time(ctx: Context, key: Key, serving: ServingDeployment) -> datetime.datetime:
    """What the time is for a retraining: where requests name event times, the latest of these."""
    if serving.spec.allow_event_time:
        value = analysis.gauge_value(
            await ctx.prometheus.query(promql.event_time(promql.Target(key.namespace, key.name)))
        )
        if value:
            return datetime.datetime.fromtimestamp(int(value), datetime.UTC)
    return ctx.now().replace(microsecond=0)


async def _retrain(
    ctx: Context, key: Key, pipeline: str, version: int, logical: datetime.datetime, reason: str
) -> bool:
    found = ctx.store.get("TrainingPipeline", key.namespace, pipeline)
    serving = ctx.store.get(*key)
    if found is None or serving is None:
        return False
    if not found["spec"].get("triggers", {}).get("onDrift"):
        await ctx.event(
            serving, "Warning", "RunSkipped", f"{reason}; TrainingPipeline {pipeline} has no triggers.onDrift"
        )
        return False
    name = drift_run_name(pipeline, key.name, version, logical)
    await create_run(ctx, found, name, "Drift", logical)
    await ctx.event(serving, "Normal", "RetrainingTriggered", f"{name}: {reason}, as of {rfc3339(logical)}")
    return True
