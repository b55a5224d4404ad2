"""Bad input: an exit code that says not to try again, and a message that names what to change."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import ROOT, build, spine


def refused(world, component, code, reason, *words, **given):
    found, manifest, stderr = world.run(component, **given)
    assert found == code, (found, manifest.error, stderr)
    assert manifest.error is not None
    assert manifest.error.reason == reason, manifest.error
    assert not manifest.artifacts
    for word in words:
        assert word in manifest.error.message, manifest.error.message
    assert "Traceback" not in stderr


def test_a_missing_column_is_named(world):
    dataset = world.dataset(label={"column": "tardy", "availableAt": "arrived_at"})
    refused(world, "ingest", 64, "SchemaViolation", "tardy", "label.column", process=True, dataset=dataset)


def test_missing_and_broken_files(world):
    dataset = world.dataset()
    dataset["spine"] |= {"uri": "file:///nowhere/at/all/"}
    refused(world, "ingest", 65, "UnreadableData", "/nowhere/at/all", dataset=dataset)
    (world.folder / "spine" / "zzz.parquet").write_bytes(b"not parquet")
    refused(world, "ingest", 65, "UnreadableData", "spine")


def test_an_empty_window_says_what_there_is(world):
    refused(world, "ingest", 64, "EmptyWindow", "2013-09-24", asOf="2020-01-01T00:00:00Z")


def test_a_time_that_is_none(tmp_path):
    table = spine(50)
    table = table.set_column(1, "predict_at", pa.array(["soon"] * 50))
    refused(build(tmp_path, table), "ingest", 64, "SchemaViolation", "predict_at")


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ({"columns": {"temp": {}}}, ("missingColumn", "temp")),
        ({"columns": {"late": {"type": "string"}}}, ("type", "late", "int64")),
        ({"columns": {"late": {"maxNullRatio": 0}}}, ("maxNullRatio", "late")),
        ({"columns": {"late": {"max": 0}}}, ("max", "late", "e.g. 1")),
        ({"columns": {"origin": {"values": ["EWR"]}}}, ("values", "origin", "JFK")),
        ({"columns": {"origin": {"unique": True}}}, ("unique", "origin")),
        ({"columns": {"origin": {"min": 3}}}, ("origin", "for numbers")),
        ({"rows": {"min": 10_000_000}}, ("rows", "10000000")),
        ({"allowOtherColumns": False, "columns": {"late": {}}}, ("newColumn", "origin")),
    ],
)
def test_bad_data_names_check_and_column(trained, checks, words):
    world, made = trained
    arguments = {"checks": checks}
    refused(
        world,
        "validate",
        64,
        "SchemaViolation",
        *words,
        where="bad",
        inputs={"data": made["data"]},
        arguments=arguments,
    )
    arguments["failOnAnomalies"] = False
    code, manifest, _ = world.run("validate", where="count", inputs={"data": made["data"]}, arguments=arguments)
    assert code == 0
    assert manifest.parameters["anomalies"] >= 1


def test_a_misspelt_check_is_no_check(trained):
    world, made = trained
    arguments = {"checks": {"columns": {"late": {"maximum": 1}}}}
    refused(
        world,
        "validate",
        64,
        "InvalidArgument",
        "maximum",
        where="x",
        inputs={"data": made["data"]},
        arguments=arguments,
    )


def test_an_id_that_is_none(tmp_path):
    table = spine(200)
    world = build(tmp_path, pa.concat_tables([table, table.slice(0, 1)]))
    data = world.made("ingest")["data"]
    refused(world, "validate", 64, "SchemaViolation", "unique", "flight_id", "f0", inputs={"data": data})


def test_features_that_are_not_there(trained):
    world, made = trained
    for features, word in ((["climate:temp"], "climate"), (["weather:hail"], "hail"), ([], "empty")):
        code, manifest, _ = world.run(
            "features", where="x", inputs={"data": made["data"]}, dataset=world.dataset(features=features)
        )
        assert code == 64
        assert word in manifest.error.message


def test_a_source_of_features_that_is_not_there(trained):
    world, made = trained
    views = json.loads(json.dumps(world.views).replace("weather.parquet", "gone.parquet"))
    code, manifest, _ = world.run("features", where="x", inputs={"data": made["data"]}, views=views)
    assert code == 65
    assert "gone.parquet" in manifest.error.message


def test_a_split_without_rows(trained):
    world, made = trained
    split = {"by": "time", "holdout": "400d", "embargo": "0s"}
    refused(
        world, "features", 64, "EmptySplit", "train", "holdout", where="x", inputs={"data": made["data"]},
        dataset=world.dataset(split=split),
    )  # fmt: skip


def test_a_constant_label(world):
    table = pa.table(
        {"flight_id": ["a"] * 30, "late": np.ones(30), "weather__storm": np.ones(30), "weather__sky": ["x"] * 30}
    )
    pq.write_table(table, world.folder / "t")
    train = {"train": {"uri": f"file://{world.folder}/t"}}
    refused(world, "train", 64, "ConstantLabel", "late", "30 rows", inputs=train)


def test_arguments_that_make_no_sense(trained):
    world, made = trained
    inputs = {"train": made["train"]}
    for arguments, word in (
        ({"learner": "magic"}, "magic"),
        ({"parameters": {"max_itr": 3}}, "max_itr"),
        ({"parameters": "many"}, "parameters"),
        ({"parameters": {"max_iter": -3}}, "max_iter"),
    ):
        code, manifest, _ = world.run("train", where="x", inputs=inputs, arguments=arguments)
        assert code == 64, manifest
        assert word in manifest.error.message


def test_a_threshold_that_is_missed(trained):
    world, made = trained
    inputs = {"test": made["test"], "model": made["model"]}
    arguments = {"min_roc_auc": 0.999}
    refused(world, "evaluate", 64, "ThresholdMissed", "roc_auc", where="x", inputs=inputs, arguments=arguments)


def test_a_missing_input_says_how_to_give_it(world):
    refused(world, "train", 64, "MissingInput", "'train'")


def test_an_unknown_component(tmp_path):
    log = tmp_path / "log"
    env = os.environ | {"PYTHONPATH": str(ROOT / "operator"), "MODELYARD_TERMINATION_LOG": str(log)}
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.steps", "dance"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert "dance" in log.read_text()
    assert "Traceback" not in done.stderr
