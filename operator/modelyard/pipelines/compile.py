"""From a TrainingPipeline's steps to KFP's PipelineSpec IR.

There is one engine and it runs the IR, so ``steps`` are a shorthand for what ``kfp`` compiles.  A step
becomes a task, a component and an executor of its name.  What KFP has a word for is said in KFP's words:
artifacts, parameters, conditions, retries, caching, resources, and in the ``kubernetes`` platform
tolerations, node selectors, secrets.  For the rest there is a platform of our own, ``modelyard``: code
mount, workers, the age of cache entries, built-in components.

References order steps by themselves; ``after`` orders them without data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Protocol

from modelyard.pipelines import cel_conditions
from modelyard.pipelines.components import ARTIFACT_TYPES, COMPONENTS, PARAMETER_TYPES, Component
from modelyard.pipelines.errors import PipelineError
from modelyard.pipelines.platforms import kubernetes_executor, modelyard_config, modelyard_executor, resources
from modelyard.pipelines.platforms import seconds as _seconds
from modelyard.pipelines.references import (
    Local,
    Param,
    StepOutput,
    parameter_placeholder,
    rewrite_when,
    split,
    whole,
)

#: Stands in the IR for the runtime image, which a compiled pipeline cannot know; the run freezes the real
#: one.
RUNTIME_IMAGE = "modelyard-runtime"

Document = dict[str, Any]


class Dumps(Protocol):
    """A pydantic model of ``modelyard.api``."""

    def to_dict(self) -> dict[str, Any]:
        """The object in its camelCase JSON form."""
        ...


@dataclass(frozen=True)
class Compiled:
    """The two documents of a compiled pipeline."""

    pipeline_spec: Document
    platform_spec: Document


def as_document(spec: Mapping[str, Any] | Dumps) -> Document:
    """A spec in its JSON form, whether it comes as a model or as what the API server sent."""
    return dict(spec) if isinstance(spec, Mapping) else spec.to_dict()


def compile_pipeline(
    spec: Mapping[str, Any] | Dumps, name: str, parameters: Mapping[str, Any] | None = None
) -> Compiled:
    """Compile a TrainingPipeline's ``spec``.

    ``parameters`` override the spec's own; they matter for types only: JSON does not tell ``1`` from
    ``1.0``, so a parameter whose default is ``1`` is a whole number until a run says ``0.5``.
    """
    document = as_document(spec)
    if document.get("pipelineFrom"):
        raise PipelineError("spec.pipelineFrom", "must be fetched first, and given as pipelineSpec")
    if document.get("pipelineSpec"):
        return Compiled(document["pipelineSpec"], document.get("platformSpec") or {})
    steps: Sequence[Mapping[str, Any]] = document.get("steps") or []
    if not steps:
        raise PipelineError("spec.steps", "a pipeline has at least one step")
    defaults = document.get("parameters") or {}
    return _Compiler(name, document, merge_parameters(defaults, parameters or {}), defaults).compile()


def merge_parameters(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run: the pipeline's, overridden; unknown names and other kinds of value are refused."""
    for key, value in given.items():
        if key not in defaults:
            known = ", ".join(sorted(defaults)) or "none"
            raise PipelineError(f"spec.parameters.{key}", f"the pipeline has no such parameter; it has: {known}")
        was, now = type_of(defaults[key]), type_of(value)
        numbers = {"NUMBER_INTEGER", "NUMBER_DOUBLE"}
        if was != now and not {was, now} <= numbers and defaults[key] is not None:
            raise PipelineError(f"spec.parameters.{key}", f"must be of type {was}, as its default, and is {now}")
    return {**defaults, **given}


def type_of(value: Any) -> str:
    """KFP's type of a JSON value."""
    if isinstance(value, bool):
        return "BOOLEAN"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "NUMBER_INTEGER"
    if isinstance(value, float):
        return "NUMBER_DOUBLE"
    if isinstance(value, Mapping):
        return "STRUCT"
    return "LIST" if isinstance(value, (list, tuple)) else "STRING"


