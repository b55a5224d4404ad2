"""The command line: results in files, and one clear line for what is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from modelyard.cli.features import app
from modelyard.features.definitions import view
from modelyard.features.online import NewRow, OnlineWriter

RUN = CliRunner()
VIEW: dict[str, Any] = {
    "apiVersion": "modelyard.dev/v1alpha1",
    "kind": "FeatureView",
    "metadata": {"name": "weather"},
    "spec": {
        "entities": [{"name": "station", "type": "string"}],
        "timestampField": "at",
        "createdTimestampField": "known",
        "ttl": "1h",
        "source": {"batch": {"uri": "file://lake/weather.csv", "format": "csv"}},
        "features": [{"name": "temp", "type": "float64"}],
    },
}
OTHER = VIEW | {"metadata": {"name": "carriers"}, "spec": VIEW["spec"] | {
    "features": None, "ttl": None,
    "aggregations": [{"name": "temp", "input": "temp", "function": "mean", "window": "6h"}]}}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake/weather.csv").write_text(
        "station,at,known,temp\n007,2023-01-01T00:00:00Z,2023-01-01T00:05:00Z,1.5\n"
        "007,2023-01-01T00:30:00Z,2023-01-01T00:50:00Z,2.5\n"
    )
    (tmp_path / "views").mkdir()
    (tmp_path / "views/all.yaml").write_text(yaml.safe_dump_all([VIEW, OTHER, {"kind": "Model"}]))
    (tmp_path / "spine.csv").write_text(
        "station,event_timestamp,label\n007,2023-01-01 00:40:00,1\n008,2023-01-01 00:40:00,0\n"
        "007,2023-01-01 00:50:00,1\n"
    )
    return tmp_path


def refused(*arguments: str) -> str:
    result = RUN.invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    return result.stderr


def test_join_csv_and_parquet(folder: Path) -> None:
    base = ["join", "--views", "views", "--spine", "spine.csv", "--features", "weather:temp,carriers:temp", "--out"]
    result = RUN.invoke(app, [*base, "out.csv"])
    assert result.exit_code == 0, result.output
    lines = (folder / "out.csv").read_text().splitlines()
    assert lines[0] == "station,event_timestamp,label,weather__temp,carriers__temp"
    assert [line.split(",")[0] for line in lines[1:]] == ["007", "008", "007"]
    assert [line.split(",")[3:] for line in lines[1:]] == [["1.5", "1.5"], ["", ""], ["2.5", "2.0"]]
    assert RUN.invoke(app, [*base, "out.parquet"]).exit_code == 0
    assert pq.read_table(folder / "out.parquet")["weather__temp"].to_pylist() == [1.5, None, 2.5]


def test_join_refuses_in_one_line(folder: Path) -> None:
    good = {"--views": "views", "--spine": "spine.csv", "--features": "weather:temp", "--out": "out.csv"}
    (folder / "nostamp.csv").write_text("station\n007\n")
    (folder / "broken.yaml").write_text("a: [")
    for option, value, words in (
        ("--views", "nowhere", "no such file"),
        ("--views", "broken.yaml", "broken.yaml"),
        ("--views", "lake", "no FeatureView"),
        ("--spine", "none.csv", "no such file"),
        ("--spine", "nostamp.csv", "no column 'event_timestamp'"),
        ("--features", "weather:wind", "no feature 'wind'"),
        ("--features", "wind", "no feature reference"),
        ("--out", "out.xlsx", "neither .parquet nor .csv"),
        ("--out", "nowhere/out.csv", "cannot write"),
    ):
        changed = [part for pair in (good | {option: value}).items() for part in pair]
        assert words in refused("join", *changed), (option, value)
    (folder / "lake/weather.csv").write_text("station,at,known,temp\n007,then,2023-01-01T00:05:00Z,1.5\n")
    message = refused("join", *[p for pair in good.items() for p in pair])
    assert "view weather: column 'at': 'then' is no timestamp" in message


def test_explain(folder: Path) -> None:
    base = ["explain", "--views", "views", "--entity", "station=007", "--at"]
    result = RUN.invoke(app, [*base, "2023-01-01T00:40:00Z", "-o", "json"])
    assert result.exit_code == 0, result.output
    weather = next(e for e in json.loads(result.output) if e["view"] == "weather")
    assert weather["values"] == {"temp": 1.5}
    assert [line["verdict"] for line in weather["lines"]] == ["notYetKnown", "joined"]
    late = json.loads(RUN.invoke(app, [*base, "2023-01-01T01:31:00", "--features", "weather", "-o", "json"]).output)
    assert (late[0]["values"], [line["verdict"] for line in late[0]["lines"]]) == ({"temp": None}, ["tooOld", "tooOld"])
    assert "notYetKnown" in RUN.invoke(app, [*base, "2023-01-01T00:40:00Z"]).output
    assert "is no time" in refused(*base, "noon")
    assert "not KEY=VALUE" in refused("explain", "--views", "views", "--entity", "x", "--at", "2023-01-01")
    assert "no view has" in refused("explain", "--views", "views", "--entity", "x=1", "--at", "2023-01-01")


def test_get(folder: Path, clean_store: str) -> None:
    weather = view("weather", VIEW["spec"], namespace="default")
    now = int(datetime.now(UTC).timestamp() * 1e6)
    OnlineWriter.connect(clean_store).write(weather, [NewRow(("007",), now, now, (3.5,))], ["float64"])
    base = ["get", "--views", "views", "--features", "weather:temp", "--entity", "station=007"]
    result = RUN.invoke(app, [*base, "--store", clean_store, "-o", "json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.output)
    assert (row["feature"], row["value"], row["status"]) == ("weather:temp", 3.5, "PRESENT")
    assert "PRESENT" in RUN.invoke(app, [*base, "--store", clean_store]).output
    assert "unreachable" in refused(*base, "--store", f"unix://{folder}/none")
    assert "--store" in refused(*base)
    assert "--store" in refused(*base, "--store", "nonsense")
