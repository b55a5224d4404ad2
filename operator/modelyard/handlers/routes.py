"""Which objects are to be looked at again when one of them, or something they made, changed."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.cluster.queue import Key
from modelyard.handlers.store import Object, Store

RUN_LABEL = "modelyard.dev/run"
VIEW_LABEL = "modelyard.dev/feature-view"
SERVING_LABEL = "modelyard.dev/serving-deployment"


def keys_of(obj: Object, store: Store) -> Iterator[Key]:
    """The keys that a change of `obj` concerns: its own, its owner's, and those that follow it."""
    kind, meta = obj["kind"], obj["metadata"]
    namespace, spec = meta["namespace"], obj.get("spec") or {}
    labels = meta.get("labels") or {}
    if kind in ("Job", "Pod", "Deployment"):
        for label, owner in (
            (RUN_LABEL, "PipelineRun"),
            (VIEW_LABEL, "FeatureView"),
            (SERVING_LABEL, "ServingDeployment"),
        ):
            if label in labels:
                yield Key(owner, namespace, labels[label])
        return
    yield Key(kind, namespace, meta["name"])
    if kind == "PipelineRun" and spec.get("pipeline"):
        yield Key("TrainingPipeline", namespace, spec["pipeline"])
    elif kind == "ModelVersion":
        yield Key("Model", namespace, spec["model"])
    elif kind == "Model":
        for other in store.list("ServingDeployment", namespace):
            if other["spec"]["model"]["name"] == meta["name"]:
                yield Key("ServingDeployment", namespace, other["metadata"]["name"])
        for other in store.list("ModelVersion", namespace):
            if other["spec"]["model"] == meta["name"]:
                yield Key("ModelVersion", namespace, other["metadata"]["name"])
    elif kind == "ServingDeployment":
        yield Key("Model", namespace, spec["model"]["name"])
