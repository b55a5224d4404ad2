"""The objects that run one attempt of a task: a Job, and for several workers a headless Service.

One attempt is one Job without retries of its own, and one pod (or one pod a worker).  A built-in component
is one container of the runtime image.  A user's image is one container too, if it has no outputs; if it
has, there is a second, ordinary container beside it, of the runtime image: it waits for the user's
processes to end, which it sees because the pod shares its process namespace, and publishes what they wrote.
Nothing is required of the user's image.

Kubernetes expands ``$(NAME)`` in commands and in the environment, so every value that comes from data has
its ``$`` doubled; the pipeline's author may still write ``$(NAME)`` himself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.api.names import child_name
from modelyard.pipelines import ir
from modelyard.pipelines.components import COMPONENTS
from modelyard.pipelines.errors import PipelineError
from modelyard.pipelines.freeze import Frozen
from modelyard.pipelines.observe import MAIN, PUBLISHER
from modelyard.pipelines.references import Placeholder, placeholders
from modelyard.pipelines.resolve import Resolved, text_of
from modelyard.pipelines.state import expectations, job_name

#: Linux refuses a single environment string beyond 128 KiB.
MAX_ENV = 120_000
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_MASTER_PORT = 29500

Object = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What the installation decides, not the pipeline."""

    artifacts_claim: str = "modelyard-artifacts"
    artifacts_path: str = "/artifacts"
    user: int = 65532


def build(
    frozen: Frozen, task: str, attempt: int, resolved: Resolved, owner: Mapping[str, Any],
    settings: Settings | None = None,
) -> list[Object]:  # fmt: skip
    """The objects of an attempt, in the order in which they are made.  ``owner``: reference to the PipelineRun."""
    return _Builder(frozen, task, attempt, resolved, owner, settings or Settings()).objects()


def attempt_prefix(run: str, task: str, attempt: int) -> str:
    """Where an attempt writes, below the root of the artifacts."""
    return f"runs/{run}/{task}/{attempt}"


def code_config_map(
    namespace: str, data: Mapping[str, str], binary: Mapping[str, str], digest: str, owner: Mapping[str, Any]
) -> Object:
    """An immutable copy of a pipeline's code, so that a run has at its end the code it had at its beginning."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": code_name(owner["name"], digest),
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "modelyard", "app.kubernetes.io/component": "code"},
            "ownerReferences": [dict(owner)],
        },
        "immutable": True,
        "data": dict(data),
        "binaryData": dict(binary),
    }


def code_name(owner: str, digest: str) -> str:
    """The name of a run's copy of the code."""
    return child_name(owner, "code", digest.removeprefix("sha256:")[:10])


