"""From what a run's `register` step says to the ModelVersion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.api.common import API_VERSION
from modelyard.api.names import model_version_name


@dataclass(frozen=True)
class RunFacts:
    """What the operator knows of a run, beside what the run says of itself."""

    name: str
    uid: str
    pipeline: str | None = None
    pipeline_digest: str | None = None
    git_revision: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    trained_by: str | None = None


def build(registration: Mapping[str, Any], namespace: str, number: int, run: RunFacts) -> dict[str, Any]:
    """The ModelVersion of a registration. It has no owner: it outlives the run and the pipeline."""
    model = registration["model"]
    provenance = {
        "pipeline": run.pipeline,
        "run": run.name,
        "pipelineDigest": run.pipeline_digest,
        "gitRevision": run.git_revision,
        "images": dict(run.images),
        "parameters": dict(run.parameters),
        "data": registration.get("data"),
        "asOf": registration.get("asOf"),
        "trainedBy": run.trained_by,
        "seed": registration.get("seed"),
    }
    spec = {
        "model": model,
        "version": number,
        "artifact": registration["artifact"],
        "signature": registration.get("signature"),
        "features": registration.get("features"),
        "baseline": registration.get("baseline"),
        "provenance": _given(provenance),
        "metrics": registration.get("metrics"),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelVersion",
        "metadata": {
            "name": model_version_name(model, number),
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "modelyard",
                "app.kubernetes.io/part-of": model,
                "modelyard.dev/model": model,
                "modelyard.dev/version": str(number),
            },
            "annotations": {"modelyard.dev/run-uid": run.uid},
        },
        "spec": _given(spec),
    }


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    # 0 is a seed; empty lists and maps say nothing.
    return {key: value for key, value in fields.items() if value is not None and value not in ({}, [])}
