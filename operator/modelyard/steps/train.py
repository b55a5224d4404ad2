"""``train``: a scikit-learn classifier on the training part, as ONNX that is proved to be the same function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from modelyard.steps import learners, tables
from modelyard.steps.context import Outputs, Step, StepError, Unreadable, input_names

#: How far ONNX's probabilities may be from scikit-learn's, on how many rows.
TOLERANCE = 1e-4
CHECKED_ROWS = 20_000


def run(step: Step) -> Outputs:
    """Output: ``model``, a folder with ``model.onnx`` and ``model.json``."""
    data = step.dataset
    label = data.labelled()
    features = list(data.features)
    if not features:
        raise StepError("InvalidDataset", "dataset.features is empty: there is nothing to learn from")
    learner = step.argument("learner", str, "hist_gradient_boosting")
    parameters = step.argument("parameters", dict, {})
    seed = step.argument("seed", int, step.seed)
    table = tables.load(step.input("train"))
    needed = [label, *(feature.column for feature in features)]
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise StepError("SchemaViolation", f"column {missing[0]} is not in the training data")
    target = binary(table[label], label)
    encoding = learners.Encoding.fit(table, needed[1:])
    matrix = encoding.matrix(table)
    sample = table.take(pa.array(_sample(table.num_rows, seed)))
    rows = table.num_rows
    del table
    model = learners.build(learner, parameters, encoding, seed)
    try:
        model.fit(matrix, target)
    except ValueError as error:  # a hyperparameter out of range, infinite values
        raise StepError("TrainingFailed", str(error).splitlines()[0]) from error
    del matrix

    inputs = input_names(features)
    signature: dict[str, list[dict[str, Any]]] = {
        "inputs": [
            {
                "name": inputs[f.column],
                "datatype": "BYTES" if f.column in encoding.categories else "FP32",
                "shape": [-1, 1],
            }
            for f in features
        ],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }
    onnx = learners.to_onnx(model, encoding, inputs)
    kinds = {tensor["name"]: tensor["datatype"] for tensor in signature["inputs"]}
    worst = float(
        np.abs(learners.score(onnx, sample, inputs, kinds) - model.predict_proba(encoding.matrix(sample))[:, 1]).max()
    )
    if not worst <= TOLERANCE:
        raise StepError(
            "ConversionDiffers",
            f"ONNX's probabilities differ from scikit-learn's by {worst:.2g} (at most {TOLERANCE}) on a sample",
        )
    print(f"{learner}: {rows} rows, {len(features)} features; ONNX differs by at most {worst:.1g}")
    folder = step.prefix / "model"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx)
    described = {
        "format": "onnx",
        "learner": learner,
        "parameters": parameters,
        "seed": seed,
        "signature": signature,
        "features": used(step),
        "rows": rows,
        "positives": float(target.mean()),
        "data": {"uri": step.inputs["train"].uri, "digest": step.inputs["train"].digest, "rows": rows},
    }
    tables.write_json(described, folder / "model.json")
    outputs = Outputs()
    outputs.add("model", folder, "Model", format="onnx", learner=learner)
    return outputs


def used(step: Step) -> list[dict[str, object]]:
    """The model's features by view, with the version of each view's definition."""
    views: dict[str, list[str]] = {}
    for feature in step.dataset.features:
        views.setdefault(feature.view, []).append(feature.name)
    return [
        {"view": key, "version": (step.views.get(key) or {}).get("version", ""), "names": names}
        for key, names in views.items()
    ]


def binary(column: pa.ChunkedArray, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A label of two classes as 0 and 1, or a refusal that says what was found."""
    if not tables.is_number(column.type):
        raise StepError(
            "SchemaViolation", f"column {name}: the label must be a boolean or 0 and 1, found {column.type}"
        )
    if column.null_count:
        raise StepError("SchemaViolation", f"column {name}: {column.null_count} labels are null")
    values = tables.floats(column)
    found = np.unique(values)
    if not len(values):
        raise Unreadable(f"column {name}: there are no rows")
    if len(found) == 1:
        raise StepError("ConstantLabel", f"column {name} is {found[0]:g} in all {len(values)} rows: nothing to learn")
    if not np.isin(found, (0.0, 1.0)).all():
        shown = ", ".join(f"{value:g}" for value in found[:5])
        raise StepError("SchemaViolation", f"column {name}: the label must be 0 and 1, found {shown}")
    return values.astype(np.int64)


def _sample(rows: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if rows <= CHECKED_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, CHECKED_ROWS, replace=False))
