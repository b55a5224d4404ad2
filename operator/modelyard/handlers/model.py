"""Model: the one fact of what is in Production and in Staging, decided by `registry.stages` and written guarded."""

from __future__ import annotations

from pydantic import ValidationError

from modelyard.api.common import problems
from modelyard.api.model import Model
from modelyard.api.modelversion import ModelVersion
from modelyard.cluster.queue import GONE, Key
from modelyard.handlers.context import Condition, Context, Object
from modelyard.registry import stages
from modelyard.registry.stages import Passed

MANAGER = "modelyard-registry"


def versions_of(ctx: Context, namespace: str, model: str) -> list[ModelVersion]:
    """The ModelVersions of a model, by number; one that does not parse is left out (its own Ready says why)."""
    found = []
    for obj in ctx.store.list("ModelVersion", namespace):
        if obj["spec"].get("model") == model:
            try:
                found.append(ModelVersion.parse(obj))
            except ValidationError:
                continue
    return sorted(found, key=lambda version: version.spec.version)


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Looks at one model."""
    obj = ctx.store.get(*key)
    if obj is None or obj["metadata"].get("deletionTimestamp"):
        return GONE
    try:
        model = Model.parse(obj)
    except ValidationError as error:
        said = Condition("Ready", False, "InvalidSpec", "; ".join(problems(error)))
        await ctx.write_status(obj, dict(obj.get("status", {})), [said], MANAGER)
        return None
    versions = versions_of(ctx, key.namespace, key.name)
    decision = stages.decide(model.spec, model.status, versions, ctx.now(), passed(ctx, key))
    conditions = [Condition(s.type, s.status, s.reason, s.message) for s in decision.conditions if s.version is None]
    written = await ctx.write_status(obj, dump(decision.status), conditions, MANAGER)
    if written is None:
        return 0.5
    for event in decision.events:
        await ctx.event(obj, "Warning" if event.warning else "Normal", event.reason, event.message)
    for version in versions:
        await ctx.wake(Key("ModelVersion", key.namespace, version.metadata.name))
    return None


def dump(status: object) -> Object:
    """A Model's status as it is stored, without conditions, which the writer adds."""
    data: Object = status.model_dump(mode="json", by_alias=True, exclude_none=True)  # type: ignore[attr-defined]
    for field in ("conditions", "observedGeneration"):
        data.pop(field, None)
    return {name: value for name, value in data.items() if value not in ([], {})}


def passed(ctx: Context, key: Key) -> list[Passed]:
    """Rollouts that a pin keeps from ending."""
    found = []
    for serving in ctx.store.list("ServingDeployment", key.namespace):
        candidate = serving.get("status", {}).get("candidate")
        if serving["spec"]["model"]["name"] != key.name or not candidate:
            continue
        for condition in serving["status"].get("conditions", []):
            if condition["type"] == "Progressing" and "spec.production" in condition.get("message", ""):
                found.append(Passed(serving["metadata"]["name"], int(candidate["version"])))
    return found
