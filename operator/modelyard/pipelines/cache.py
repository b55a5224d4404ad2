"""Under which key a task's outputs may be used again.

The key covers all that can change the result: the component or the command, the image by digest (by its
name until a digest is known), the arguments, the *digests* of input artifacts, the code, and what a
built-in component sees of the run.  Where artifacts lie, what the steps are called and which run made them
is not in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from modelyard.pipelines import ir
from modelyard.pipelines.compile import canonical
from modelyard.pipelines.components import COMPONENTS
from modelyard.pipelines.freeze import Frozen
from modelyard.pipelines.observe import Published, timestamp
from modelyard.pipelines.resolve import Resolved

#: Goes into every key; raise it when the meaning of a key or of a built-in component changes.
GENERATION = 1


def cache_key(frozen: Frozen, task: str, resolved: Resolved) -> str | None:
    """The key of a task with these inputs; None where it must not be reused.

    That is so for a component with an effect (``register``), and where an input artifact has no digest.
    """
    label = ir.executor_label(frozen.ir, task)
    options = ir.options(frozen.platforms, "modelyard", label)
    component = options.get("component")
    if component and not COMPONENTS[component].cacheable:
        return None
    if any(not artifact.get("digest") for artifact in resolved.artifacts.values()):
        return None
    container = ir.container(frozen.ir, task)
    document = frozen.document
    covered: dict[str, Any] = {
        "generation": GENERATION,
        "image": frozen.image(task),
        "parameters": dict(resolved.parameters),
        "artifacts": {name: artifact["digest"] for name, artifact in resolved.artifacts.items()},
        "outputs": ir.component(frozen.ir, task).get("outputDefinitions") or {},
        "code": (document.get("code") or {}).get("digest"),
        "env": [container.get("env") or [], options.get("env") or [], options.get("envFrom") or []],
    }
    if component:
        seen = COMPONENTS[component]
        covered |= {
            "component": component,
            "dataset": document.get("dataset"),
            "views": {name: view.get("version") for name, view in (document.get("views") or {}).items()},
            "seed": document.get("seed"),
            "model": document.get("model"),
            "asOf": document["asOf"] if seen.sees_as_of else None,
            "production": document.get("production") if seen.sees_production else None,
        }
    else:
        kubernetes = ir.options(frozen.platforms, "kubernetes", label)
        covered |= {
            "command": container.get("command") or [],
            "args": container.get("args") or [],
            "workers": options.get("workers", 1),
            "from": [kubernetes.get(key) or [] for key in ("secretAsEnv", "configMapAsEnv", "fieldPathAsEnv")],
            "mounts": options.get("volumeMounts") or [],
        }
    return hashlib.sha256(canonical(covered).encode()).hexdigest()


def enabled(frozen: Frozen, task: str) -> bool:
    """Whether the pipeline wants this task's outputs reused."""
    return bool((ir.tasks(frozen.ir)[task].get("cachingOptions") or {}).get("enableCache"))


def fresh(frozen: Frozen, task: str, record: Published, now: datetime) -> bool:
    """Whether a record is young enough for the task's ``maxAge``."""
    label = ir.executor_label(frozen.ir, task)
    max_age = ir.options(frozen.platforms, "modelyard", label).get("cacheMaxAgeSeconds")
    if not max_age:
        return True
    return record.created_at is not None and now - record.created_at <= timedelta(seconds=int(max_age))


def record_name(key: str) -> str:
    """The name of the ConfigMap that keeps the record of ``key``."""
    return f"cache-{key[:40]}"


def build_record(frozen: Frozen, task: str, key: str, outputs: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The ConfigMap that says what a key's outputs are.  It has no owner: it outlives the run."""
    record = {
        "key": key,
        "outputs": outputs,
        "run": frozen.run,
        "task": task,
        "createdAt": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": record_name(key),
            "namespace": frozen.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "modelyard",
                "app.kubernetes.io/component": "cache",
                "modelyard.dev/pipeline": frozen.document["pipeline"],
            },
        },
        "data": {"record": canonical(record)},
    }


def parse_record(stored: Mapping[str, Any], key: str) -> Published | None:
    """The record in a ConfigMap; None where it is of another key or malformed, which is a miss and no error."""
    try:
        record = json.loads(stored["data"]["record"])
        if record["key"] != key:
            return None
        made = timestamp(record["createdAt"])
        return Published(key, record["outputs"], str(record["run"]), str(record["task"]), made)
    except (KeyError, TypeError, ValueError):
        return None
