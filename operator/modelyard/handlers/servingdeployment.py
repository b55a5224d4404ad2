"""ServingDeployment: has `serving.rollout.decide` say which version gets what share, and makes it so."""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

from pydantic import ValidationError

from modelyard.api.common import problems
from modelyard.api.model import Model
from modelyard.api.modelversion import ModelVersion
from modelyard.api.servingdeployment import ServingDeployment
from modelyard.cluster.queue import GONE, Key
from modelyard.cluster.status import merge_conditions, write_status
from modelyard.handlers import metrics
from modelyard.handlers.context import Condition, Context, Object
from modelyard.handlers.drift import evaluate_drift
from modelyard.handlers.measure import measure, only_errors
from modelyard.handlers.model import dump, versions_of
from modelyard.handlers.routes import SERVING_LABEL
from modelyard.registry import stages
from modelyard.serving import objects
from modelyard.serving.pods import Health, health
from modelyard.serving.rollout import decide, wants_readings
from modelyard.serving.status import model_view, policy_of, state_of, status_of, whole_second
from modelyard.serving.words import Decision, Event, Observed, Promote, Reject

MANAGER = "modelyard-serving"
REGISTRY = "modelyard-registry"
VERSION_LABEL = "modelyard.dev/version"
#: How often a rollout is looked at between analyses: what the fast path needs.
FAST = 3.0
#: How often drift is evaluated.
DRIFT_SECONDS = 15.0

_applied: dict[tuple[str, str, str], str] = {}


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Looks at one ServingDeployment."""
    obj = ctx.store.get(*key)
    if obj is None or obj["metadata"].get("deletionTimestamp"):
        return GONE
    status = dict(obj.get("status", {}))
    try:
        serving = ServingDeployment.parse(obj)
    except ValidationError as error:
        said = Condition("Ready", False, "InvalidSpec", "; ".join(problems(error)))
        await ctx.write_status(obj, status, [said], MANAGER)
        return None
    parent = ctx.store.get("Model", key.namespace, serving.spec.model.name)
    if parent is None:
        message = f"spec.model.name: there is no Model {serving.spec.model.name} in namespace {key.namespace}"
        await ctx.write_status(obj, status, [Condition("Ready", False, "ModelNotFound", message)], MANAGER)
        return 15.0
    model = Model.parse(parent)
    versions = versions_of(ctx, key.namespace, serving.spec.model.name)
    now = whole_second(ctx.now())
    policy, state = policy_of(serving.spec), state_of(serving.status)
    pods = _pods(ctx, key)
    if state.candidate is not None and state.step > 0 and (why := await only_errors(ctx, key, state.candidate)):
        pods[state.candidate] = Health(0, why)
    annotations = obj["metadata"].get("annotations") or {}
    observed = Observed(
        model=model_view(model, versions),
        pods=pods,
        approve=annotations.get("modelyard.dev/approve", ""),
        abort=annotations.get("modelyard.dev/abort", ""),
        by=annotations.get("modelyard.dev/by", "unverified"),
    )
    if wants_readings(policy, state, observed.model, now):
        observed = await measure(ctx, key, policy, state, observed)
    decision = decide(policy, state, observed, now)
    drift, drifted = await evaluate_drift(ctx, key, serving, decision.state.stable, status, DRIFT_SECONDS)
    status.update(drift)
    for field, value in status_of(decision.state).items():
        if value is None:
            status.pop(field, None)
        else:
            status[field] = value
    conditions = [Condition(s.type, s.status, s.reason, s.message) for s in decision.conditions]
    written = await ctx.write_status(obj, status, [*conditions, *drifted], MANAGER)
    if written is None:
        await ctx.fresh(key)
        return 0.2
    await _objects(ctx, written, serving, versions, decision)
    for action in decision.actions:
        if isinstance(action, Event):
            await ctx.event(obj, "Warning" if action.warning else "Normal", action.reason, action.message)
        elif not await _tell_registry(ctx, key, serving, action, now):
            return 0.5
    _publish(key, written)
    again = decision.again.total_seconds() if decision.again else None
    if decision.state.candidate is not None:
        again = min(again or FAST, FAST)
    elif serving.spec.monitoring is not None and serving.spec.monitoring.drift is not None:
        again = min(again or DRIFT_SECONDS, DRIFT_SECONDS)
    return again


def _pods(ctx: Context, key: Key) -> dict[int, Health]:
    """The health of each version's pods."""
    by_version: dict[int, list[Object]] = {}
    for pod in ctx.store.select("Pod", key.namespace, {SERVING_LABEL: key.name}):
        number = (pod["metadata"].get("labels") or {}).get(VERSION_LABEL, "")
        if number.isdigit():
            by_version.setdefault(int(number), []).append(pod)
    return {number: health(pods) for number, pods in by_version.items()}


