"""ModelVersion: its stage and gates, derived from the Model, and who serves it."""

from __future__ import annotations

import contextlib

from pydantic import ValidationError

from modelyard.api.common import problems
from modelyard.api.model import Model
from modelyard.api.modelversion import ModelVersion
from modelyard.cluster.client import Conflict
from modelyard.cluster.queue import GONE, Key
from modelyard.handlers.context import Condition, Context
from modelyard.handlers.model import versions_of
from modelyard.registry import stages

MANAGER = "modelyard-registry"


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Looks at one version; makes its Model where there is none."""
    obj = ctx.store.get(*key)
    if obj is None or obj["metadata"].get("deletionTimestamp"):
        return GONE
    status = dict(obj.get("status", {}))
    try:
        version = ModelVersion.parse(obj)
    except ValidationError as error:
        await ctx.write_status(
            obj, status, [Condition("Ready", False, "InvalidSpec", "; ".join(problems(error)))], MANAGER
        )
        return None
    parent = ctx.store.get("Model", key.namespace, version.spec.model)
    if parent is None:
        await ensure_model(ctx, key.namespace, version.spec.model)
        return 1.0
    model = Model.parse(parent)
    decision = stages.decide(model.spec, model.status, versions_of(ctx, key.namespace, version.spec.model), ctx.now())
    status["stage"] = str(decision.stages.get(version.spec.version, "None"))
    status["servedBy"] = sorted(
        s["metadata"]["name"]
        for s in ctx.store.list("ServingDeployment", key.namespace)
        if s["spec"]["model"]["name"] == version.spec.model
        and any(t["version"] == version.spec.version for t in s.get("status", {}).get("traffic", []))
    )
    said = [
        Condition(c.type, c.status, c.reason, c.message)
        for c in decision.conditions
        if c.version == version.spec.version
    ]
    said.append(Condition("Ready", True, "Registered", f"stage {status['stage']}"))
    return None if await ctx.write_status(obj, status, said, MANAGER) is not None else 0.5


async def ensure_model(ctx: Context, namespace: str, name: str) -> None:
    """Makes the Model of a first registration; one that is there is left as it is."""
    body = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {},
    }
    with contextlib.suppress(Conflict):
        ctx.store.put(await ctx.client.create(body) | {"kind": "Model", "apiVersion": body["apiVersion"]})
    await ctx.wake(Key("Model", namespace, name))
