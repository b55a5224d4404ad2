"""PipelineRun: freezes the run, then has `pipelines.state.decide` say what is next, writes it, and does it.

The status is written first, guarded by the resourceVersion that the decision rests on; the actions follow, and each of
them may be repeated. So an operator that is killed anywhere, or looks at an old state, does no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from modelyard.api.common import problems
from modelyard.api.model import Model
from modelyard.api.names import child_name
from modelyard.api.pipelinerun import PipelineRun
from modelyard.cluster.client import ApiError, Conflict
from modelyard.cluster.queue import GONE, Key
from modelyard.cluster.status import rfc3339
from modelyard.handlers import metrics
from modelyard.handlers.context import Condition, Context, Object, owner_reference
from modelyard.handlers.model import MANAGER as REGISTRY
from modelyard.handlers.model import dump, versions_of
from modelyard.handlers.modelversion import ensure_model
from modelyard.handlers.routes import RUN_LABEL
from modelyard.handlers.views import views_of
from modelyard.pipelines import cache, jobs, state
from modelyard.pipelines.compile import canonical
from modelyard.pipelines.errors import PipelineError
from modelyard.pipelines.freeze import Frozen, RunRef, config_map, freeze, load
from modelyard.pipelines.observe import Observed, ObservedJob, Published, observe_job, timestamp
from modelyard.registry.numbering import reserve
from modelyard.registry.version import RunFacts, build

MANAGER = "modelyard-pipelines"
FINISHED = ("Succeeded", "Failed", "Cancelled")

_frozen: dict[str, Frozen] = {}
#: Jobs that the API server refused, by run: lost with the process, and then asked for and refused again.
_refused: dict[str, dict[str, str]] = {}


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Looks at one run."""
    obj = ctx.store.get(*key)
    if obj is None or obj["metadata"].get("deletionTimestamp"):
        return GONE
    status = obj.get("status", {})
    if status.get("phase") in FINISHED and not _jobs_left(ctx, obj):
        _frozen.pop(obj["metadata"]["uid"], None)
        _refused.pop(obj["metadata"]["uid"], None)
        return GONE
    try:
        run = PipelineRun.parse(obj)
        frozen = await _frozen_of(ctx, obj, run)
    except (ValidationError, PipelineError) as error:
        text = "; ".join(problems(error)) if isinstance(error, ValidationError) else str(error)
        return await _refuse(ctx, obj, text)
    if frozen is None:
        return 5.0
    observed = await _observe(ctx, obj)
    decision = state.decide(frozen, obj["spec"], obj.get("status", {}), observed, ctx.now())
    if decision.lookups:
        found = {lookup: await _lookup(ctx, key.namespace, lookup) for lookup in decision.lookups}
        observed = replace(observed, cache={**observed.cache, **found})
        decision = state.decide(frozen, obj["spec"], obj.get("status", {}), observed, ctx.now())
    before = obj
    said = [
        Condition(c["type"], c["status"] == "True", c["reason"], c.get("message", ""))
        for c in decision.status.pop("conditions", [])
    ]
    written = await ctx.write_status(obj, decision.status, said, MANAGER)
    if written is None:
        await ctx.fresh(key)
        return 0.2
    _count(before, written)
    for action in decision.actions:
        await _act(ctx, written, frozen, action)
    return decision.requeue_after


def _jobs_left(ctx: Context, obj: Object) -> bool:
    meta = obj["metadata"]
    jobs_ = ctx.store.select("Job", meta["namespace"], {RUN_LABEL: meta["name"]})
    return any(not job.get("status", {}).get("completionTime") and _active(job) for job in jobs_)


def _active(job: Object) -> bool:
    return not any(c.get("type") in ("Complete", "Failed") for c in job.get("status", {}).get("conditions") or [])


async def _refuse(ctx: Context, obj: Object, text: str) -> float | None:
    status = {**obj.get("status", {}), "phase": "Failed", "reason": "InvalidSpec", "message": text}
    status["finishedAt"] = rfc3339(ctx.now())
    if await ctx.write_status(obj, status, [Condition("Ready", False, "InvalidSpec", text)], MANAGER) is None:
        return 1.0
    await ctx.event(obj, "Warning", "RunFailed", text)
    return GONE


