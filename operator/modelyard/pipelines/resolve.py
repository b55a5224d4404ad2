"""What a task is given: parameters, artifacts and its condition, once its upstream tasks have published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.pipelines import cel_conditions, ir
from modelyard.pipelines.freeze import Frozen
from modelyard.pipelines.manifest import Manifest
from modelyard.pipelines.references import Placeholder, placeholders

Outputs = Mapping[str, Any]
"""``{"parameters": {…}, "artifacts": {…}}``, as a manifest and a run's status have them."""


class ResolveError(ValueError):
    """A task that cannot be given what it asks for."""


@dataclass(frozen=True)
class Resolved:
    """A task's inputs.  ``runs`` is false where its condition says no."""

    parameters: Mapping[str, Any]
    artifacts: Mapping[str, Mapping[str, Any]]
    runs: bool = True


def resolve(frozen: Frozen, task: str, published: Mapping[str, Outputs]) -> Resolved:
    """Resolve the inputs of ``task`` from the outputs of the tasks that have ``published``."""
    definition = ir.tasks(frozen.ir)[task]
    declared = (ir.component(frozen.ir, task).get("inputDefinitions") or {}).get("parameters") or {}
    sources = definition.get("inputs") or {}
    values: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    for name, source in (sources.get("parameters") or {}).items():
        if "taskOutputParameter" in source:
            producer = source["taskOutputParameter"]
            values[name] = _output(published, producer, "outputParameterKey", "parameters")
        elif "componentInputParameter" in source:
            key = source["componentInputParameter"]
            if key in frozen.document["parameters"]:
                values[name] = frozen.document["parameters"][key]
        else:
            runtime = source.get("runtimeValue") or {}
            constants[name] = runtime["constant"] if "constant" in runtime else runtime.get("constantValue")
    for name, constant in constants.items():
        # Constants may speak of the other inputs, which have their values by now.
        values[name] = _fill(constant, values)
    for name, definition_of in declared.items():
        if name not in values and "defaultValue" in definition_of:
            values[name] = definition_of["defaultValue"]
        elif name not in values and not definition_of.get("isOptional"):
            raise ResolveError(f"input {name} has no value")
    parameters = {
        name: convert(value, (declared.get(name) or {}).get("parameterType"), f"input {name}")
        for name, value in values.items()
    }
    artifacts = {
        name: _output(published, source["taskOutputArtifact"], "outputArtifactKey", "artifacts")
        for name, source in (sources.get("artifacts") or {}).items()
        if "taskOutputArtifact" in source
    }
    condition = (definition.get("triggerPolicy") or {}).get("condition")
    runs = True
    if condition:
        try:
            runs = cel_conditions.evaluate(condition, parameters)
        except cel_conditions.ConditionError as error:
            raise ResolveError(f"the condition cannot be evaluated: {error}") from error
    return Resolved(parameters, artifacts, runs)


def _output(published: Mapping[str, Outputs], producer: Mapping[str, Any], key: str, kind: str) -> Any:
    task, name = producer["producerTask"], producer[key]
    found = (published.get(task) or {}).get(kind) or {}
    if name not in found:
        raise ResolveError(f"step {task} has published no {name}")
    return found[name]


def _fill(constant: Any, values: Mapping[str, Any]) -> Any:
    """A constant with its placeholders replaced; one that is nothing but a placeholder keeps its value's type."""
    if isinstance(constant, Mapping):
        return {key: _fill(item, values) for key, item in constant.items()}
    if isinstance(constant, (list, tuple)):
        return [_fill(item, values) for item in constant]
    if not isinstance(constant, str) or "{{$" not in constant:
        return constant
    parts = placeholders(constant)
    if len(parts) == 1 and isinstance(parts[0], Placeholder):
        return _parameter(parts[0], values)
    return "".join(part if isinstance(part, str) else text_of(_parameter(part, values)) for part in parts)


def _parameter(part: Placeholder, values: Mapping[str, Any]) -> Any:
    if part.side != "inputs" or part.kind != "parameters" or part.name not in values:
        raise ResolveError(f"nothing is known of {part.side}.{part.kind}.{part.name}")
    return values[part.name]


def text_of(value: Any) -> str:
    """A parameter's value as text in a command.

    >>> text_of(6.0), text_of(True), text_of([1])
    ('6', 'true', '[1]')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def convert(value: Any, kind: str | None, what: str) -> Any:
    """A value in the type that is declared, where that loses nothing."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is None or kind in (None, "", "PARAMETER_TYPE_ENUM_UNSPECIFIED"):
        return value
    if kind == "NUMBER_INTEGER" and number and float(value).is_integer():
        return int(value)
    if kind == "NUMBER_DOUBLE" and number:
        return float(value)
    if kind == "STRING":
        return text_of(value)
    if kind == "BOOLEAN" and isinstance(value, bool):
        return value
    if (kind == "LIST" and isinstance(value, list)) or (kind == "STRUCT" and isinstance(value, Mapping)):
        return value
    if isinstance(value, str):
        parsed = _parse(value, str(kind))
        if parsed is not None:
            return parsed
    raise ResolveError(f"{what}: {str(value)[:80]!r} is not of type {kind}")


def _parse(text: str, kind: str) -> Any:
    """Text that a program wrote to an output file, in the type that is declared; None where it is not of it."""
    text = text.strip()
    try:
        if kind == "NUMBER_INTEGER":
            return int(text)
        if kind == "NUMBER_DOUBLE":
            return float(text)
        if kind == "BOOLEAN":
            return {"true": True, "false": False}.get(text.lower())
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list if kind == "LIST" else dict) else None


def publish(frozen: Frozen, task: str, attempt: int, manifest: Manifest) -> dict[str, Any]:
    """The outputs to publish from an attempt's manifest: those declared, in their types, from its own prefix.

    The manifest comes from a pod, so it is not believed: an artifact elsewhere than in the attempt's own
    prefix could be something of a failed attempt, or of another run.
    """
    parameters, artifacts = ir.outputs(frozen.ir, task)
    outputs: dict[str, Any] = {"parameters": {}, "artifacts": {}}
    for name, kind in parameters.items():
        if name not in manifest.parameters:
            raise ResolveError(f"the step has written no output {name}")
        outputs["parameters"][name] = convert(manifest.parameters[name], kind, f"output {name}")
    own = f"/runs/{frozen.run}/{task}/{attempt}/"
    for name, title in artifacts.items():
        artifact = manifest.artifacts.get(name)
        if artifact is None:
            raise ResolveError(f"the step has written no output {name}")
        if own not in artifact.uri or ".." in artifact.uri.split("/"):
            raise ResolveError(f"output {name} lies at {artifact.uri}, outside of the attempt's own prefix")
        outputs["artifacts"][name] = artifact.as_dict() | {"type": title}
    return outputs
