"""The targets file says of a pod what Kubernetes discovery would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelyard.cluster.targets import groups, write


def pod(name: str, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "metadata": {
            "name": name,
            "namespace": "demo",
            "labels": {"app.kubernetes.io/name": "modelyard-server"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "other": "x"},
        },
        "spec": {
            "containers": [{"ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9090}]}],
        },
        "status": {"podIP": "10.0.0.1", "phase": "Running"},
    }
    for key, value in changes.items():
        made[key] = {**made[key], **value}
    return made


def test_a_group_for_each_port() -> None:
    first, second = groups([pod("a")])
    assert {*first["targets"], *second["targets"]} == {"10.0.0.1:8080", "10.0.0.1:9090"}
    labels = first["labels"]
    assert labels["__meta_kubernetes_namespace"] == "demo"
    assert labels["__meta_kubernetes_pod_annotation_prometheus_io_port"] == "9090"
    assert labels["__meta_kubernetes_pod_label_app_kubernetes_io_name"] == "modelyard-server"
    assert not [name for name in labels if "other" in name]


def test_leaves_out_who_does_not_ask_or_does_not_run() -> None:
    silent = pod("a", metadata={"annotations": {}})
    waiting = pod("b", status={"podIP": None, "phase": "Pending"})
    done = pod("c", status={"phase": "Succeeded"})
    assert groups([silent, waiting, done]) == []


def test_writes_only_changes_and_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "pods.json"
    assert write(path, groups([pod("a"), pod("b")]))
    assert not write(path, groups([pod("b"), pod("a")]))
    assert [each.name for each in tmp_path.iterdir()] == ["pods.json"]
    assert len(json.loads(path.read_text())) == 4
