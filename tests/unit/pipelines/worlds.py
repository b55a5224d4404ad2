"""What the pipeline tests share: example pipelines, and a small cluster that loses pods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from modelyard.pipelines import ir
from modelyard.pipelines.freeze import Frozen, RunRef, freeze
from modelyard.pipelines.observe import Observed, ObservedJob, ObservedPod
from modelyard.pipelines.state import Action, CreateJob, Decision, DeleteJob, decide, job_name

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "PipelineRun", "name": "r1", "uid": "u"}

FLIGHT: dict[str, Any] = {
    "model": "flight-delay",
    "parameters": {"late_minutes": 15, "note": "hi"},
    "dataset": {
        "spine": {"uri": "s3://lake/bookings/", "connection": "lake", "eventTimestamp": "predict_at"},
        "features": ["carrier:mean"],
    },
    "code": {"configMap": "flight-code"},
    "podTemplate": {
        "serviceAccountName": "train", "nodeSelector": {"pool": "gpu"}, "imagePullSecrets": [{"name": "pull"}],
        "tolerations": [{"key": "gpu", "operator": "Exists"}], "volumes": [{"name": "scratch", "emptyDir": {}}],
    },
    "parallelism": 8,
    "steps": [
        {"name": "ingest", "component": "ingest"},
        {
            "name": "validate", "component": "validate", "arguments": {"data": "$(steps.ingest.outputs.data)"},
            "retries": {"limit": 2},
        },
        {"name": "features", "component": "features", "arguments": {"data": "$(steps.ingest.outputs.data)"}},
        {
            "name": "train", "image": "python:3.11-slim", "after": ["validate"],
            "inputs": {"data": "$(steps.features.outputs.train)", "depth": 6},
            "outputs": {"model": "Model", "report": "Metrics", "score": "Float"},
            "command": [
                "python", "/code/train.py", "--data=$(inputs.data.path)", "--depth=$(inputs.depth)",
                "--model=$(outputs.model.path)", "--score=$(outputs.score.path)", "$(params.note)", "$(MASTER_ADDR)",
            ],
            "env": [{"name": "LATE", "value": "$(params.late_minutes) min"},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "4Gi"}, "requests": {"ephemeral-storage": "1Gi"}},
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            "workers": 4, "timeout": "2h", "retries": {"limit": 2, "backoff": "30s", "factor": 2, "max": "10m"},
            "cache": {"enabled": True, "maxAge": "7d"}, "when": "steps.validate.outputs.anomalies == 0",
        },
        {
            "name": "evaluate", "component": "evaluate",
            "arguments": {"model": "$(steps.train.outputs.model)", "test": "$(steps.features.outputs.test)"},
        },
        {
            "name": "register", "component": "register",
            "arguments": {
                "model": "$(steps.train.outputs.model)", "profile": "$(steps.features.outputs.profile)",
                "metrics": {
                    "roc_auc": "$(steps.evaluate.outputs.roc_auc)",
                    "text": "auc $(steps.evaluate.outputs.roc_auc)",
                },
            },
        },
    ],
}  # fmt: skip


def frozen_of(spec: Mapping[str, Any], run: str = "r1", **parameters: Any) -> Frozen:
    """A frozen run of a pipeline."""
    views = {"carrier": {"version": "3f9a1c", "entities": []}}
    return freeze(
        spec, RunRef(run, "team", "flight-delay", NOW, parameters), views, None,
        "sha256:code" if spec.get("code") else None, runtime_image="runtime:1",
    )  # fmt: skip


def shell(name: str, **more: Any) -> dict[str, Any]:
    """A step of a user's image with one output parameter, its number."""
    return {"name": name, "image": "busybox", "command": ["true"], "outputs": {"n": "Integer"}, **more}


def diamond(**more: Any) -> dict[str, Any]:
    """a → b, c → d."""
    use = "$(steps.{}.outputs.n)"
    return {
        "steps": [
            shell("a", **more.pop("a", {})),
            shell("b", **{"inputs": {"n": use.format("a")}} | more.pop("b", {})),
            shell("c", **{"inputs": {"n": use.format("a")}} | more.pop("c", {})),
            shell("d", inputs={"b": use.format("b"), "c": use.format("c")}, **more.pop("d", {})),
        ],
        **more,
    }


