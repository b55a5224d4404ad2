"""``register``: says what is to become a ModelVersion; the operator makes it, exactly once, from what is said here."""

from __future__ import annotations

import json
import math
from typing import Any

from modelyard.steps.context import Outputs, Step, StepError, Unreadable


def run(step: Step) -> Outputs:
    """Parameter ``registration``, as docs/decisions/0001 fixes it."""
    folder = step.input("model")
    step.input("profile")
    try:
        described = json.loads((folder / "model.json").read_text())
    except (OSError, ValueError) as error:
        raise Unreadable(f"input model: {folder}/model.json cannot be read: {error}") from error
    if not step.model:
        raise StepError("InvalidPipeline", "spec.model is missing: there is no Model to register a version of")
    metrics = step.argument("metrics", dict, {}) | {
        name: step.argument(name, object) for name in step.arguments if name != "metrics"
    }
    model, profile = step.inputs["model"], step.inputs["profile"]
    data = [
        {"uri": artifact.uri, "digest": artifact.digest, **({"rows": rows} if isinstance(rows, int) else {})}
        for name, artifact in sorted(step.inputs.items())
        if artifact.type == "Dataset" and (rows := artifact.metadata.get("rows", "")) is not None
    ]
    registration: dict[str, Any] = {
        "model": step.model,
        "artifact": {"uri": model.uri, "digest": model.digest, "format": described.get("format", "onnx")},
        "signature": described["signature"],
        "features": described["features"],
        "baseline": {"uri": profile.uri, "digest": profile.digest},
        "metrics": numbers(metrics),
        "data": data or [described["data"]],
        "asOf": step.moment().strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seed": described.get("seed", step.seed),
    }
    print(f"a version of {step.model}: {json.dumps(registration['metrics'])}")
    return Outputs({"registration": registration})


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Metrics as the registry keeps them: finite numbers, with true as 1; what is null was not measured."""
    kept: dict[str, float] = {}
    for name, value in metrics.items():
        if value is None or value == "":
            continue
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise StepError("InvalidArgument", f"metric {name}: {value!r} is not a number") from error
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise StepError("InvalidArgument", f"metric {name}: {value!r} is not a number")
        kept[name] = float(value)
    return kept
