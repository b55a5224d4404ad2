"""``features``: what was known at each row's time, split by time into training and test, and the training's profile.

The test is the last ``holdout`` before ``asOf``.  Training ends an ``embargo`` before it, and uses only labels that
were available when the test begins: a model judged on October must not have learnt from what was found out in it.
Production's features are joined too, so that both models can be judged on the same rows.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.features.definitions import View, view
from modelyard.features.errors import FeatureError, SourceError
from modelyard.features.join import point_in_time_join
from modelyard.monitoring.profile import profile_table
from modelyard.steps import tables
from modelyard.steps.context import Dataset, Feature, Outputs, Step, StepError, Unreadable, duration


def run(step: Step) -> Outputs:
    """Outputs: ``train``, ``test``, ``profile``; parameters ``rows_train``, ``rows_test``."""
    data = step.dataset
    label = data.labelled()
    if not data.features:
        raise StepError("InvalidDataset", "dataset.features is empty: there is nothing to learn from")
    holdout, embargo = _split(step, data)
    spine = tables.load(step.input("data"))
    for name in (data.event_timestamp, label):
        if name not in spine.column_names:
            raise StepError("SchemaViolation", f"column {name} is not in the data that ingest gave")
    labelled = spine.filter(pc.is_valid(spine[label]))
    if not labelled.num_rows:
        raise StepError(
            "NoLabels", f"none of {spine.num_rows} rows has a {label} that was available at {step.moment()}"
        )
    del spine
    cut = step.moment() - holdout
    train_rows, test_rows = _masks(labelled, data, cut, embargo)
    labelled = labelled.filter(pa.array(train_rows | test_rows))
    is_test = test_rows[train_rows | test_rows]

    ours = list(data.features)
    theirs = production_features(step)
    every = [*ours, *(feature for feature in theirs if feature not in ours)]
    joined = join(labelled, every, step, data.event_timestamp)
    kept = [name for name in (data.id, data.event_timestamp, label) if name]
    table = joined.select([*dict.fromkeys(kept), *(feature.column for feature in every)])
    del labelled, joined

    outputs = Outputs()
    train, test = table.filter(pa.array(~is_test)), table.filter(pa.array(is_test))
    for name, part, span in (
        (
            "train",
            train.select([*dict.fromkeys(kept), *(feature.column for feature in ours)]),
            f"before {cut}",
        ),
        ("test", test, f"{cut} to {step.moment()}"),
    ):
        if not part.num_rows:
            raise StepError(
                "EmptySplit",
                f"no labelled row for {name} ({span}): see dataset.window, split.holdout and split.embargo",
            )
        path = step.prefix / name
        tables.save(part, path)
        outputs.add(name, path, "Dataset", rows=part.num_rows)
        outputs.parameters[f"rows_{name}"] = part.num_rows
        print(f"{name}: {part.num_rows} rows, {span}")
    path = step.prefix / "profile"
    tables.write_json(profile(train, ours, data.event_timestamp), path)
    outputs.add("profile", path, "Artifact")
    return outputs


def _split(step: Step, data: Dataset) -> tuple[timedelta, timedelta]:
    """Holdout and embargo, from arguments or the dataset."""
    holdout, embargo = step.argument("holdout", str), step.argument("embargo", str)
    length = duration(holdout, "argument holdout") if holdout else data.holdout
    if length is None:
        raise StepError("InvalidDataset", "dataset.split.holdout is missing: there would be nothing to evaluate on")
    return length, duration(embargo, "argument embargo") if embargo else data.embargo


def _masks(
    table: pa.Table, data: Dataset, cut: datetime, embargo: timedelta
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which rows are for training, and which for the test."""
    times = table[data.event_timestamp]
    test = pc.greater(times, pa.scalar(cut, tables.TIME))
    train = pc.less_equal(times, pa.scalar(cut - embargo, tables.TIME))
    if data.available_at and data.available_at in table.column_names:
        train = pc.and_(train, pc.less_equal(table[data.available_at], pa.scalar(cut, tables.TIME)))
    return (
        np.asarray(pc.fill_null(train, False).to_numpy(zero_copy_only=False), bool),
        np.asarray(pc.fill_null(test, False).to_numpy(zero_copy_only=False), bool),
    )


def production_features(step: Step) -> list[Feature]:
    """Production's features, if their views are still what they were; else none, and it is not compared with."""
    wanted = []
    for used in (step.production or {}).get("features") or ():
        spec = step.views.get(used["view"])
        if spec is None or (spec.get("version") and used.get("version") and spec["version"] != used["version"]):
            print(f"Production's view {used['view']} has changed or gone: no comparison with Production")
            return []
        wanted += [Feature(used["view"], name) for name in used["names"]]
    return wanted


def definitions(step: Step, features: list[Feature]) -> dict[str, View]:
    """The views of features."""
    found = {}
    for key in dict.fromkeys(feature.view for feature in features):
        if key not in step.views:
            known = ", ".join(sorted(step.views)) or "none"
            raise StepError("UnknownView", f"there is no FeatureView {key!r}; known are {known}")
        namespace, _, name = key.rpartition("/")
        found[key] = view(name, step.views[key], namespace=namespace or step.namespace)
    return found


def join(spine: pa.Table, features: list[Feature], step: Step, event_timestamp: str) -> pa.Table:
    """The spine with a column ``VIEW__NAME`` per feature; the join's own refusals become ours."""
    try:
        views = definitions(step, features)
        entities = {entity.name for definition in views.values() for entity in definition.entities}
        needed = [name for name in spine.column_names if name in entities or name == event_timestamp]
        answer = point_in_time_join(
            spine.select(needed),
            views,
            [str(feature) for feature in features],
            event_timestamp=event_timestamp,
        )
    except SourceError as error:
        raise Unreadable(str(error), error.reason) from error
    except FeatureError as error:
        raise StepError(error.reason, str(error)) from error
    for feature, name in zip(features, answer.column_names[len(needed) :], strict=True):
        spine = spine.append_column(feature.column, answer[name])
    return spine


def profile(train: pa.Table, features: list[Feature], event_timestamp: str) -> dict[str, Any]:
    """The reference profile of the training rows, one column at a time."""
    times = tables.seconds(train[event_timestamp])
    document = profile_table({})
    for feature in features:
        column = train[feature.column]
        text = tables.is_text(column.type)
        values = column.to_pylist() if text else tables.floats(column)
        one = profile_table({feature.column: values}, [feature.column] if text else [], times)
        document["rows"] = train.num_rows
        document["features"][feature.column] = one["features"][feature.column] | {
            "view": feature.view,
            "name": feature.name,
        }
    return document
