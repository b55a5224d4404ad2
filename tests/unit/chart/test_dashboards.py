"""The dashboards are what their code makes, and name only metrics that docs/decisions/0001 promises."""

from __future__ import annotations

import json
import re

import pytest
from helm.dashboards.queries import FOLDER, queries, substitute

from .conftest import ROOT

METRIC = re.compile(r"\b(?:modelyard_|envoy_cluster_)[a-z_]+")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def test_regenerated_equals_committed() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    from helm.dashboards.build import rendered

    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert committed == rendered(), "python -m helm.dashboards"


def test_only_promised_metrics() -> None:
    promised = set(METRIC.findall((ROOT / "docs" / "decisions" / "0001-the-walls.md").read_text()))
    found = {name for query in queries() for name in METRIC.findall(query.expression)}
    assert found
    for name in found:
        if not name.startswith("envoy_cluster_upstream_rq_"):
            assert name in promised or SUFFIX.sub("", name) in promised, name


def test_no_variable_is_left() -> None:
    assert all("$" not in query.expression for query in queries(namespace="demo"))
    assert substitute('a{b=~"$b"}[$__rate_interval]', {"b": "c", "__rate_interval": "1m"}) == 'a{b=~"c"}[1m]'


def test_four_dashboards_with_titles_of_their_own() -> None:
    boards = [json.loads(path.read_text()) for path in FOLDER.glob("*.json")]
    names = ("rollouts", "pipelines", "features", "drift")
    assert {board["uid"] for board in boards} == {f"modelyard-{name}" for name in names}
    for board in boards:
        titles = [panel["title"] for panel in board["panels"] if panel["type"] != "row"]
        assert len(titles) == len(set(titles))
        assert all(panel.get("description") for panel in board["panels"] if panel["type"] != "row")
