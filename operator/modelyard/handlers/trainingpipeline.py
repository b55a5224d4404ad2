"""TrainingPipeline: judges the pipeline, makes runs when their triggers say so, and keeps as many as are wanted."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from pydantic import ValidationError

from modelyard.api.common import problems
from modelyard.api.trainingpipeline import TrainingPipeline
from modelyard.cluster.client import Conflict
from modelyard.cluster.queue import GONE, Key
from modelyard.cluster.status import rfc3339
from modelyard.handlers.context import Condition, Context, Object, owner_reference
from modelyard.handlers.views import views_of
from modelyard.pipelines import ir
from modelyard.pipelines.compile import compile_pipeline
from modelyard.pipelines.errors import PipelineError
from modelyard.pipelines.observe import timestamp
from modelyard.pipelines.schedule import change_run, pipeline_digest, plan, prune

MANAGER = "modelyard-pipelines"
FINISHED = ("Succeeded", "Failed", "Cancelled")


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Looks at one pipeline: compiles it, makes due runs, prunes old ones."""
    obj = ctx.store.get(*key)
    if obj is None or obj["metadata"].get("deletionTimestamp"):
        return GONE
    status = dict(obj.get("status", {}))
    try:
        pipeline = TrainingPipeline.parse(obj)
        if pipeline.spec.pipeline_from is not None:
            raise PipelineError(
                "spec.pipelineFrom", "is not supported yet; put the compiled pipeline into pipelineSpec"
            )
        compiled = compile_pipeline(obj["spec"], key.name)
        ir.check(compiled.pipeline_spec, compiled.platform_spec)
        _, missing = views_of(ctx, key.namespace, obj["spec"].get("dataset"))
    except (ValidationError, PipelineError) as error:
        text = "; ".join(problems(error)) if isinstance(error, ValidationError) else str(error)
        if await ctx.write_status(obj, status, [Condition("Ready", False, "CompileFailed", text)], MANAGER) is not None:
            await ctx.event(obj, "Warning", "InvalidSpec", text)
        return None
    runs = [r for r in ctx.store.list("PipelineRun", key.namespace) if r["spec"].get("pipeline") == key.name]
    digest = pipeline_digest(obj["spec"])
    status["pipelineDigest"] = digest
    again = await _trigger(ctx, obj, pipeline, status, runs, digest, blocked=bool(missing))
    await _prune(ctx, obj, pipeline, runs)
    _summarise(status, runs)
    ready = Condition("Ready", True, "Reconciled", "")
    if missing:
        ready = Condition("Ready", False, "ViewNotFound", f"spec.dataset.features: {missing}")
    if await ctx.write_status(obj, status, [ready], MANAGER) is None:
        return 1.0
    return again


async def _trigger(
    ctx: Context,
    obj: Object,
    pipeline: TrainingPipeline,
    status: Object,
    runs: list[Object],
    digest: str,
    *,
    blocked: bool,
) -> float | None:
    triggers, now = pipeline.spec.triggers, ctx.now()
    if pipeline.spec.suspend or blocked:
        return None
    meta = obj["metadata"]
    active = [r["metadata"]["name"] for r in runs if r.get("status", {}).get("phase") not in FINISHED]
    if triggers.on_change:
        name = change_run(meta["name"], digest)
        if all(r["metadata"]["name"] != name for r in runs):
            await create_run(ctx, obj, name, "Change", now)
    if not triggers.schedules:
        status.pop("schedules", None)
        return None
    since = _since(obj, status)
    planned = plan(meta["name"], obj["spec"]["triggers"], since, now, active)
    for name in planned.replace:
        await ctx.client.merge("PipelineRun", meta["namespace"], name, {"spec": {"cancel": True}})
    for due in planned.create:
        await create_run(ctx, obj, due.name, "Schedule", due.at)
    for due in planned.skipped:
        await ctx.event(obj, "Warning", "RunSkipped", f"{due.name}: missed, or another run is under way")
    status["schedules"] = [
        {"cron": s.cron, "timeZone": s.time_zone}
        | ({"last": rfc3339(planned.handled)} if planned.handled else {})
        | ({"next": rfc3339(planned.next)} if planned.next else {})
        for s in triggers.schedules
    ]
    return max((planned.next - now).total_seconds(), 0.0) + 0.5 if planned.next else None


def _since(obj: Object, status: Object) -> datetime.datetime:
    """The last scheduled minute that was dealt with; at first, the pipeline's creation."""
    handled = [timestamp(entry.get("last")) for entry in status.get("schedules", [])]
    created = timestamp(obj["metadata"]["creationTimestamp"])
    assert created is not None
    return max([created, *(moment for moment in handled if moment is not None)])


async def create_run(ctx: Context, pipeline: Object, name: str, trigger: str, as_of: datetime.datetime) -> bool:
    """Makes a run of `pipeline`; False where it was there already, which is what makes triggers idempotent."""
    meta = pipeline["metadata"]
    run: Object = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "PipelineRun",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {"app.kubernetes.io/managed-by": "modelyard", "modelyard.dev/pipeline": meta["name"]},
            "ownerReferences": [owner_reference(pipeline)],
        },
        "spec": {"pipeline": meta["name"], "asOf": rfc3339(as_of), "trigger": trigger},
    }
    try:
        ctx.store.put(await ctx.client.create(run) | {"kind": "PipelineRun", "apiVersion": run["apiVersion"]})
    except Conflict:
        return False
    await ctx.event(pipeline, "Normal", "RunCreated", f"{name}, because of: {trigger}")
    await ctx.wake(Key("PipelineRun", meta["namespace"], name))
    return True


def _started(run: Object) -> str:
    return str(run["metadata"].get("creationTimestamp", ""))


async def _prune(ctx: Context, obj: Object, pipeline: TrainingPipeline, runs: Iterable[Object]) -> None:
    """Deletes the oldest finished runs beyond the history limits; ModelVersions and artifacts stay."""
    limits = pipeline.spec.history_limit
    change = change_run(pipeline.metadata.name, obj.get("status", {}).get("pipelineDigest", ""))
    finished = []
    for run in runs:
        have = run.get("status", {})
        ended = timestamp(have.get("finishedAt"))
        # The run of the present definition stays as the mark that this change has been dealt with.
        if have.get("phase") in FINISHED and ended is not None and run["metadata"]["name"] != change:
            finished.append((run["metadata"]["name"], have["phase"], ended))
    for name in prune(finished, limits.succeeded, limits.failed):
        await ctx.client.delete("PipelineRun", obj["metadata"]["namespace"], name)
        await ctx.event(obj, "Normal", "RunPruned", f"{name}: beyond historyLimit")


def _summarise(status: Object, runs: list[Object]) -> None:
    ordered = sorted(runs, key=_started)
    phases = [r.get("status", {}).get("phase") for r in ordered]
    status["active"] = sorted(r["metadata"]["name"] for r, p in zip(ordered, phases, strict=True) if p not in FINISHED)
    status["succeeded"] = phases.count("Succeeded")
    status["failed"] = phases.count("Failed") + phases.count("Cancelled")
    for field, wanted in (("lastRun", None), ("lastSucceeded", "Succeeded")):
        chosen = [r for r, p in zip(ordered, phases, strict=True) if wanted in (None, p)]
        if chosen:
            status[field] = _summary(chosen[-1])


def _summary(run: Object) -> Object:
    have = run.get("status", {})
    found: Object = {"name": run["metadata"]["name"], "phase": have.get("phase") or "Pending"}
    return found | {k: have[k] for k in ("startedAt", "finishedAt", "modelVersion") if have.get(k)}