class _Builder:
    """One attempt."""

    def __init__(
        self, frozen: Frozen, task: str, attempt: int, resolved: Resolved, owner: Mapping[str, Any],
        settings: Settings,
    ) -> None:  # fmt: skip
        self.frozen, self.task, self.attempt, self.resolved = frozen, task, attempt, resolved
        self.owner, self.settings = owner, settings
        label = ir.executor_label(frozen.ir, task)
        self.options = ir.options(frozen.platforms, "modelyard", label)
        self.kubernetes = ir.options(frozen.platforms, "kubernetes", label)
        self.config = ir.config(frozen.platforms)
        self.container = ir.container(frozen.ir, task)
        self.parameters, self.artifacts = ir.outputs(frozen.ir, task)
        self.expected = expectations(frozen, task)
        self.component: str | None = self.options.get("component")
        self.name = job_name(frozen.run, task, attempt)
        self.prefix = f"{settings.artifacts_path}/{attempt_prefix(frozen.run, task, attempt)}"
        self.workers = self.expected.workers

    def objects(self) -> list[Object]:
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": self._metadata(),
            "spec": {
                "backoffLimit": 0,
                "completions": self.workers,
                "parallelism": self.workers,
                "completionMode": "Indexed" if self.workers > 1 else "NonIndexed",
                # A pod that is going away is counted when it is gone, and never doubled.
                "podReplacementPolicy": "Failed",
                "template": {"metadata": self._pod_metadata(), "spec": self._pod()},
            },
        }
        return [self._service(), job] if self.workers > 1 else [job]

    def _labels(self) -> dict[str, str]:
        task = self.task if len(self.task) <= 63 else child_name(self.task)
        return {
            "app.kubernetes.io/name": "modelyard-step",
            "app.kubernetes.io/component": "step",
            "app.kubernetes.io/managed-by": "modelyard",
            "modelyard.dev/pipeline": self.frozen.document["pipeline"],
            "modelyard.dev/run": self.frozen.run,
            "modelyard.dev/step": task,
            "modelyard.dev/attempt": str(self.attempt),
        }

    def _metadata(self) -> Object:
        return {
            "name": self.name,
            "namespace": self.frozen.namespace,
            "labels": self._labels(),
            "ownerReferences": [dict(self.owner)],
        }

    def _pod_metadata(self) -> Object:
        metadata: Object = {"labels": {**(self.config.get("labels") or {}), **self._labels()}}
        if self.config.get("annotations"):
            metadata["annotations"] = dict(self.config["annotations"])
        return metadata

    def _service(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self._metadata(),
            "spec": {
                "clusterIP": "None",
                # Workers look for each other before any of them is ready.
                "publishNotReadyAddresses": True,
                "selector": {"batch.kubernetes.io/job-name": self.name},
                "ports": [{"name": "rendezvous", "port": _MASTER_PORT}],
            },
        }

    # the pod ------------------------------------------------------------------------------------------------

    def _pod(self) -> Object:
        user = self.settings.user
        containers = [self._component() if self.component else self._image()]
        pod: Object = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": containers,
            "volumes": self._volumes(),
        }
        if not self.component and self.expected.wants_manifest:
            pod["shareProcessNamespace"] = True
            containers.append(self._publisher())
        if self.expected.timeout:
            # The pod's and not the Job's: a timeout is for the step, not for its wait for a node.
            pod["activeDeadlineSeconds"] = self.expected.timeout
        if self.workers > 1:
            pod["subdomain"] = self.name
        if labels := (self.kubernetes.get("nodeSelector") or {}).get("labels"):
            pod["nodeSelector"] = dict(labels)
        if self.kubernetes.get("tolerations"):
            pod["tolerations"] = [dict(item) for item in self.kubernetes["tolerations"]]
        if secrets := self.kubernetes.get("imagePullSecret"):
            pod["imagePullSecrets"] = [{"name": item["secretName"]} for item in secrets]
        for field in ("serviceAccountName", "affinity", "priorityClassName", "runtimeClassName"):
            if self.config.get(field):
                pod[field] = self.config[field]
        return pod

    def _volumes(self) -> list[Object]:
        volumes: list[Object] = [
            {"name": "artifacts", "persistentVolumeClaim": {"claimName": self.settings.artifacts_claim}},
            {"name": "tmp", "emptyDir": {}},
        ]
        if code := self._code():
            volumes.append({"name": "code", "configMap": {"name": code}})
        volumes += [
            {"name": child_name("connection", name), "secret": {"secretName": name, "optional": True}}
            for name in self._connections()
        ]
        ours = {volume["name"] for volume in volumes}
        for volume in self.config.get("volumes") or []:
            if volume["name"] in ours:
                raise PipelineError("spec.podTemplate.volumes", f"the name {volume['name']!r} is the engine's own")
            volumes.append(dict(volume))
        return volumes

    def _mounts(self, code: bool = True) -> list[Object]:
        path = self.settings.artifacts_path
        sub = attempt_prefix(self.frozen.run, self.task, self.attempt)
        mounts: list[Object] = [
            {"name": "artifacts", "mountPath": path, "readOnly": True},
            {"name": "artifacts", "mountPath": self.prefix, "subPath": sub},
            {"name": "tmp", "mountPath": "/tmp"},
        ]
        if code and self._code():
            mounts.append({"name": "code", "mountPath": "/code", "readOnly": True})
        return mounts

    def _code(self) -> str | None:
        code = self.frozen.document.get("code") or {}
        return code.get("mounted") or code.get("configMap")

    def _connections(self) -> list[str]:
        """Secrets of the stores that a built-in component reads, mounted at ``/connections/<name>``."""
        if not self.component or not COMPONENTS[self.component].sees_as_of:
            return []
        document = self.frozen.document
        sources = [(document.get("dataset") or {}).get("spine") or {}]
        sources += [(view.get("source") or {}).get("batch") or {} for view in (document["views"] or {}).values()]
        return sorted({source["connection"] for source in sources if source.get("connection")})

    def _security(self, read_only: bool) -> Object:
        return {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": read_only,
            "capabilities": {"drop": ["ALL"]},
        }

    # containers ---------------------------------------------------------------------------------------------

    def _component(self) -> Object:
        assert self.component is not None
        container: Object = {
            "name": MAIN,
            "image": self.frozen.image(self.task),
            "command": ["python", "-m", "modelyard.steps", self.component],
            "env": [*self._env(), {"name": "MODELYARD_STEP", "value": self._step_json()}],
            "volumeMounts": [
                *self._mounts(),
                *(
                    {"name": child_name("connection", n), "mountPath": f"/connections/{n}", "readOnly": True}
                    for n in self._connections()
                ),
            ],
            "securityContext": self._security(read_only=True),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        return self._complete(container)

    def _image(self) -> Object:
        container: Object = {
            "name": MAIN,
            "image": self.frozen.image(self.task),
            "env": self._env(),
            "volumeMounts": self._mounts(),
            "securityContext": self._security(read_only=False),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        for field in ("command", "args"):
            if self.container.get(field):
                container[field] = [self._fill(text) for text in self.container[field]]
        return self._complete(container)

    def _complete(self, container: Object) -> Object:
        """What both kinds of step may have."""
        requested = ir.resources(self.container.get("resources") or {})
        for side, quantities in (self.options.get("resources") or {}).items():
            requested.setdefault(side, {}).update(quantities)
        if requested:
            container["resources"] = requested
        for field in ("envFrom", "workingDir"):
            if self.options.get(field):
                container[field] = self.options[field]
        if self.kubernetes.get("imagePullPolicy"):
            container["imagePullPolicy"] = self.kubernetes["imagePullPolicy"]
        taken = {mount["mountPath"] for mount in container["volumeMounts"]}
        for mount in self.options.get("volumeMounts") or []:
            inside = (mount["mountPath"].rstrip("/") + "/").startswith(self.settings.artifacts_path + "/")
            if mount["mountPath"] in taken or inside or mount["name"] in ("artifacts", "tmp", "code"):
                raise PipelineError("spec.steps[].volumeMounts", f"{mount['mountPath']} is mounted by the engine")
            container["volumeMounts"].append(dict(mount))
        return container

    def _publisher(self) -> Object:
        return {
            "name": PUBLISHER,
            "image": self.frozen.document["runtimeImage"],
            "command": ["python", "-m", "modelyard.steps", "publish"],
            "env": [{"name": "MODELYARD_STEP", "value": self._step_json()}],
            "volumeMounts": self._mounts(code=False),
            "securityContext": self._security(read_only=True),
            "resources": {"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}},
        }

    def _env(self) -> list[Object]:
        env: list[Object] = []
        for item in self.container.get("env") or []:
            env.append({"name": item["name"], "value": self._fill(str(item.get("value") or ""))})
        for entry in self.kubernetes.get("secretAsEnv") or []:
            env += [_from("secretKeyRef", entry["secretName"], k["secretKey"], k["envVar"], entry)
                    for k in entry["keyToEnv"]]  # fmt: skip
        for entry in self.kubernetes.get("configMapAsEnv") or []:
            env += [_from("configMapKeyRef", entry["configMapName"], k["configMapKey"], k["envVar"], entry)
                    for k in entry["keyToEnv"]]  # fmt: skip
        for entry in self.kubernetes.get("fieldPathAsEnv") or []:
            env.append({"name": entry["name"], "valueFrom": {"fieldRef": {"fieldPath": entry["fieldPath"]}}})
        env += [dict(item) for item in self.options.get("env") or []]
        names = {item["name"] for item in env}
        ours: list[Object] = []
        if "HOME" not in names:
            # The user 65532 has no home in most images, and many libraries want to write there.
            ours.append({"name": "HOME", "value": "/tmp"})
        if self.workers > 1:
            rank = {"valueFrom": {"fieldRef": {"fieldPath": _INDEX}}}
            ours += [
                {"name": "MASTER_ADDR", "value": f"{self.name}-0.{self.name}"},
                {"name": "MASTER_PORT", "value": str(_MASTER_PORT)},
                {"name": "WORLD_SIZE", "value": str(self.workers)},
                {"name": "RANK", **rank},
            ]
        return [*ours, *env]

    # values -------------------------------------------------------------------------------------------------

    def _step_json(self) -> str:
        document = self.frozen.document
        component = COMPONENTS.get(self.component or "")
        step = {
            "run": self.frozen.run,
            "namespace": self.frozen.namespace,
            "task": self.task,
            "attempt": self.attempt,
            "asOf": document["asOf"],
            "component": self.component or "publish",
            # Channels bring values into text; as arguments they would be somebody else's.
            "arguments": {k: v for k, v in self.resolved.parameters.items() if not k.startswith("pipelinechannel--")},
            "inputs": {"artifacts": dict(self.resolved.artifacts)},
            "outputs": {"prefix": self.prefix, "artifacts": self.artifacts, "parameters": self.parameters},
            "dataset": document.get("dataset") if component else None,
            "views": document.get("views") if component else {},
            "production": document.get("production") if component and component.sees_production else None,
            "model": document.get("model"),
            "seed": document.get("seed") or 0,
            "code": "/code" if self._code() else None,
        }
        text = _escape(json.dumps(step, separators=(",", ":"), ensure_ascii=False))
        if len(text.encode()) > MAX_ENV:
            raise PipelineError("spec.steps", f"the input of step {self.task} takes more than {MAX_ENV} bytes")
        return text

    def _fill(self, text: str) -> str:
        return "".join(part if isinstance(part, str) else _escape(self._value(part)) for part in placeholders(text))

    def _value(self, part: Placeholder) -> str:
        if part.side == "outputs":
            # Both kinds lie directly in the prefix, the one directory that is there before the program
            # starts.
            known = self.artifacts if part.kind == "artifacts" else self.parameters
            if part.name in known and part.part in ("path", "uri", "output_file"):
                path = f"{self.prefix}/{part.name}"
                return "file://" + path if part.part == "uri" else path
        elif part.kind == "parameters" and part.name in self.resolved.parameters:
            return text_of(self.resolved.parameters[part.name])
        elif part.kind == "artifacts" and part.name in self.resolved.artifacts:
            uri = str(self.resolved.artifacts[part.name]["uri"])
            if part.part == "uri":
                return uri
            if part.part == "path" and uri.startswith("file:///"):
                return uri.removeprefix("file://")
            raise PipelineError("spec.steps[].inputs", f"{part.name} at {uri}: not supported yet: artifacts that are "
                                "not on the artifact volume")  # fmt: skip
        raise PipelineError("spec.steps[].command", f"nothing is known of {part.side}.{part.kind}.{part.name}")


def _escape(text: str) -> str:
    """A value that Kubernetes must not expand."""
    return text.replace("$", "$$")


def _from(kind: str, name: str, key: str, variable: str, entry: Mapping[str, Any]) -> Object:
    source: Object = {"name": name, "key": key}
    if entry.get("optional"):
        source["optional"] = True
    return {"name": variable, "valueFrom": {kind: source}}
