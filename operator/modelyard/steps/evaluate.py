"""``evaluate``: the model on the held-out rows, against thresholds and against Production on the same rows.

*Better* means that the 95 % lower bound of the AUC difference, bootstrapped by day, is above 0.  Without a Production
the comparison is with a constant, whose AUC is one half.  Where Production exists but cannot be scored (its view has
changed, its file is gone) nothing is claimed: ``better`` is false and the report says why.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from modelyard.monitoring import quality
from modelyard.pipelines.manifest import digest_path
from modelyard.steps import learners, tables
from modelyard.steps.context import Feature, Outputs, Step, StepError, Unreadable, input_names, path_of
from modelyard.steps.train import binary

METRICS = ("roc_auc", "brier", "log_loss", "auc_gain", "auc_gain_lower")


def run(step: Step) -> Outputs:
    """Output: ``report``; parameters: those of ``METRICS``, and ``better``."""
    data = step.dataset
    label = data.labelled()
    table = tables.load(step.input("test"))
    missing = [name for name in (label, data.event_timestamp) if name not in table.column_names]
    if missing:
        raise StepError("SchemaViolation", f"column {missing[0]} is not in the test data")
    truth = binary(table[label], label).astype(bool)
    folder = step.input("model")
    try:
        described = json.loads((folder / "model.json").read_text())
    except (OSError, ValueError) as error:
        raise Unreadable(f"input model: {folder}/model.json cannot be read: {error}") from error
    ours = predict(folder / "model.onnx", table, described["features"], described["signature"])
    theirs, against = baseline(step, table)
    days = (tables.seconds(table[data.event_timestamp]) // 86_400).astype(np.int64)
    replicates = step.argument("replicates", int, 500)
    constant = np.zeros(len(truth))
    gain = quality.auc_gain(
        truth, ours, constant if theirs is None else theirs, days, replicates=replicates, seed=step.seed
    )
    comparable = theirs is not None or step.production is None
    metrics = {
        "roc_auc": quality.roc_auc(truth, ours),
        "brier": quality.brier(truth, ours),
        "log_loss": quality.log_loss(truth, ours),
        "auc_gain": gain.gain if comparable else None,
        "auc_gain_lower": gain.lower if comparable and np.isfinite(gain.lower) else None,
    }
    report: dict[str, Any] = {
        "rows": len(truth),
        "positives": float(truth.mean()),
        "metrics": metrics,
        "against": against,
        "bootstrap": {
            "by": "day",
            "days": gain.days,
            "replicates": gain.replicates,
            "upper": _finite(gain.upper),
        },
        "better": comparable and gain.better,
        "calibration": calibration(truth, ours),
    }
    if theirs is not None:
        report["production"] = {
            "roc_auc": quality.roc_auc(truth, theirs),
            "brier": quality.brier(truth, theirs),
            "log_loss": quality.log_loss(truth, theirs),
        }
    thresholds(step, metrics | {"better": report["better"]})
    path = step.prefix / "report"
    tables.write_json(report, path)
    outputs = Outputs(metrics | {"better": report["better"]})
    outputs.add("report", path, "Metrics", **metrics)
    print(
        ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None),
        "against",
        against,
    )
    return outputs


def predict(model: Any, table: pa.Table, features: list[dict[str, Any]], signature: dict[str, Any]) -> Any:
    """A model's probabilities on a table with columns ``VIEW__NAME``."""
    flat = [Feature(used["view"], name) for used in features for name in used["names"]]
    absent = [feature for feature in flat if feature.column not in table.column_names]
    if absent:
        raise StepError("SchemaViolation", f"the test data lacks the model's feature {absent[0]}")
    kinds = {tensor["name"]: tensor["datatype"] for tensor in signature["inputs"]}
    inputs = input_names(flat)
    unknown = sorted(set(inputs.values()) - set(kinds))
    if unknown:
        raise StepError("SchemaViolation", f"the model's signature has no input {unknown[0]}")
    return learners.score(str(model), table, inputs, kinds)


def baseline(step: Step, table: pa.Table) -> tuple[Any | None, str]:
    """Production's probabilities on the same rows, and in words what is compared with."""
    production = step.production
    if not production:
        return None, "a constant: there is no Production"
    name = f"version {production.get('version')} in Production"
    try:
        folder = path_of(production["artifact"]["uri"])
        model = folder / "model.onnx" if folder.is_dir() else folder
        if not model.exists():
            raise Unreadable(f"{production['artifact']['uri']} does not exist")
        expected = production["artifact"].get("digest")
        if expected and digest_path(folder) != expected:
            raise Unreadable(f"{production['artifact']['uri']} is not what was registered: its digest differs")
        return predict(model, table, production["features"], production["signature"]), name
    except (StepError, KeyError) as error:
        print(f"no comparison with {name}: {error}")
        return None, f"nothing: {name} could not be scored: {error}"


def thresholds(step: Step, metrics: dict[str, Any]) -> None:
    """Refuse a model that misses a threshold: ``min_roc_auc: 0.7``, ``max_brier: 0.2``, ``require_better: true``."""
    failed = []
    for name in step.arguments:
        side, _, metric = name.partition("_")
        if side not in ("min", "max") or metric not in METRICS:
            continue
        limit = step.argument(name, float)
        value = metrics[metric]
        if value is None or (value < limit if side == "min" else value > limit):
            failed.append(f"{metric} is {value}, {'at least' if side == 'min' else 'at most'} {limit} is asked")
    if step.argument("require_better", bool, False) and not metrics["better"]:
        failed.append(f"not better than Production: auc_gain_lower is {metrics['auc_gain_lower']}")
    if failed:
        raise StepError("ThresholdMissed", "; ".join(failed))


def calibration(truth: Any, scores: Any) -> list[dict[str, float]]:
    """Mean prediction and mean outcome in ten bins of equal width."""
    bins = np.minimum((scores * 10).astype(int), 9)
    return [
        {
            "rows": int((bins == b).sum()),
            "predicted": float(scores[bins == b].mean()),
            "observed": float(truth[bins == b].mean()),
        }
        for b in range(10)
        if (bins == b).any()
    ]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