async def _frozen_of(ctx: Context, obj: Object, run: PipelineRun) -> Frozen | None:
    """The run's frozen document: loaded, or made and stored, or None while something it names is not there yet."""
    meta, status = obj["metadata"], dict(obj.get("status", {}))
    if meta["uid"] in _frozen:
        return _frozen[meta["uid"]]
    name = child_name(meta["name"], "frozen")
    if have := status.get("frozen"):
        stored = await ctx.client.get("ConfigMap", meta["namespace"], name)
        if stored is None:
            raise PipelineError("status.frozen", f"the ConfigMap {name} is gone; make another run")
        frozen = load(stored, have["digest"])
    else:
        made = await _freeze(ctx, obj, run)
        if made is None:
            return None
        try:
            await ctx.client.create(config_map(made, owner_reference(obj)))
            frozen = made
        except Conflict:
            # Made by us before we were killed: that one counts, even if the world has changed since.
            stored = await ctx.client.get("ConfigMap", meta["namespace"], name)
            digest = ((stored or {}).get("metadata", {}).get("annotations") or {}).get("modelyard.dev/digest", "")
            if stored is None:
                return None
            frozen = load(stored, digest)
        uri = f"configmap:{meta['namespace']}/{name}"
        status["frozen"] = {"uri": uri, "digest": frozen.digest}
        said = Condition("Ready", False, "Pending", "frozen")
        if await ctx.write_status(obj, status, [said], MANAGER) is None:
            await ctx.fresh(Key("PipelineRun", meta["namespace"], meta["name"]))
            return None
        obj.update(ctx.store.get("PipelineRun", meta["namespace"], meta["name"]) or obj)
    _frozen[meta["uid"]] = frozen
    return frozen


async def _freeze(ctx: Context, obj: Object, run: PipelineRun) -> Frozen | None:
    meta = obj["metadata"]
    namespace = meta["namespace"]
    pipeline = ctx.store.get("TrainingPipeline", namespace, run.spec.pipeline)
    if pipeline is None:
        pipeline = await ctx.fresh(Key("TrainingPipeline", namespace, run.spec.pipeline))
    if pipeline is None:
        raise PipelineError(
            "spec.pipeline", f"there is no TrainingPipeline {run.spec.pipeline} in namespace {namespace}"
        )
    spec = pipeline["spec"]
    production = _production(ctx, namespace, spec.get("model"))
    more = tuple(f"{f['view']}:{name}" for f in (production or {}).get("features", []) for name in f.get("names", []))
    views, missing = views_of(ctx, namespace, spec.get("dataset"), more)
    if missing:
        said = Condition("Ready", False, "ViewNotFound", f"spec.dataset.features: {missing}")
        await ctx.write_status(obj, {**obj.get("status", {}), "phase": "Pending"}, [said], MANAGER)
        return None
    digest, mounted = await _code(ctx, obj, spec)
    created = timestamp(meta["creationTimestamp"])
    assert created is not None
    reference = RunRef(
        meta["name"],
        namespace,
        run.spec.pipeline,
        created,
        obj["spec"].get("parameters") or {},
        run.spec.as_of,
    )
    return freeze(
        spec,
        reference,
        views,
        production,
        digest,
        runtime_image=ctx.settings.runtime_image,
        code_config_map=mounted,
    )


def _production(ctx: Context, namespace: str, model: str | None) -> Object | None:
    """The version in Production, as an evaluating step needs it."""
    found = ctx.store.get("Model", namespace, model) if model else None
    number = (found or {}).get("status", {}).get("production")
    version = ctx.store.get("ModelVersion", namespace, f"{model}-{number}") if number else None
    if version is None:
        return None
    spec = version["spec"]
    return {
        "version": number,
        "artifact": spec["artifact"],
        "features": spec.get("features", []),
        "signature": spec.get("signature", {}),
    }


