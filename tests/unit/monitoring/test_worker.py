"""The monitor's rounds: what is compared, what is not, and what counts as the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry

from modelyard.features.definitions import version
from modelyard.monitoring.worker import Monitor, read_config, same

T0 = datetime(2013, 11, 1, tzinfo=UTC)
LABELS = {"namespace": "n", "serving_deployment": "flights", "version": "7"}


def stamps(hours):
    return pa.array([T0 + timedelta(hours=float(h)) for h in hours], pa.timestamp("us", "UTC"))


@pytest.fixture
def folder(tmp_path):
    hours = np.arange(0, 240)
    weather = {"origin": ["EWR"] * 240, "observed_at": stamps(hours), "temp": hours * 0.5}
    pq.write_table(pa.table(weather), tmp_path / "weather.parquet")
    rng = np.random.default_rng(0)
    truth = {
        "flight_id": [f"f{i}" for i in range(200)],
        "late": rng.integers(0, 2, 200),
        "arrived_at": stamps(np.arange(200) + 5),
    }
    pq.write_table(pa.table(truth), tmp_path / "labels.parquet")
    (tmp_path / "predictions" / "7").mkdir(parents=True)
    return tmp_path


def monitor(folder, **changes):
    spec = {
        "entities": [{"name": "origin", "type": "string"}],
        "timestampField": "observed_at",
        "availability": "60m",
        "source": {"batch": {"uri": f"file://{folder}/weather.parquet"}},
        "features": [{"name": "temp", "type": "float64"}],
    }
    config = {
        "servingDeployment": "flights", "namespace": "n", "predictionLog": f"file://{folder}/predictions/",
        "views": {"weather": spec},
        "features": {"7": [{"view": "weather", "version": version(spec), "names": ["temp"]}]},
        "label": {
            "uri": f"file://{folder}/labels.parquet", "column": "late", "availableAt": "arrived_at", "id": "flight_id"
        },
        "samplePerRound": 1000,
    }  # fmt: skip
    registry = CollectorRegistry()
    return Monitor(config | changes, registry), registry


def serve(folder, name, hours, temps, ids=None, entity="EWR"):
    rows = len(hours)
    labels = pq.read_table(folder / "labels.parquet")["late"].to_pylist()
    table = {
        "request_id": [f"{name}-{i}" for i in range(rows)],
        "id": ids or [f"f{i}" for i in range(rows)],
        "version": pa.array([7] * rows, pa.int32()),
        "event_timestamp": stamps(hours),
        "served_at": stamps([500] * rows),
        "entity__origin": pa.array([entity] * rows, pa.string()),
        "feature__weather__temp": pa.array(temps, pa.float64()),
        "prediction": [0.1 + 0.8 * labels[i % 200] for i in range(rows)],
        "latency_ms": [1.0] * rows,
    }
    pq.write_table(pa.table(table), folder / "predictions" / "7" / f"{name}.parquet")


def value(registry, name, **more):
    return registry.get_sample_value(name, LABELS | more)


def test_what_was_known_is_the_same(folder):
    hours = np.arange(2, 122) + 0.5
    serve(folder, "a", hours, np.floor(hours - 1) * 0.5)
    found, registry = monitor(folder)
    assert found.round() == 120
    assert value(registry, "modelyard_parity_checked_total") == 120
    assert value(registry, "modelyard_parity_mismatched_total") == 0
    assert found.round() == 0
    assert value(registry, "modelyard_parity_checked_total") == 120


def test_a_leak_is_found(folder):
    hours = np.arange(2, 122) + 0.5
    serve(folder, "a", hours, np.floor(hours) * 0.5)  # an hour too early
    found, registry = monitor(folder)
    found.round()
    assert value(registry, "modelyard_parity_mismatched_total") == 120
    assert value(registry, "modelyard_parity_mismatched_values_total", feature="weather:temp") == 120


def test_labels_are_those_known_by_the_newest_event_time(folder):
    hours = np.arange(100, dtype=float)
    serve(folder, "a", hours, hours)
    found, registry = monitor(folder)
    found.round()
    assert value(registry, "modelyard_labels_joined_total") == 95  # f0 to f94 had arrived by hour 99
    assert value(registry, "modelyard_quality", metric="roc_auc") == 1.0
    assert value(registry, "modelyard_quality", metric="brier") == pytest.approx(0.01)
    serve(folder, "b", [150.0], [0.0], ids=["none"])
    found.round()
    assert value(registry, "modelyard_labels_joined_total") == 100


def test_requests_with_tensors_are_not_compared(folder):
    serve(folder, "a", np.arange(10.0), [1.0] * 10, entity=None)
    found, registry = monitor(folder)
    found.round()
    assert value(registry, "modelyard_parity_checked_total") == 0


def test_broken_files_and_sources_are_counted_and_survived(folder):
    (folder / "predictions" / "7" / "x.parquet").write_bytes(b"half")
    serve(folder, "y", np.arange(10.0), [1.0] * 10)
    found, registry = monitor(folder)
    (folder / "weather.parquet").unlink()
    (folder / "labels.parquet").unlink()
    assert found.round() == 10
    errors = registry.get_sample_value(
        "modelyard_monitor_errors_total", {"namespace": "n", "serving_deployment": "flights"}
    )
    assert errors == 3


def test_a_view_that_has_changed_is_not_compared(folder):
    serve(folder, "a", np.arange(10.0), [1.0] * 10)
    features = {"7": [{"view": "weather", "version": "0123456789", "names": ["temp"]}]}
    found, registry = monitor(folder, features=features)
    found.round()
    assert value(registry, "modelyard_parity_checked_total") == 0


def test_the_operators_form_of_the_configuration(folder):
    plain, _ = monitor(folder)
    spec = plain.config["views"]["weather"]
    used = [{"view": "weather", "version": version(spec), "names": ["temp"], "spec": spec}]
    log = f"{folder}/predictions/7"
    config = {
        "namespace": "n",
        "servingDeployment": "flights",
        "monitoring": {"label": plain.config["label"], "sampleRatio": 0.1},
        "versions": [{"version": 7, "features": used, "predictionLog": log}],
    }
    (folder / "monitor.json").write_text(json.dumps(config))
    serve(folder, "a", np.arange(2, 102) + 0.5, np.arange(1, 101) * 0.5)
    registry = CollectorRegistry()
    Monitor(read_config(folder / "monitor.json"), registry).round()
    assert value(registry, "modelyard_parity_checked_total") == 100
    assert value(registry, "modelyard_parity_mismatched_total") == 0
    assert value(registry, "modelyard_labels_joined_total") > 50


@pytest.mark.parametrize(
    ("served", "expected", "equal"),
    [
        (None, None, True), (float("nan"), None, True), (None, 0.0, False), (1.0, 1.0 + 1e-7, True),
        (1.0, 1.001, False), ("a", "a", True), ("3", 3, True), (3, 3.0, True), (True, True, True), ("a", "b", False),
    ],
)  # fmt: skip
def test_same(served, expected, equal):
    assert same(served, expected) is equal
