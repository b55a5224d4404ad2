"""The feature server and the materialise step, each against a real store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.features.online import OnlineReader, OnlineWriter
from modelyard.features.server import App, Views
from modelyard.steps import materialize

from .oracle import Rules
from .support import at, make_view, spec

RULES = Rules(True, None, None)


def application(folder: Path, url: str, views: dict[str, Any], **options: Any) -> httpx.AsyncClient:
    file = folder / "views.json"
    file.write_text(json.dumps(views))
    app = App(Views(file, "team"), OnlineReader.connect(url), OnlineWriter.connect(url), **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://features")


async def test_push_then_get_in_feasts_form(clean_store: str, tmp_path: Path) -> None:
    http = application(
        tmp_path, clean_store, {"v": spec(RULES), "w": spec(RULES, windows=(60,))}, allow_event_time=True
    )
    df = {"e0": ["a", "b"], "ts": [at(1).isoformat(), 1700000002], "created": [at(1).isoformat(), at(2).isoformat()],
          "x": [1, 2.5], "y": ["one", None], "n": [1, 2]}  # fmt: skip
    df["ts"] = [at(1).isoformat(), at(2).isoformat()]
    for view in ("v", "w"):
        reply = await http.post("/push", json={"push_source_name": view, "df": df})
        assert (reply.status_code, reply.json()) == (200, {"rows": 2})
    ask = {
        "features": ["v:x", "v:y", "w:x_sum_60"],
        "entities": {"e0": ["a", "b", "c"]},
        "event_timestamp": at(3).isoformat(),
    }
    body = (await http.post("/get-online-features", json=ask)).json()
    assert body["metadata"]["feature_names"] == ["e0", "x", "y", "x_sum_60"]
    values = [r["values"] for r in body["results"]]
    assert values == [["a", "b", "c"], [1.0, 2.5, None], ["one", None, None], [1.0, 2.5, None]]
    assert body["results"][2]["statuses"] == ["PRESENT", "NULL_VALUE", "NOT_FOUND"]
    assert body["results"][1]["event_timestamps"][0] == "2023-11-14T22:13:21Z"
    full = (await http.post("/get-online-features", json=ask | {"full_feature_names": True})).json()
    assert full["metadata"]["feature_names"] == ["e0", "v__x", "v__y", "w__x_sum_60"]
    assert "modelyard_feature_requests_total" in (await http.get("/metrics")).text
    assert (await http.get("/ready")).json()["views"] == ["v", "w"]


async def test_requests_that_are_refused(clean_store: str, tmp_path: Path) -> None:
    closed = spec(RULES) | {"source": {"batch": {"uri": "file:///x/"}}}
    http = application(tmp_path, clean_store, {"v": spec(RULES), "closed": closed})
    good = {"features": ["v:x"], "entities": {"e0": ["a"]}}
    stamps = {"e0": ["a"], "ts": ["never"], "created": ["never"], "x": [1], "y": [""], "n": [1]}
    for path, body, message in (
        ("/get-online-features", {"entities": {}}, "features: at least one"),
        ("/get-online-features", {"features": ["v:x"]}, "entities"),
        ("/get-online-features", good | {"features": ["v:nope"]}, "no feature 'nope'"),
        ("/get-online-features", good | {"features": ["u:x"]}, "unknown view 'u'"),
        ("/get-online-features", good | {"entities": {"e9": ["a"]}}, "entity 'e0'"),
        ("/get-online-features", good | {"entities": {"e0": [1.5]}}, "entity 'e0'"),
        ("/get-online-features", good | {"event_timestamp": "2023-01-01T00:00:00Z"}, "event_timestamp"),
        ("/get-online-features", "{", "malformed|truncated|Expected"),
        ("/push", {"push_source_name": "u", "df": {}}, "unknown view 'u'"),
        ("/push", {"push_source_name": "closed", "df": {}}, "push: true"),
        ("/push", {"push_source_name": "v", "df": {"e0": ["a"], "ts": []}}, "as long as"),
        ("/push", {"push_source_name": "v", "df": {"e0": ["a"]}}, "no column 'ts'"),
        ("/push", {"push_source_name": "v", "df": {"e0": ["a", 1]}}, "column 'e0'"),
        ("/push", {"push_source_name": "v", "df": stamps}, "column 'ts': 'never' is no timestamp"),
    ):
        content = body if isinstance(body, str) else json.dumps(body)
        reply = await http.post(path, content=content)
        assert reply.status_code == 400, (body, reply.text)
        assert any(m in reply.json()["detail"] for m in message.split("|")), (body, reply.text)
    assert (await http.get("/nowhere")).status_code == 404
    assert (await http.get("/push")).status_code == 405


async def test_unreachable_store_is_503_and_views_are_read_again(tmp_path: Path) -> None:
    http = application(tmp_path, f"unix://{tmp_path}/none", {"v": spec(RULES)})
    ask = {"features": ["v:x"], "entities": {"e0": ["a"]}}
    reply = await http.post("/get-online-features", json=ask)
    assert (reply.status_code, "unreachable" in reply.text) == (503, True)
    assert (await http.get("/health")).status_code == 200
    assert (await http.get("/ready")).status_code == 503
    (tmp_path / "views.json").write_text(json.dumps({"other": spec(RULES)}))
    assert (await http.post("/get-online-features", json=ask)).status_code == 400
    (tmp_path / "views.json").write_text("{")  # broken: the last good ones stay
    ask["features"] = ["other:x"]
    assert (await http.post("/get-online-features", json=ask)).status_code == 503


def run_step(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, **change: Any) -> tuple[int, dict[str, Any]]:
    uri = f"file://{folder}/rows.parquet"
    step = {"component": "materialize", "namespace": "team", "view": "v", "version": "0123456789",
            "spec": spec(RULES) | {"source": {"batch": {"uri": uri}}} | change,
            "through": at(10).isoformat()}  # fmt: skip
    monkeypatch.setenv("MODELYARD_STEP", json.dumps(step))
    monkeypatch.setenv("MODELYARD_ONLINE_URL", url)
    monkeypatch.setenv("MODELYARD_TERMINATION_LOG", str(folder / "log"))
    code = materialize.main()
    return code, json.loads((folder / "log").read_text())


def test_the_step(clean_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"e0": ["a", "b", "c"], "ts": [at(1), at(2), at(3)], "created": [at(1), at(2), at(11)],
            "x": [1.0, -5.0, 9.0], "y": ["u", "w", "u"], "n": [1, None, 3]}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    features = spec(RULES)["features"]

    def checked(name: str, **checks: Any) -> dict[str, Any]:
        return {"features": [f | {"checks": checks} if f["name"] == name else f for f in features]}

    writer = OnlineWriter.connect(clean_store)
    for change, words in (
        (checked("x", min=0), ["'x'", "min", "-5.0"]),
        (checked("x", max=0.5), ["'x'", "max", "1.0"]),
        (checked("n", maxNullRatio=0.4), ["'n'", "maxNullRatio", "1 of 2"]),
        (checked("y", values=["u"]), ["'y'", "values", "'w'"]),
        ({"transform": {"sql": "SELECT e0, ts, created FROM source"}}, ["no column 'x'"]),
    ):
        code, manifest = run_step(tmp_path, clean_store, monkeypatch, **change)
        assert code == 64
        assert all(w in manifest["error"]["message"] for w in words), manifest
    aggregations = [{"name": "s", "input": "x", "function": "sum", "window": "60s", "checks": {"min": 0}}]
    code, manifest = run_step(tmp_path, clean_store, monkeypatch, features=None, aggregations=aggregations)
    assert (code, "aggregation 's'" in manifest["error"]["message"]) == (64, True)
    assert writer._client.dbsize() == 0, "refused data leave nothing behind"
    code, manifest = run_step(tmp_path, clean_store, monkeypatch, **checked("x", min=-5, max=1))
    assert code == 0
    assert manifest["outputs"]["parameters"] == {
        "rows": 2, "onlineKeys": 2, "materializedThrough": "2023-11-14T22:13:30Z",
    }  # fmt: skip
    assert sorted(writer._client.keys()) == [b"my:team:v:0123456789:a", b"my:team:v:0123456789:b"]
    code, manifest = run_step(tmp_path, f"unix://{tmp_path}/none", monkeypatch)
    assert (code, manifest["error"]["reason"]) == (1, "OnlineStoreUnreachable")
    os.unlink(tmp_path / "rows.parquet")
    code, manifest = run_step(tmp_path, clean_store, monkeypatch)
    assert (code, manifest["error"]["reason"]) == (65, "SourceUnreadable")
    assert writer.drop(make_view("v", RULES)) == 0