async def _code(ctx: Context, obj: Object, spec: Object) -> tuple[str | None, str | None]:
    """The digest of the pipeline's code, and the immutable copy of it that this run mounts."""
    code = spec.get("code")
    if not code:
        return None, None
    if not code.get("configMap"):
        raise PipelineError("spec.code.git", "is not supported yet; use spec.code.configMap")
    meta = obj["metadata"]
    source = await ctx.client.get("ConfigMap", meta["namespace"], code["configMap"])
    if source is None:
        raise PipelineError("spec.code.configMap", f"there is no ConfigMap {code['configMap']} in {meta['namespace']}")
    content = {k: source[k] for k in ("data", "binaryData") if source.get(k)}
    digest = "sha256:" + hashlib.sha256(canonical(content).encode()).hexdigest()
    copy = jobs.code_config_map(
        meta["namespace"],
        content.get("data", {}),
        content.get("binaryData", {}),
        digest,
        owner_reference(obj),
    )
    # Taken already: the same code under the same name, since it is immutable.
    with contextlib.suppress(Conflict):
        await ctx.client.create(copy)
    return digest, str(copy["metadata"]["name"])


async def _observe(ctx: Context, obj: Object) -> Observed:
    meta = obj["metadata"]
    seen: dict[str, ObservedJob] = {}
    for job in ctx.store.select("Job", meta["namespace"], {RUN_LABEL: meta["name"]}):
        pods = ctx.store.select("Pod", meta["namespace"], {"job-name": job["metadata"]["name"]})
        seen[job["metadata"]["name"]] = observe_job(job, pods)
    version, refusal = _registered(ctx, obj)
    return Observed(
        jobs=seen,
        refused=_refused.get(meta["uid"], {}),
        resume=_resume(ctx, obj),
        model_version=version,
        register_error=refusal,
    )


def _registered(ctx: Context, obj: Object) -> tuple[str | None, str | None]:
    meta = obj["metadata"]
    for version in ctx.store.list("ModelVersion", meta["namespace"]):
        if (version["metadata"].get("annotations") or {}).get("modelyard.dev/run-uid") == meta["uid"]:
            return version["metadata"]["name"], None
    for condition in obj.get("status", {}).get("conditions", []):
        if condition["type"] == "Registered" and condition["status"] == "False":
            return None, condition.get("message")
    return None, None


def _resume(ctx: Context, obj: Object) -> dict[str, Published]:
    meta, earlier = obj["metadata"], obj["spec"].get("resumeFrom")
    found = ctx.store.get("PipelineRun", meta["namespace"], earlier) if earlier else None
    if found is None:
        return {}
    return {
        step["name"]: Published(step["cacheKey"], step["outputs"], str(earlier), step["name"])
        for step in found.get("status", {}).get("steps", [])
        if step.get("phase") == "Succeeded" and step.get("cacheKey") and step.get("outputs") is not None
    }


async def _lookup(ctx: Context, namespace: str, key: str) -> Published | None:
    stored = await ctx.client.get("ConfigMap", namespace, cache.record_name(key))
    return cache.parse_record(stored, key) if stored else None


async def _act(ctx: Context, obj: Object, frozen: Frozen, action: state.Action) -> None:
    meta = obj["metadata"]
    if isinstance(action, state.Event):
        await ctx.event(obj, action.type, action.reason, action.message)
    elif isinstance(action, state.DeleteJob):
        await ctx.client.delete("Job", meta["namespace"], action.name)
    elif isinstance(action, state.Remember):
        await ctx.client.apply(cache.build_record(frozen, action.task, action.key, action.outputs, ctx.now()), MANAGER)
    elif isinstance(action, state.CreateJob):
        await _create_job(ctx, obj, frozen, action)
    elif isinstance(action, state.Register):
        await _register(ctx, obj, action.payload)


async def _create_job(ctx: Context, obj: Object, frozen: Frozen, action: state.CreateJob) -> None:
    """Makes the objects of an attempt; what the API server refuses for good is remembered and fails the step."""
    meta = obj["metadata"]
    try:
        for made in jobs.build(frozen, action.task, action.attempt, action.resolved, owner_reference(obj)):
            # Taken already: the attempt is there, its name is the attempt.
            with contextlib.suppress(Conflict):
                created = await ctx.client.create(made)
                ctx.store.put({**created, "kind": made["kind"], "apiVersion": made["apiVersion"]})
        return
    except PipelineError as error:
        why = str(error)
    except ApiError as error:
        if error.status not in (400, 403, 422):
            raise
        why = error.message
    _refused.setdefault(meta["uid"], {})[action.name] = why
    await ctx.wake(Key("PipelineRun", meta["namespace"], meta["name"]))


