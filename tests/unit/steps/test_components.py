"""The built-in components, from the spine to the registration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from modelyard.monitoring.profile import encoders, load
from modelyard.pipelines.manifest import digest_path
from modelyard.steps import learners
from modelyard.steps.context import Feature, input_names


def path(artifact):
    return Path(artifact["uri"].removeprefix("file://"))


def test_ingest_knows_no_more_than_was_known(trained):
    _, made = trained
    table = pq.read_table(path(made["data"]))
    as_of = pa.scalar("2013-11-23T05:00:00Z").cast(pa.timestamp("us", "UTC"))
    assert pc.max(table["predict_at"]).as_py() <= as_of.as_py()
    assert pc.max(table["arrived_at"]).as_py() <= as_of.as_py()
    newest = table.filter(pc.is_null(table["arrived_at"]))
    assert newest.num_rows > 0
    assert newest["late"].null_count == newest.num_rows
    assert made["data"]["metadata"]["rows"] == table.num_rows
    assert made["data"]["digest"] == digest_path(path(made["data"]))


def test_a_later_run_has_other_data_and_the_same_one_the_same(world):
    first, again = (world.made("ingest", where=name)["data"]["digest"] for name in "ab")
    later = world.made("ingest", where="c", asOf="2013-11-24T05:00:00Z")["data"]["digest"]
    assert first == again
    assert later != first


def test_ingest_reads_csv_as_it_reads_parquet(world):
    from pyarrow import csv

    (world.folder / "csv").mkdir()
    csv.write_csv(pq.read_table(world.folder / "spine"), world.folder / "csv" / "a.csv")
    dataset = world.dataset()
    dataset["spine"] |= {"uri": f"file://{world.folder}/csv/", "format": "csv"}
    a = pq.read_table(path(world.made("ingest", where="a")["data"]))
    b = pq.read_table(path(world.made("ingest", where="b", dataset=dataset)["data"]))
    assert a.select(["flight_id", "predict_at", "late", "arrived_at"]).equals(
        b.select(["flight_id", "predict_at", "late", "arrived_at"])
    )


def test_the_split_is_by_time_with_an_embargo(trained):
    _, made = trained
    train, test = pq.read_table(path(made["train"])), pq.read_table(path(made["test"]))
    cut = np.datetime64("2013-11-08T05:00:00")
    assert pc.max(train["predict_at"]).as_py().replace(tzinfo=None) <= cut - np.timedelta64(24, "h")
    assert pc.min(test["predict_at"]).as_py().replace(tzinfo=None) > cut
    assert train.column_names == ["flight_id", "predict_at", "late", "weather__storm", "weather__sky"]
    assert train["late"].null_count == test["late"].null_count == 0
    profile = load(path(made["profile"]))
    assert set(encoders(profile)) == {"weather__storm", "weather__sky"}
    assert profile["rows"] == train.num_rows


def test_the_model_is_onnx_with_an_input_per_feature(trained):
    _, made = trained
    folder = path(made["model"])
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    assert {i.name: (i.type, i.shape[1]) for i in session.get_inputs()} == {
        "storm": ("tensor(float)", 1),
        "sky": ("tensor(string)", 1),
    }
    assert [o.name for o in session.get_outputs()] == ["label", "probabilities"]
    described = json.loads((folder / "model.json").read_text())
    assert [i["name"] for i in described["signature"]["inputs"]] == ["storm", "sky"]
    storm = np.array([[1.0], [0.0], [np.nan]], np.float32)
    sky = np.array([["bad"], ["good"], ["unheard of"]], object)
    bad, good, _ = session.run(["probabilities"], {"storm": storm, "sky": sky})[0][:, 1]
    assert bad > good + 0.3


@pytest.mark.parametrize("learner", ["logistic_regression", "random_forest"])
def test_other_learners_convert_too(trained, learner):
    world, made = trained
    parameters = {"n_estimators": 10} if learner == "random_forest" else {}
    arguments = {"learner": learner, "parameters": parameters}
    code, manifest, _ = world.run("train", where=learner, inputs={"train": made["train"]}, arguments=arguments)
    assert code == 0, manifest.error


def test_training_is_deterministic(trained):
    world, made = trained
    arguments = {"parameters": {"max_iter": 40}}
    again = world.made("train", where="again", inputs={"train": made["train"]}, arguments=arguments)
    assert again["model"]["digest"] == made["model"]["digest"]


def test_evaluate_against_nothing_and_against_production(trained):
    world, made = trained
    inputs = {"test": made["test"], "model": made["model"]}
    code, manifest, stderr = world.run("evaluate", process=True, inputs=inputs)
    assert code == 0, stderr
    alone = manifest.parameters
    assert alone["roc_auc"] > 0.7
    assert alone["better"] is True
    described = json.loads((path(made["model"]) / "model.json").read_text())
    production = {"version": 1, "artifact": made["model"] | {"format": "onnx"}} | {
        key: described[key] for key in ("features", "signature")
    }
    code, manifest, _ = world.run("evaluate", where="same", inputs=inputs, production=production)
    assert code == 0
    assert manifest.parameters["auc_gain"] == 0
    assert manifest.parameters["better"] is False
    production["artifact"] = production["artifact"] | {"digest": "sha256:" + "0" * 64}
    code, manifest, _ = world.run("evaluate", where="other", inputs=inputs, production=production)
    assert code == 0
    assert manifest.parameters["better"] is False
    assert "digest differs" in (world.folder / "runs/other/report").read_text()


def test_register_says_what_is_to_be_registered(trained):
    world, made = trained
    arguments = {"roc_auc": 0.8, "auc_gain_lower": None, "brier": "0.12"}
    inputs = {name: made[name] for name in ("model", "profile", "data")}
    code, manifest, stderr = world.run("register", process=True, inputs=inputs, arguments=arguments)
    assert code == 0, stderr
    registration = manifest.parameters["registration"]
    assert registration["metrics"] == {"roc_auc": 0.8, "brier": 0.12}
    assert registration["artifact"]["digest"] == made["model"]["digest"]
    assert registration["data"][0]["rows"] == made["data"]["metadata"]["rows"]
    assert registration["asOf"] == "2013-11-23T05:00:00Z"


def test_batch_prediction_covers_rows_without_a_label(trained):
    world, made = trained
    code, manifest, _ = world.run("predict", inputs={"data": made["data"], "model": made["model"]})
    assert code == 0, manifest.error
    assert manifest.parameters["rows"] == made["data"]["metadata"]["rows"]


def test_names_of_inputs():
    names = input_names([Feature("a", "x"), Feature("b", "x"), Feature("ns/b", "y")])
    assert names == {"a__x": "a__x", "b__x": "b__x", "ns__b__y": "y"}


def test_a_text_column_of_nulls_still_makes_a_model():
    table = pa.table({"v__a": pa.array([None] * 80, pa.string()), "v__b": np.arange(80.0)})
    encoding = learners.Encoding.fit(table, ["v__a", "v__b"])
    model = learners.build("hist_gradient_boosting", {"max_iter": 5}, encoding, 0)
    model.fit(encoding.matrix(table), np.arange(80) > 40)
    onnx = learners.to_onnx(model, encoding, {"v__a": "a", "v__b": "b"})
    scores = learners.score(onnx, table, {"v__a": "a", "v__b": "b"}, {"a": "BYTES", "b": "FP32"})
    assert scores == pytest.approx(model.predict_proba(encoding.matrix(table))[:, 1], abs=1e-6)
