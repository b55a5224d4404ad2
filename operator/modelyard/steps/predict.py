"""``predict``: batch prediction, by the given model or by Production, with features as known at each row's time."""

from __future__ import annotations

import json

import pyarrow as pa

from modelyard.steps import tables
from modelyard.steps.context import Feature, Outputs, Step, StepError, Unreadable, path_of
from modelyard.steps.evaluate import predict
from modelyard.steps.features import join


def run(step: Step) -> Outputs:
    """Output ``predictions`` (id, event timestamp, ``prediction``); parameter ``rows``."""
    data = step.dataset
    if "model" in step.inputs:
        folder = step.input("model")
        try:
            model = json.loads((folder / "model.json").read_text())
        except (OSError, ValueError) as error:
            raise Unreadable(f"input model: {folder}/model.json cannot be read: {error}") from error
    elif step.production:
        model, folder = dict(step.production), path_of(step.production["artifact"]["uri"])
    else:
        raise StepError("MissingInput", "component predict needs the artifact 'model', or a Production to use")
    spine = tables.load(step.input("data"))
    features = [Feature(used["view"], name) for used in model["features"] for name in used["names"]]
    joined = join(spine, features, step, data.event_timestamp)
    file = folder / "model.onnx" if folder.is_dir() else folder
    scores = predict(file, joined, model["features"], model["signature"])
    kept = joined.select([name for name in (data.id, data.event_timestamp) if name])
    kept = kept.append_column("prediction", pa.array(scores, pa.float64()))
    path = step.prefix / "predictions"
    tables.save(kept, path)
    outputs = Outputs({"rows": kept.num_rows})
    outputs.add("predictions", path, "Dataset", rows=kept.num_rows)
    return outputs