def manifest(frozen: Frozen, task: str, attempt: int, value: Any = None) -> str:
    """A manifest with every declared output, marked with the attempt that made it."""
    parameters, artifacts = ir.outputs(frozen.ir, task)
    made: dict[str, Any] = {
        "NUMBER_INTEGER": attempt if value is None else value, "NUMBER_DOUBLE": 0.7, "STRING": "s", "BOOLEAN": True,
        "STRUCT": {"model": "m"}, "LIST": [],
    }  # fmt: skip
    prefix = f"file:///artifacts/runs/{frozen.run}/{task}/{attempt}"
    outputs = {
        "parameters": {name: made[kind] for name, kind in parameters.items()},
        "artifacts": {n: {"uri": f"{prefix}/{n}", "digest": f"sha256:{task}{n}"} for n in artifacts},
    }
    return json.dumps({"outputs": outputs})


class World:
    """A cluster, seen by an operator that writes status first and acts second."""

    def __init__(self, frozen: Frozen, spec: dict[str, Any] | None = None) -> None:
        self.frozen, self.spec = frozen, spec or {}
        self.status: dict[str, Any] = {}
        self.jobs: dict[str, ObservedJob] = {}
        self.created: list[tuple[str, int]] = []
        self.observed = Observed(model_version="m-1")
        self.now = NOW
        self.events: list[str] = []
        self.caching = False

    def look(self, jobs: Mapping[str, ObservedJob] | None = None) -> Decision:
        """Decide, with the lookups that the decision asks for."""
        cache = dict(self.observed.cache)
        for _ in range(20):
            seen = replace(self.observed, jobs=dict(self.jobs if jobs is None else jobs), cache=cache)
            decision = decide(self.frozen, self.spec, self.status, seen, self.now)
            if not decision.lookups:
                return decision
            cache |= {key: None for key in decision.lookups if key not in cache}
        raise AssertionError("lookups never end")

    def step(self, seconds: float = 0) -> Decision:
        """Time passes, and the operator does all it decides."""
        self.now += timedelta(seconds=seconds)
        decision = self.look()
        self.status = json.loads(json.dumps(decision.status))
        for action in decision.actions:
            self.do(action)
        return decision

    def do(self, action: Action) -> None:
        """Carry out one action, as the API server would."""
        if isinstance(action, CreateJob):
            if action.name not in self.jobs:
                assert (action.task, action.attempt) not in self.created, "one Job per task and attempt"
                self.created.append((action.task, action.attempt))
                self.jobs[action.name] = ObservedJob(action.name, started_at=self.now)
        elif isinstance(action, DeleteJob):
            self.jobs.pop(action.name, None)
        else:
            self.events.append(str(getattr(action, "reason", type(action).__name__)))

    def pod(self, task: str, attempt: int = 1, state: str = "Active", **pod: Any) -> None:
        """The attempt has a pod in this state."""
        name = job_name(self.frozen.run, task, attempt)
        pods = (ObservedPod(name=f"{name}-p", **{"started_at": self.now, **pod}),)
        self.jobs[name] = replace(self.jobs.get(name, ObservedJob(name)), state=state, pods=pods)

    def succeed(self, task: str, attempt: int = 1, value: Any = None) -> None:
        """The attempt ends well."""
        text = manifest(self.frozen, task, attempt, value)
        self.pod(task, attempt, "Complete", phase="Succeeded", exit_code=0, message=text)

    def fail(self, task: str, attempt: int = 1, **pod: Any) -> None:
        """The attempt ends badly."""
        self.pod(task, attempt, "Failed", **{"phase": "Failed", "exit_code": 1, **pod})

    def of(self, task: str) -> dict[str, Any]:
        """A step's status."""
        found: dict[str, Any] = next(item for item in self.status["steps"] if item["name"] == task)
        return found

    def phases(self) -> str:
        """All steps' phases, as one string."""
        return " ".join(f"{item['name']}:{item['phase']}" for item in self.status["steps"])
