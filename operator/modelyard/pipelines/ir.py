"""KFP's IR as the engine reads it, and what of it the engine does not run yet.

A construct that would be ignored is refused, by name: a pipeline whose condition or loop silently does not
happen gives a model that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.pipelines.errors import PipelineError
from modelyard.pipelines.references import placeholders

Document = Mapping[str, Any]

_KUBERNETES_OPTIONS = frozenset(
    {
        "nodeSelector", "tolerations", "imagePullSecret", "imagePullPolicy", "activeDeadlineSeconds",
        "secretAsEnv", "configMapAsEnv", "fieldPathAsEnv",
    }
)  # fmt: skip
_RESOURCE_FIELDS = {
    "resourceCpuRequest": ("requests", "cpu"),
    "resourceCpuLimit": ("limits", "cpu"),
    "resourceMemoryRequest": ("requests", "memory"),
    "resourceMemoryLimit": ("limits", "memory"),
}


def tasks(ir: Document) -> Mapping[str, Document]:
    """The tasks of the root DAG."""
    found: Mapping[str, Document] = ir["root"]["dag"]["tasks"]
    return found


def component(ir: Document, task: str) -> Document:
    """The component that a task refers to."""
    found: Document = ir["components"][tasks(ir)[task]["componentRef"]["name"]]
    return found


def executor_label(ir: Document, task: str) -> str:
    """The name of a task's executor."""
    return str(component(ir, task)["executorLabel"])


def container(ir: Document, task: str) -> Document:
    """The container of a task's executor."""
    found: Document = ir["deploymentSpec"]["executors"][executor_label(ir, task)]["container"]
    return found


def outputs(ir: Document, task: str) -> tuple[dict[str, str], dict[str, str]]:
    """A task's output parameters (name → type) and artifacts (name → type's title, as ``Model``)."""
    declared = component(ir, task).get("outputDefinitions") or {}
    parameters = {k: str(v.get("parameterType", "STRING")) for k, v in (declared.get("parameters") or {}).items()}
    artifacts = {k: title(v) for k, v in (declared.get("artifacts") or {}).items()}
    return parameters, artifacts


def title(definition: Document) -> str:
    """``Model`` of an artifact definition with ``system.Model``."""
    schema = str((definition.get("artifactType") or {}).get("schemaTitle") or "system.Artifact")
    return schema.removeprefix("system.")


def dependencies(task: Document) -> set[str]:
    """The tasks that a task waits for, named or by data."""
    found = set(task.get("dependentTasks") or [])
    inputs = task.get("inputs") or {}
    for source in (*(inputs.get("parameters") or {}).values(), *(inputs.get("artifacts") or {}).values()):
        for key in ("taskOutputParameter", "taskOutputArtifact"):
            if key in source:
                found.add(str(source[key]["producerTask"]))
    return found


def options(platforms: Document, platform: str, executor: str) -> Document:
    """A platform's options for an executor."""
    of_platform = (platforms.get("platforms") or {}).get(platform) or {}
    found: Document = ((of_platform.get("deploymentSpec") or {}).get("executors") or {}).get(executor) or {}
    return found


def config(platforms: Document) -> Document:
    """What the ``modelyard`` platform says of the whole pipeline."""
    found: Document = ((platforms.get("platforms") or {}).get("modelyard") or {}).get("config") or {}
    return found


def resources(described: Document) -> dict[str, dict[str, str]]:
    """A container's resources as Kubernetes has them."""
    found: dict[str, dict[str, str]] = {}
    for key, (side, name) in _RESOURCE_FIELDS.items():
        if described.get(key):
            found.setdefault(side, {})[name] = str(described[key])
    if accelerator := described.get("accelerator"):
        kind = accelerator.get("resourceType") or accelerator.get("type")
        count = accelerator.get("resourceCount") or accelerator.get("count")
        found.setdefault("limits", {})[str(kind)] = str(count)
    return found


def check(ir: Document, platforms: Document) -> None:
    """Refuse what the engine cannot run, naming the construct and where it stands."""
    root = ir.get("root") or {}
    if "dag" not in root:
        raise PipelineError("pipelineSpec.root", "a pipeline's root must be a DAG")
    if (root.get("inputDefinitions") or {}).get("artifacts"):
        _unsupported("pipelineSpec.root.inputDefinitions.artifacts", "artifacts as pipeline inputs")
    if root["dag"].get("outputs") or {}:
        _unsupported("pipelineSpec.root.dag.outputs", "pipeline outputs")
    for name, task in tasks(ir).items():
        at = f"pipelineSpec.root.dag.tasks.{name}"
        _check_task(ir, task, at)
        for upstream in dependencies(task):
            if upstream not in tasks(ir):
                raise PipelineError(f"{at}.dependentTasks", f"there is no task {upstream!r}")
        _check_executor(ir, name, at)
        _check_options(platforms, executor_label(ir, name))


def _check_task(ir: Document, task: Document, at: str) -> None:
    for key, construct in (
        ("parameterIterator", "ParallelFor (parameterIterator)"),
        ("artifactIterator", "ParallelFor over artifacts (artifactIterator)"),
    ):
        if task.get(key):
            _unsupported(f"{at}.{key}", construct)
    strategy = (task.get("triggerPolicy") or {}).get("strategy")
    if strategy not in (None, "ALL_UPSTREAM_TASKS_SUCCEEDED", "TRIGGER_STRATEGY_UNSPECIFIED"):
        _unsupported(f"{at}.triggerPolicy.strategy", f"exit handlers ({strategy})")
    reference = (task.get("componentRef") or {}).get("name")
    if reference not in (ir.get("components") or {}):
        raise PipelineError(f"{at}.componentRef", f"there is no component {reference!r}")
    if "dag" in ir["components"][reference]:
        _unsupported(f"{at}.componentRef", "nested pipelines (a component with a dag)")
    inputs = task.get("inputs") or {}
    for kind in ("parameters", "artifacts"):
        for name, source in (inputs.get(kind) or {}).items():
            for key in source:
                if key not in (
                    "taskOutputParameter",
                    "taskOutputArtifact",
                    "runtimeValue",
                    "componentInputParameter",
                ):
                    _unsupported(f"{at}.inputs.{kind}.{name}", key)


def _check_executor(ir: Document, name: str, at: str) -> None:
    label = component(ir, name).get("executorLabel")
    executors = (ir.get("deploymentSpec") or {}).get("executors") or {}
    if label not in executors:
        raise PipelineError(at, f"there is no executor {label!r}")
    executor = executors[label]
    at = f"pipelineSpec.deploymentSpec.executors.{label}"
    for kind in ("importer", "resolver", "customJob"):
        if kind in executor:
            _unsupported(f"{at}.{kind}", kind)
    if "container" not in executor:
        raise PipelineError(at, "an executor has a container")
    for text in _texts(executor["container"]):
        for part in placeholders(text):
            if isinstance(part, str) and ("{{$" in part or '{"Concat"' in part or '{"IfPresent"' in part):
                _unsupported(at, f"the placeholder in {part[:80]!r}")


def _texts(container: Document) -> Iterator[str]:
    yield from container.get("command") or []
    yield from container.get("args") or []
    yield from (str(item.get("value") or "") for item in container.get("env") or [])


def _check_options(platforms: Document, label: str) -> None:
    for key in options(platforms, "kubernetes", label):
        if key not in _KUBERNETES_OPTIONS:
            _unsupported(f"platformSpec.platforms.kubernetes.deploymentSpec.executors.{label}.{key}", key)


def _unsupported(at: str, construct: str) -> None:
    raise PipelineError(at, f"not supported yet: {construct}")