async def _register(ctx: Context, obj: Object, payload: Any) -> None:
    """Makes the ModelVersion of a run: the number first, guarded, in the Model; then the version of that number."""
    meta = obj["metadata"]
    registration = payload["registration"]
    if isinstance(registration, str):
        registration = json.loads(registration)
    name, provenance = registration["model"], payload["provenance"]
    await ensure_model(ctx, meta["namespace"], name)
    model = await ctx.fresh(Key("Model", meta["namespace"], name))
    if model is None:
        await ctx.wake(Key("PipelineRun", meta["namespace"], meta["name"]))
        return
    versions = versions_of(ctx, meta["namespace"], name)
    status, number = reserve(Model.parse(model).status, meta["uid"], [v.spec.version for v in versions])
    old = model.get("status", {})
    carried = {k: old[k] for k in ("conditions", "observedGeneration") if k in old}
    if await ctx.write_status(model, {**dump(status), **carried}, [], REGISTRY) is None:
        # Somebody else wrote first; the reservation is asked for again, and Register with it.
        await ctx.wake(Key("PipelineRun", meta["namespace"], meta["name"]))
        return
    facts = RunFacts(
        name=meta["name"],
        uid=meta["uid"],
        pipeline=frozen_name(obj),
        pipeline_digest=provenance["pipelineDigest"],
        git_revision=None,
        images=dict(enumerate_images(provenance["images"])),
        parameters=provenance["parameters"],
        trained_by=(meta.get("annotations") or {}).get("modelyard.dev/by"),
    )
    version = build(registration, meta["namespace"], number, facts)
    try:
        created = await ctx.client.create(version)
        ctx.store.put({**created, "kind": "ModelVersion", "apiVersion": version["apiVersion"]})
        await ctx.event(obj, "Normal", "VersionRegistered", f"{created['metadata']['name']}")
    except Conflict:
        await ctx.fresh(Key("ModelVersion", meta["namespace"], version["metadata"]["name"]))
    except ApiError as error:
        if error.status not in (400, 403, 422):
            raise
        said = Condition("Registered", False, "RegistrationRefused", error.message)
        await ctx.write_status(obj, dict(obj.get("status", {})), [said], MANAGER)
    await ctx.wake(Key("PipelineRun", meta["namespace"], meta["name"]))
    await ctx.wake(Key("Model", meta["namespace"], name))


def frozen_name(obj: Object) -> str:
    """The pipeline that a run is of."""
    return str(obj["spec"]["pipeline"])


def enumerate_images(images: list[str]) -> list[tuple[str, str]]:
    """Images under the names that a provenance map wants."""
    return [(f"image{number}", image) for number, image in enumerate(images, 1)]


def _count(before: Object, after: Object) -> None:
    """Metrics of what has just ended."""
    meta, old, new = after["metadata"], before.get("status", {}), after.get("status", {})
    pipeline = after["spec"]["pipeline"]
    ended = {s["name"] for s in old.get("steps", []) if s.get("finishedAt")}
    for step in new.get("steps", []):
        if step.get("finishedAt") and step["name"] not in ended:
            metrics.STEPS.labels(meta["namespace"], pipeline, step["phase"]).inc()
            start, end = timestamp(step.get("startedAt")), timestamp(step["finishedAt"])
            if start and end:
                metrics.STEP_DURATION.labels(meta["namespace"], pipeline, step["name"]).observe(
                    (end - start).total_seconds()
                )
    if new.get("finishedAt") and not old.get("finishedAt"):
        metrics.RUNS.labels(meta["namespace"], pipeline, new["phase"]).inc()
        start, end = timestamp(new.get("startedAt")), timestamp(new["finishedAt"])
        if start and end:
            metrics.RUN_DURATION.labels(meta["namespace"], pipeline).observe((end - start).total_seconds())
