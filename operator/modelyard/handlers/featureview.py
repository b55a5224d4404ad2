"""FeatureView: keeps the online store as the view says, on its schedule and when its definition changes."""

from __future__ import annotations

import datetime
from typing import Any

from croniter import croniter
from pydantic import ValidationError

from modelyard.api.common import problems
from modelyard.api.featureview import FeatureView
from modelyard.cluster.client import Conflict
from modelyard.cluster.queue import GONE, Key
from modelyard.cluster.status import rfc3339
from modelyard.features import definitions
from modelyard.features.errors import FeatureError
from modelyard.features.jobs import materialize_job, retry_delay
from modelyard.handlers import metrics
from modelyard.handlers.context import Condition, Context, Object
from modelyard.pipelines.manifest import ManifestError, decode
from modelyard.pipelines.observe import ObservedJob, observe_job, timestamp

MANAGER = "modelyard-features"


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Looks at one view: judges its definition, follows its Job, starts the next one when it is due."""
    obj = ctx.store.get(*key)
    if obj is None or obj["metadata"].get("deletionTimestamp"):
        return GONE
    try:
        view = FeatureView.parse(obj)
        version = definitions.version(view.spec)
    except (ValidationError, FeatureError) as error:
        text = "; ".join(problems(error)) if isinstance(error, ValidationError) else str(error)
        await ctx.write_status(
            obj, dict(obj.get("status", {})), [Condition("Ready", False, "InvalidSpec", text)], MANAGER
        )
        return None
    status = dict(obj.get("status", {}))
    versions = [dict(v) for v in status.get("versions", [])]
    if not versions or versions[-1]["version"] != version:
        versions = [v for v in versions if v["version"] != version and v.get("usedBy")]
        versions.append({"version": version, "revision": obj["metadata"].get("generation", 1), "usedBy": []})
        # A new definition is materialised at once, whatever became of the one before.
        for field in ("job", "failures", "retryAt", "lastMaterialized"):
            status.pop(field, None)
    used = _used_by(ctx, key)
    for entry in versions:
        entry["usedBy"] = sorted(used.get(entry["version"], ()))
    status["versions"] = versions
    if not view.spec.online:
        await ctx.write_status(obj, status, [Condition("Ready", True, "Reconciled", "offline only")], MANAGER)
        return None
    return await _materialise(ctx, obj, view, version, status)


async def _materialise(ctx: Context, obj: Object, view: FeatureView, version: str, status: Object) -> float | None:
    now, meta = ctx.now(), obj["metadata"]
    if name := status.get("job"):
        job = ctx.store.get("Job", meta["namespace"], name) or await ctx.client.get("Job", meta["namespace"], name)
        if job is None:
            status.pop("job")
        else:
            pods = ctx.store.select("Pod", meta["namespace"], {"job-name": name})
            finished = await _ended(ctx, obj, status, observe_job(job, pods))
            if finished is None:
                waits = _waiting(observe_job(job, ctx.store.select("Pod", meta["namespace"], {"job-name": name})))
                said = Condition("Materialized", None, "Materializing", waits or f"Job {name}")
                await ctx.write_status(obj, status, [said, _ready(status)], MANAGER)
                return 10.0
            await ctx.write_status(obj, status, [finished, _ready(status)], MANAGER)
            return 0.5
    due, slot = _due(view, status, now)
    if due > now:
        await ctx.write_status(obj, status, [_ready(status)], MANAGER)
        return (due - now).total_seconds()
    job = materialize_job(obj, version, slot, now, ctx.settings.runtime_image, ctx.settings.pull_policy)
    status["job"] = job["metadata"]["name"]
    # The name goes into status first: a Job that is made and not known would be made again under the next slot.
    if (
        await ctx.write_status(
            obj, status, [Condition("Materialized", None, "Materializing", ""), _ready(status)], MANAGER
        )
        is None
    ):
        return 1.0
    try:
        await ctx.client.create(job)
        await ctx.event(obj, "Normal", "MaterializationStarted", f"Job {job['metadata']['name']}")
    except Conflict:
        pass  # made before, by us: its result is what we wait for
    return 10.0


def _due(view: FeatureView, status: Object, now: datetime.datetime) -> tuple[datetime.datetime, str]:
    """When the next materialisation is due, and its slot."""
    if retry := timestamp(status.get("retryAt")):
        return retry, f"{rfc3339(retry)}-{status.get('failures', 0)}"
    last = timestamp(status.get("lastMaterialized"))
    if last is None:
        return now, f"first-{status.get('failures', 0)}"
    if view.spec.schedule is None:
        return now + datetime.timedelta(days=3650), "never"
    following = croniter(view.spec.schedule, last).get_next(datetime.datetime)
    return following, rfc3339(following)


async def _ended(ctx: Context, obj: Object, status: Object, job: ObservedJob) -> Condition | None:
    """Takes the Job's result into `status`; None while it is under way."""
    pod = job.pods[-1] if job.pods else None
    if job.active and (pod is None or pod.phase not in ("Succeeded", "Failed")):
        return None
    meta, now = obj["metadata"], ctx.now()
    parameters: dict[str, Any] = {}
    problem = f"Job {job.name} failed: {job.reason or (pod.reason if pod else '')} {job.message}".strip()
    try:
        manifest = decode(pod.message) if pod and pod.message else None
    except ManifestError as error:
        manifest, problem = None, str(error)
    if manifest is not None and manifest.error is not None:
        problem = manifest.error.message
    if manifest is not None and manifest.error is None and pod is not None and pod.phase == "Succeeded":
        parameters = dict(manifest.parameters)
        status.update(rows=int(parameters.get("rows", 0)), onlineKeys=int(parameters.get("onlineKeys", 0)))
        status["lastMaterialized"] = rfc3339(now)
        if parameters.get("materializedThrough"):
            status["versions"][-1]["materializedThrough"] = parameters["materializedThrough"]
        for field in ("job", "failures", "retryAt"):
            status.pop(field, None)
        metrics.VIEW_ROWS.labels(meta["namespace"], meta["name"]).set(status["rows"])
        metrics.VIEW_FRESHNESS.labels(meta["namespace"], meta["name"]).set_function(
            lambda: (datetime.datetime.now(datetime.UTC) - now).total_seconds()
        )
        message = f"{status['rows']} rows, {status['onlineKeys']} keys"
        await ctx.event(obj, "Normal", "Materialized", f"{message} ({job.name})")
        return Condition("Materialized", True, "Materialized", message)
    failures = int(status.get("failures", 0)) + 1
    status.update(failures=failures, retryAt=rfc3339(now + retry_delay(failures)))
    status.pop("job", None)
    await ctx.event(obj, "Warning", "MaterializationFailed", problem)
    return Condition("Materialized", False, "MaterializationFailed", problem)


def _waiting(job: ObservedJob) -> str:
    for pod in job.pods:
        if pod.unschedulable:
            return pod.unschedulable
        if pod.waiting_reason:
            return f"{pod.waiting_reason}: {pod.waiting_image} {pod.waiting_message}"
    return ""


def _ready(status: Object) -> Condition:
    if status.get("failures"):
        return Condition("Ready", False, "MaterializationFailed", "see the condition Materialized")
    if not status.get("lastMaterialized"):
        return Condition("Ready", False, "Materializing", "not materialised yet")
    return Condition("Ready", True, "Materialized", f"{status.get('rows', 0)} rows")


def _used_by(ctx: Context, key: Key) -> dict[str, set[str]]:
    """Which ModelVersions read which version of the view."""
    used: dict[str, set[str]] = {}
    for version in ctx.store.list("ModelVersion", key.namespace):
        for feature in version["spec"].get("features", []):
            if feature.get("view") == key.name and feature.get("version"):
                used.setdefault(feature["version"], set()).add(version["metadata"]["name"])
    return used