async def _tell_registry(
    ctx: Context, key: Key, serving: ServingDeployment, action: Promote | Reject, now: datetime.datetime
) -> bool:
    """Writes a rollout's end into the registry; False where it has to be tried again (the outcome stays in status)."""
    name = serving.spec.model.name
    fresh = await ctx.fresh(Key("Model", key.namespace, name))
    if fresh is None:
        return True
    model = Model.parse(fresh)
    if isinstance(action, Promote):
        changed = stages.promote(
            model.spec, model.status, action.version, action.reason, by=f"rollout {key.name}", now=now
        )
    else:
        rejection = stages.reject(model.status, action.version, action.reason)
        marked = await _mark(ctx, Key("ModelVersion", key.namespace, f"{name}-{action.version}"), rejection.condition)
        if not marked:
            return False
        changed = rejection.status
    old = fresh.get("status", {})
    carried = {k: old[k] for k in ("conditions", "observedGeneration") if k in old}
    written = await write_status(ctx.client, fresh, {**dump(changed), **carried}, REGISTRY)
    if written is None:
        return False
    ctx.store.put({**written, "kind": "Model", "apiVersion": fresh["apiVersion"]})
    await ctx.wake(Key("Model", key.namespace, name))
    return True


async def _mark(ctx: Context, key: Key, said: stages.Said) -> bool:
    version = await ctx.fresh(key)
    if version is None:
        return True
    status = dict(version.get("status", {}))
    condition = Condition(said.type, said.status, said.reason, said.message)
    status["conditions"] = merge_conditions(status.get("conditions", []), [condition], ctx.now())
    written = await write_status(ctx.client, version, status, REGISTRY)
    if written is None:
        return False
    ctx.store.put({**written, "kind": "ModelVersion", "apiVersion": version["apiVersion"]})
    await ctx.event(version, "Warning", "VersionRejected", said.message)
    return True


async def _objects(
    ctx: Context, obj: Object, serving: ServingDeployment, versions: list[ModelVersion], decision: Decision
) -> None:
    """What must exist exists, and what a version left behind goes."""
    meta = obj["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    images = objects.Images(ctx.settings.runtime_image, ctx.settings.router_image, ctx.settings.pull_policy)
    target = objects.Serving(namespace, name, meta["uid"], serving.spec)
    views = {v["metadata"]["name"]: {**v["spec"]} for v in ctx.store.list("FeatureView", namespace)}
    by_number = {v.spec.version: v.spec for v in versions}
    wanted: list[Object] = [objects.front_service(target)]
    configs = []
    for number, replicas in sorted(decision.objects.items()):
        if number in by_number:
            wanted += objects.version_objects(target, by_number[number], replicas, images, views)
            configs.append(objects.server_config(target, by_number[number], views))
    if serving.spec.monitoring is not None and configs:
        wanted += objects.monitor_objects(target, configs, images)
    owners = [
        objects.owner_reference(other["metadata"]["name"], other["metadata"]["uid"])
        for other in sorted(ctx.store.list("ServingDeployment", namespace), key=lambda o: str(o["metadata"]["name"]))
    ]
    wanted += objects.router_objects(namespace, owners, images, replicas=1)
    from modelyard.features.definitions import version as view_version

    served = {n: {**s, "version": view_version(s)} for n, s in views.items() if s.get("online")}
    if served:
        wanted += objects.feature_server_objects(namespace, served, owners, images)
    for made in wanted:
        await _ensure(ctx, made)
    await _remove(ctx, namespace, name, set(decision.objects))


async def _ensure(ctx: Context, made: Object) -> None:
    """Applies what is not as it was applied last."""
    meta = made["metadata"]
    identity = (made["kind"], meta["namespace"], meta["name"])
    digest = hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()
    gone = made["kind"] == "Deployment" and ctx.store.get("Deployment", meta["namespace"], meta["name"]) is None
    if _applied.get(identity) == digest and not gone:
        return
    await ctx.client.apply(made, MANAGER)
    _applied[identity] = digest


async def _remove(ctx: Context, namespace: str, name: str, kept: set[int]) -> None:
    for deployment in ctx.store.select("Deployment", namespace, {SERVING_LABEL: name}):
        meta = deployment["metadata"]
        number = (meta.get("labels") or {}).get(VERSION_LABEL, "")
        if not number.isdigit() or int(number) in kept:
            continue
        for kind in ("Deployment", "Service", "ConfigMap"):
            await ctx.client.delete(kind, namespace, meta["name"])
            _applied.pop((kind, namespace, meta["name"]), None)


def _publish(key: Key, obj: Object) -> None:
    status: dict[str, Any] = obj.get("status", {})
    for entry in status.get("traffic", []):
        metrics.WEIGHT.labels(key.namespace, key.name, str(entry["version"])).set(entry["weight"])
    for entry in status.get("analysis", []):
        metrics.VERDICTS.labels(key.namespace, key.name, entry["metric"], entry["verdict"]).inc()