def artifact_type(title: str) -> Document:
    """KFP's schema of an artifact type."""
    return {"artifactType": {"schemaTitle": f"system.{title}", "schemaVersion": "0.0.1"}}


class _Compiler:
    """One compilation; a class, since every part asks what the other steps give."""

    def __init__(self, name: str, spec: Document, parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.name, self.spec, self.parameters, self.defaults = name, spec, parameters, defaults
        self.steps: list[Document] = [dict(step) for step in spec["steps"]]
        self.outputs: dict[str, dict[str, str]] = {}

    def compile(self) -> Compiled:
        self._collect_outputs()
        tasks, components, executors = {}, {}, {}
        kubernetes: Document = {}
        modelyard: Document = {}
        for index, step in enumerate(self.steps):
            key, at = step["name"], f"spec.steps[{index}]"
            compiled = _Step(self, step, at).compile()
            tasks[key], components[f"comp-{key}"], executors[f"exec-{key}"] = compiled
            if options := kubernetes_executor(self.spec, step, at):
                kubernetes[f"exec-{key}"] = options
            if options := modelyard_executor(self.spec, step, at):
                modelyard[f"exec-{key}"] = options
        self._refuse_cycles(tasks)
        root: Document = {"dag": {"tasks": tasks}}
        if self.parameters:
            root["inputDefinitions"] = {"parameters": {key: self._parameter(key) for key in self.parameters}}
        pipeline = {
            "pipelineInfo": {"name": self.name},
            "schemaVersion": "2.1.0",
            "sdkVersion": "modelyard",
            "root": root,
            "components": components,
            "deploymentSpec": {"executors": executors},
        }
        platforms: Document = {
            "modelyard": {"deploymentSpec": {"executors": modelyard}, "config": modelyard_config(self.spec)}
        }
        if kubernetes:
            platforms["kubernetes"] = {"deploymentSpec": {"executors": kubernetes}}
        return Compiled(pipeline, {"platforms": platforms})

    def _parameter(self, key: str) -> Document:
        definition: Document = {"parameterType": type_of(self.parameters[key]), "isOptional": True}
        if self.defaults[key] is not None:
            definition["defaultValue"] = self.defaults[key]
        return definition

    def _collect_outputs(self) -> None:
        registers = [step["name"] for step in self.steps if step.get("component") == "register"]
        if len(registers) > 1:
            raise PipelineError("spec.steps", f"{', '.join(registers)}: a run registers at most one model version")
        for index, step in enumerate(self.steps):
            at, name = f"spec.steps[{index}]", step.get("name")
            if not name:
                raise PipelineError(f"{at}.name", "a step has a name")
            if name in self.outputs:
                raise PipelineError(f"{at}.name", f"there are two steps {name!r}; names must differ")
            component, image = step.get("component"), step.get("image")
            if bool(component) == bool(image):
                raise PipelineError(at, "a step has either a component or an image")
            if component and component not in COMPONENTS:
                raise PipelineError(
                    f"{at}.component", f"no built-in component is called {component!r}; there are: "
                    + ", ".join(COMPONENTS),
                )  # fmt: skip
            declared = COMPONENTS[component].outputs if component else step.get("outputs") or {}
            for output, kind in declared.items():
                if kind not in ARTIFACT_TYPES and kind not in PARAMETER_TYPES:
                    raise PipelineError(
                        f"{at}.outputs.{output}",
                        f"{kind!r} is neither an artifact type ({', '.join(ARTIFACT_TYPES)}) nor a parameter type "
                        "(str, int, float, bool, list, dict)",
                    )
            self.outputs[name] = dict(declared)

    def output_type(self, reference: StepOutput, at: str) -> str:
        """The type that a referenced output is declared with."""
        outputs = self.outputs.get(reference.step)
        if outputs is None:
            known = ", ".join(self.outputs)
            raise PipelineError(at, f"there is no step {reference.step!r}; there are: {known}")
        if reference.output not in outputs:
            known = ", ".join(outputs) or "none"
            raise PipelineError(at, f"step {reference.step!r} has no output {reference.output!r}; it has: {known}")
        return outputs[reference.output]

    @staticmethod
    def _refuse_cycles(tasks: Mapping[str, Document]) -> None:
        try:
            list(TopologicalSorter({k: t.get("dependentTasks", []) for k, t in tasks.items()}).static_order())
        except CycleError as error:
            # graphlib gives the path backwards: each item is needed by the next.
            raise PipelineError("spec.steps", f"steps wait for each other: {' → '.join(error.args[1])}") from None


class _Step:
    """One step: a task, a component and an executor."""

    def __init__(self, compiler: _Compiler, step: Document, at: str) -> None:
        self.compiler, self.step, self.at = compiler, step, at
        self.component: Component | None = COMPONENTS[step["component"]] if step.get("component") else None
        self.upstream: dict[str, None] = {}  # an ordered set
        self.parameters: dict[str, Document] = {}
        self.parameter_types: dict[str, str] = {}
        self.artifacts: dict[str, Document] = {}
        self.artifact_types: dict[str, str] = {}

    def compile(self) -> tuple[Document, Document, Document]:
        for index, name in enumerate(self.step.get("after") or []):
            if name not in self.compiler.outputs:
                raise PipelineError(f"{self.at}.after[{index}]", f"there is no step {name!r}")
            self.upstream[name] = None
        self._inputs()
        executor = self._executor()
        task = self._task()
        component: Document = {"executorLabel": f"exec-{self.step['name']}"}
        inputs: Document = {}
        if self.parameter_types:
            inputs["parameters"] = {k: {"parameterType": v} for k, v in self.parameter_types.items()}
        if self.artifact_types:
            inputs["artifacts"] = {k: artifact_type(v) for k, v in self.artifact_types.items()}
        if inputs:
            component["inputDefinitions"] = inputs
        outputs: Document = {}
        for name, kind in self.compiler.outputs[self.step["name"]].items():
            if kind in ARTIFACT_TYPES:
                outputs.setdefault("artifacts", {})[name] = artifact_type(kind)
            else:
                outputs.setdefault("parameters", {})[name] = {"parameterType": PARAMETER_TYPES[kind]}
        if outputs:
            component["outputDefinitions"] = outputs
        return task, component, executor

    # inputs -------------------------------------------------------------------------------------------------

    def _inputs(self) -> None:
        field = "arguments" if self.component else "inputs"
        wrong = "inputs" if self.component else "arguments"
        if self.step.get(wrong):
            kind = "a component" if self.component else "an image"
            raise PipelineError(f"{self.at}.{wrong}", f"a step with {kind} has {field}")
        values: Mapping[str, Any] = self.step.get(field) or {}
        for name, value in values.items():
            self._input(name, value, f"{self.at}.{field}.{name}")
        if self.component:
            for name in self.component.artifacts:
                if name not in self.artifacts:
                    raise PipelineError(
                        f"{self.at}.arguments.{name}",
                        f"component {self.step['component']} needs it: $(steps.NAME.outputs.NAME) of a "
                        f"{self.component.artifacts[name]}",
                    )

    def _input(self, name: str, value: Any, at: str) -> None:
        reference = self._whole(value, at)
        if isinstance(reference, StepOutput):
            kind = self.compiler.output_type(reference, at)
            if kind in ARTIFACT_TYPES:
                self._check_artifact(name, kind, at)
                self.upstream[reference.step] = None
                self.artifact_types[name] = kind
                producer = {"producerTask": reference.step, "outputArtifactKey": reference.output}
                self.artifacts[name] = {"taskOutputArtifact": producer}
                return
        self._check_parameter(name, at)
        if isinstance(reference, (StepOutput, Param)):
            self.parameters[name], self.parameter_types[name] = self._source(reference, at)
        else:
            self.parameters[name] = {"runtimeValue": {"constant": self._nested(value, at)}}
            self.parameter_types[name] = type_of(value)

    def _check_artifact(self, name: str, kind: str, at: str) -> None:
        if self.component is None:
            return
        wanted = {**self.component.artifacts, **self.component.optional}.get(name)
        if wanted is None and not self.component.open:
            raise PipelineError(at, f"component {self.step['component']} takes no such argument; {self._takes()}")
        if wanted not in (None, "Artifact", kind) and kind != "Artifact":
            raise PipelineError(at, f"must be a {wanted}, and is a {kind}")

    def _check_parameter(self, name: str, at: str) -> None:
        if self.component is None:
            return
        if name in self.component.artifacts or name in self.component.optional:
            raise PipelineError(at, "must be an artifact of another step: $(steps.NAME.outputs.NAME)")
        if not self.component.open and name not in self.component.arguments:
            raise PipelineError(at, f"component {self.step['component']} takes no such argument; {self._takes()}")

    def _takes(self) -> str:
        assert self.component is not None
        names = [*self.component.artifacts, *self.component.optional, *sorted(self.component.arguments)]
        return "it takes: " + (", ".join(names) or "none")

    def _whole(self, value: Any, at: str) -> StepOutput | Param | None:
        reference = whole(value) if isinstance(value, str) else None
        if isinstance(reference, Local):
            raise PipelineError(at, f"$({reference.side}.…) is for command, args and env")
        return reference

    def _source(self, reference: StepOutput | Param, at: str) -> tuple[Document, str]:
        """Where an input parameter comes from, and its type."""
        if isinstance(reference, Param):
            if reference.name not in self.compiler.parameters:
                known = ", ".join(sorted(self.compiler.parameters)) or "none"
                raise PipelineError(at, f"there is no parameter {reference.name!r}; there are: {known}")
            kind = type_of(self.compiler.parameters[reference.name])
            return {"componentInputParameter": reference.name}, kind
        declared = self.compiler.output_type(reference, at)
        if declared in ARTIFACT_TYPES:
            raise PipelineError(
                at, f"{reference.step}.{reference.output} is an artifact ({declared}), which cannot stand in text or "
                "in a condition: give it as an input of its own, and use $(inputs.NAME.path)"
            )  # fmt: skip
        self.upstream[reference.step] = None
        producer = {"producerTask": reference.step, "outputParameterKey": reference.output}
        return {"taskOutputParameter": producer}, PARAMETER_TYPES[declared]

    def _channel(self, reference: StepOutput | Param, at: str) -> str:
        """An input of KFP's kind that brings a value into text or into a condition; its placeholder."""
        name = reference.channel
        self.parameters[name], self.parameter_types[name] = self._source(reference, at)
        return parameter_placeholder(name)

    def _nested(self, value: Any, at: str) -> Any:
        """A constant, with placeholders where references were."""
        if isinstance(value, Mapping):
            return {key: self._nested(item, f"{at}.{key}") for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._nested(item, f"{at}[{index}]") for index, item in enumerate(value)]
        return self._text(value, at, local=False) if isinstance(value, str) else value

    def _text(self, text: str, at: str, local: bool = True) -> str:
        try:
            parts = split(text)
        except ValueError as error:
            raise PipelineError(at, str(error)) from None
        return "".join(
            part if isinstance(part, str)
            else self._local(part, at, local) if isinstance(part, Local)
            else self._channel(part, at)
            for part in parts
        )  # fmt: skip

    def _local(self, reference: Local, at: str, allowed: bool) -> str:
        name, part = reference.name, reference.part
        if not allowed:
            raise PipelineError(at, f"$({reference.side}.{name}) is for command, args and env")
        if reference.side == "inputs" and name in self.parameter_types and not part:
            return parameter_placeholder(name)
        if reference.side == "inputs" and name in self.artifact_types and part in ("path", "uri"):
            return "{{$.inputs.artifacts['" + name + "']." + part + "}}"
        if reference.side == "outputs" and part == "path":
            kind = self.compiler.outputs[self.step["name"]].get(name)
            if kind in ARTIFACT_TYPES:
                return "{{$.outputs.artifacts['" + name + "'].path}}"
            if kind is not None:
                return "{{$.outputs.parameters['" + name + "'].output_file}}"
        spelled = f"{reference.side}.{name}" + (f".{part}" if part else "")
        if name in self.artifact_types and reference.side == "inputs":
            raise PipelineError(at, f"$({spelled}): {name} is an artifact; write $(inputs.{name}.path)")
        if name in self.parameter_types and reference.side == "inputs":
            raise PipelineError(at, f"$({spelled}): {name} is a parameter; write $(inputs.{name})")
        declared = self.artifact_types | self.parameter_types
        known = ", ".join(declared if reference.side == "inputs" else self.compiler.outputs[self.step["name"]])
        raise PipelineError(at, f"$({spelled}): the step declares no such thing; it has: {known or 'none'}")

    # task and executor --------------------------------------------------------------------------------------

    def _task(self) -> Document:
        step = self.step
        task: Document = {
            "taskInfo": {"name": step["name"]},
            "componentRef": {"name": f"comp-{step['name']}"},
        }
        if step.get("when"):
            task["triggerPolicy"] = {"condition": self._condition(step["when"])}
        inputs: Document = {}
        if self.parameters:
            inputs["parameters"] = self.parameters
        if self.artifacts:
            inputs["artifacts"] = self.artifacts
        if inputs:
            task["inputs"] = inputs
        if self.upstream:
            task["dependentTasks"] = sorted(self.upstream)
        cache = step.get("cache") or {}
        if cache.get("enabled", True) and (self.component is None or self.component.cacheable):
            task["cachingOptions"] = {"enableCache": True}
        if retries := step.get("retries"):
            task["retryPolicy"] = {
                "maxRetryCount": int(retries.get("limit") or 0),
                "backoffDuration": f"{_seconds(retries.get('backoff') or '30s', self.at + '.retries.backoff')}s",
                "backoffFactor": float(retries.get("factor") or 2),
                "backoffMaxDuration": f"{_seconds(retries.get('max') or '10m', self.at + '.retries.max')}s",
            }
        return task

    def _condition(self, expression: str) -> str:
        at = f"{self.at}.when"
        rewritten, references = rewrite_when(expression)
        for reference in references:
            self._channel(reference, at)
        try:
            cel_conditions.check(rewritten)
        except cel_conditions.ConditionError as error:
            raise PipelineError(at, str(error)) from None
        return rewritten

    def _executor(self) -> Document:
        step = self.step
        if self.component:
            for field in ("command", "args", "outputs"):
                if step.get(field):
                    raise PipelineError(f"{self.at}.{field}", "a built-in component has its own; use arguments")
            container: Document = {
                "image": RUNTIME_IMAGE, "command": ["python", "-m", "modelyard.steps", step["component"]],
            }  # fmt: skip
        else:
            container = {"image": step["image"]}
            for field in ("command", "args"):
                texts = [self._text(t, f"{self.at}.{field}[{i}]") for i, t in enumerate(step.get(field) or [])]
                if texts:
                    container[field] = texts
        env = [
            {"name": item["name"], "value": self._text(item["value"], f"{self.at}.env[{index}].value")}
            for index, item in enumerate(step.get("env") or [])
            if item.get("value") is not None
        ]
        if env:
            container["env"] = env
        if described := resources(step.get("resources") or {}, f"{self.at}.resources"):
            container["resources"] = described
        return {"container": container}


def canonical(document: Any) -> str:
    """JSON in one spelling, for digests."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
