"""What surrounds a step's command: resources, and the options of the ``kubernetes`` and ``modelyard``
platforms.

kfp-kubernetes has words for node selectors, tolerations, pull secrets, secrets and config maps as
environment and deadlines.  Those are used where they say the same.  What they cannot say stands under
``modelyard``: resources by other names than CPU, memory and one accelerator, ``envFrom``, mounts of named
volumes, workers, the age of cache entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.api.duration import parse_duration
from modelyard.pipelines.errors import PipelineError

Document = dict[str, Any]

#: What a pod template says of the whole pipeline and KFP does not.
POD_FIELDS = (
    "serviceAccountName",
    "volumes",
    "affinity",
    "priorityClassName",
    "runtimeClassName",
    "labels",
    "annotations",
)

_KFP_RESOURCES = {
    ("requests", "cpu"): "resourceCpuRequest",
    ("limits", "cpu"): "resourceCpuLimit",
    ("requests", "memory"): "resourceMemoryRequest",
    ("limits", "memory"): "resourceMemoryLimit",
}


def seconds(value: Any, at: str) -> int:
    """A duration's seconds, whether it comes as ``90s`` or as a number."""
    if isinstance(value, (int, float)):
        return int(value)
    try:
        return parse_duration(value)
    except (TypeError, ValueError) as error:
        raise PipelineError(at, str(error)) from None


def _accelerator(requested: Mapping[str, Any]) -> str | None:
    """The one resource that KFP calls an accelerator: an extended resource among the limits, if it is the only one."""
    extended = [name for name in requested.get("limits") or {} if "/" in name]
    return extended[0] if len(extended) == 1 else None


def resources(requested: Mapping[str, Any], at: str) -> Document:
    """KFP's form of a container's resources, as far as it goes."""
    described: Document = {}
    for (side, name), key in _KFP_RESOURCES.items():
        value = (requested.get(side) or {}).get(name)
        if value is not None:
            described[key] = str(value)
    if accelerator := _accelerator(requested):
        count = requested["limits"][accelerator]
        if not str(count).isdigit():
            raise PipelineError(f"{at}.limits.{accelerator}", f"{count!r} is not a whole number")
        described["accelerator"] = {"resourceType": accelerator, "resourceCount": str(count)}
    return described


def other_resources(requested: Mapping[str, Any]) -> Document:
    """What of a container's resources KFP has no word for."""
    accelerator = _accelerator(requested)
    rest: Document = {}
    for side in ("requests", "limits"):
        for name, value in (requested.get(side) or {}).items():
            if (side, name) not in _KFP_RESOURCES and not (side == "limits" and name == accelerator):
                rest.setdefault(side, {})[name] = str(value)
    return rest


def kubernetes_executor(spec: Mapping[str, Any], step: Mapping[str, Any], at: str) -> Document:
    """Options of a step's executor in kfp-kubernetes' form."""
    template = spec.get("podTemplate") or {}
    options: Document = {}
    if labels := {**(template.get("nodeSelector") or {}), **(step.get("nodeSelector") or {})}:
        options["nodeSelector"] = {"labels": labels}
    if tolerations := [*(template.get("tolerations") or []), *(step.get("tolerations") or [])]:
        options["tolerations"] = [dict(item) for item in tolerations]
    if template.get("imagePullSecrets"):
        options["imagePullSecret"] = [
            {"secretName": item["name"] if isinstance(item, Mapping) else item} for item in template["imagePullSecrets"]
        ]
    if step.get("timeout"):
        options["activeDeadlineSeconds"] = str(seconds(step["timeout"], f"{at}.timeout"))
    for item in step.get("env") or []:
        source = item.get("valueFrom") or {}
        if ref := source.get("secretKeyRef"):
            key = {"secretKey": ref["key"], "envVar": item["name"]}
            entry = {"secretName": ref["name"], "keyToEnv": [key], "optional": bool(ref.get("optional"))}
            options.setdefault("secretAsEnv", []).append(entry)
        elif ref := source.get("configMapKeyRef"):
            key = {"configMapKey": ref["key"], "envVar": item["name"]}
            entry = {"configMapName": ref["name"], "keyToEnv": [key], "optional": bool(ref.get("optional"))}
            options.setdefault("configMapAsEnv", []).append(entry)
        elif ref := source.get("fieldRef"):
            entry = {"name": item["name"], "fieldPath": ref["fieldPath"]}
            options.setdefault("fieldPathAsEnv", []).append(entry)
    return options


def modelyard_executor(spec: Mapping[str, Any], step: Mapping[str, Any], at: str) -> Document:
    """What KFP has no word for, of one step."""
    options: Document = {}
    if step.get("component"):
        options["component"] = step["component"]
    if step.get("workingDir"):
        options["workingDir"] = step["workingDir"]
    if int(step.get("workers") or 1) > 1:
        options["workers"] = int(step["workers"])
    if step.get("timeout"):
        options["timeoutSeconds"] = seconds(step["timeout"], f"{at}.timeout")
    if max_age := (step.get("cache") or {}).get("maxAge"):
        options["cacheMaxAgeSeconds"] = seconds(max_age, f"{at}.cache.maxAge")
    if spec.get("code"):
        options["codeMount"] = "/code"
    if rest := other_resources(step.get("resources") or {}):
        options["resources"] = rest
    known = ("secretKeyRef", "configMapKeyRef", "fieldRef")
    for item in step.get("env") or []:
        source = item.get("valueFrom") or {}
        if source and not any(source.get(key) for key in known):
            options.setdefault("env", []).append(dict(item))
    for field in ("envFrom", "volumeMounts"):
        if step.get(field):
            options[field] = [dict(item) for item in step[field]]
    return options


def modelyard_config(spec: Mapping[str, Any]) -> Document:
    """What KFP has no word for, of the whole pipeline."""
    template = spec.get("podTemplate") or {}
    config: Document = {"parallelism": int(spec.get("parallelism") or 8)}
    if spec.get("model"):
        config["model"] = spec["model"]
    if spec.get("code"):
        config["code"] = dict(spec["code"])
    if spec.get("timeout"):
        config["timeoutSeconds"] = seconds(spec["timeout"], "spec.timeout")
    for field in POD_FIELDS:
        if template.get(field):
            config[field] = template[field]
    return config
