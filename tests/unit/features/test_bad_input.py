"""What users get wrong, and that the message says so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.features import definitions
from modelyard.features.definitions import View
from modelyard.features.errors import (
    DefinitionError,
    FeatureError,
    RequestError,
    SchemaError,
    SourceError,
    StoreUnreachable,
    TransformError,
)
from modelyard.features.join import point_in_time_join
from modelyard.features.online import OnlineReader, entity_key

from .oracle import Rules
from .support import at, make_view, spec

RULES = Rules(False, 0, None)
SPINE = pa.table({"e0": ["a"], "event_timestamp": [at(10)]})
GOOD = {"e0": ["a"], "ts": [at(1)], "x": [1.5], "y": ["s"], "n": [3]}


def join(source: dict[str, list[Any]], spine: pa.Table = SPINE, *, view: View | None = None) -> dict[str, Any]:
    v = view or make_view("v", RULES)
    names = [f"v:{c.name}" for c in v.outputs]
    return point_in_time_join(spine, {"v": v}, names, sources={"v": pa.table(source)}).to_pylist()[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, r"view v: the source has no column 'x'; it has e0, ts, y, n"),
        ({"x": ["warm"]}, r"view v: column 'x': 'warm' is no float64"),
        ({"n": [1.5]}, r"view v: column 'n': '1.5' is no int64"),
        ({"n": ["12x"]}, r"view v: column 'n': '12x' is no int64"),
        ({"n": [1e19]}, r"view v: column 'n': '1e\+19' is no int64"),
        ({"ts": ["yesterday"]}, r"view v: column 'ts': 'yesterday' is no timestamp"),
        ({"ts": [True]}, r"view v: column 'ts': 'true' is no timestamp"),
    ],
)
def test_bad_sources(change: dict[str, list[Any] | None], message: str) -> None:
    source = {k: v for k, v in (GOOD | change).items() if v is not None}
    with pytest.raises(SchemaError, match=message):
        join(source)


def test_bad_spines() -> None:
    with pytest.raises(SchemaError, match=r"the spine has no column 'e0' \(entity of view v\); it has event_timestamp"):
        join(GOOD, SPINE.select(["event_timestamp"]))
    with pytest.raises(SchemaError, match=r"the spine has no column 'event_timestamp'"):
        join(GOOD, SPINE.select(["e0"]))
    with pytest.raises(SchemaError, match=r"spine, for view v: column 'event_timestamp': 'soon' is no timestamp"):
        join(GOOD, pa.table({"e0": ["a"], "event_timestamp": ["soon"]}))
    two = make_view("v", RULES, entities=2)
    spine = SPINE.append_column("e1", pa.array(["one"]))
    with pytest.raises(SchemaError, match=r"column 'e1': 'one' is no int64"):
        join(GOOD | {"e1": [1]}, spine, view=two)
    with pytest.raises(DefinitionError, match=r"already has a column 'x'"):
        join(GOOD, SPINE.append_column("x", pa.array([1])))


@pytest.mark.parametrize(
    "stamp",
    ["2023-11-14T22:13:21Z", "2023-11-14 22:13:21", "2023-11-15T00:13:21+02:00", 1700000001, 1700000001000,
     1700000001000000, 1700000001000000000, 1700000001.0, "1700000001", "1700000001000"],
)  # fmt: skip
def test_spellings_of_one_moment(stamp: Any) -> None:
    edge = pa.table({"e0": ["a", "a"], "event_timestamp": [at(1), at(0.999999)]})
    v = make_view("v", RULES)
    out = point_in_time_join(edge, {"v": v}, ["v:x"], sources={"v": pa.table(GOOD | {"ts": [stamp]})})
    assert out["x"].to_pylist() == [1.5, None]


def test_numbers_and_strings_are_cast_to_the_declared_type() -> None:
    got = join({"e0": ["a"], "ts": [at(1)], "x": ["2"], "y": [7], "n": [float("nan")]})
    assert (got["x"], got["y"], got["n"]) == (2.0, "7", None)


def with_sql(text: str) -> View:
    return make_view("v", RULES, transform={"sql": text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT *\nFROM source WHERE nope > 1", r"(?s)view v: transform.sql: .*nope.*LINE 2"),
        ("SELEC 1", r"(?s)syntax error at or near .SELEC.*LINE 1"),
        ("SELECT 1; SELECT 2", "must be one SELECT"),
        ("DROP TABLE source", "must be one SELECT"),
        ("COPY (SELECT 1) TO '/tmp/modelyard-leak.csv'", "must be one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "(?i)disabled by configuration"),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM v", "does not exist"),
        ("SELECT * REPLACE (CAST(y || 'x' AS INT) AS n) FROM source", "(?s)Conversion Error"),
    ],
)
def test_bad_sql(text: str, message: str) -> None:
    with pytest.raises(TransformError, match=message):
        join(GOOD, view=with_sql(text))


def test_sql_of_files_sees_no_other_file(tmp_path: Path) -> None:
    pq.write_table(pa.table(GOOD), tmp_path / "mine.parquet")
    pq.write_table(pa.table(GOOD), tmp_path / "other.parquet")
    source = {"batch": {"uri": f"file://{tmp_path}/mine.parquet"}}
    for text in (f"FROM read_parquet('{tmp_path}/other.parquet')", f"FROM glob('{tmp_path}/*')"):
        v = make_view("v", RULES, source=source, transform={"sql": f"SELECT * {text}"})
        with pytest.raises(TransformError, match="disabled by configuration"):
            point_in_time_join(SPINE, {"v": v}, ["v:x"])
    v = make_view("v", RULES, source=source, transform={"sql": "SELECT * REPLACE (x * 2 AS x) FROM source; -- fine"})
    assert point_in_time_join(SPINE, {"v": v}, ["v:x"])["x"].to_pylist() == [3.0]


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    for uri, message in (
        ("s3://lake/x/", "s3:// sources are not supported here yet"),
        (f"file://{tmp_path}/nothing/", "no parquet files at"),
        (f"file://{tmp_path}/bad.parquet", "cannot read"),
    ):
        (tmp_path / "bad.parquet").write_text("not Parquet")
        v = make_view("v", RULES, source={"batch": {"uri": uri}})
        with pytest.raises(SourceError, match=message):
            point_in_time_join(SPINE, {"v": v}, ["v:x"])


def test_references() -> None:
    v = make_view("v", RULES)
    for reference, message in (
        ("x", "is no feature reference"),
        ("w:x", "unknown view 'w'"),
        ("v:w", "no feature 'w'"),
    ):
        with pytest.raises(DefinitionError, match=message):
            point_in_time_join(SPINE, {"v": v}, [reference])


def test_definitions() -> None:
    with pytest.raises(DefinitionError, match=r"view v: .*aggregations need createdTimestampField or availability"):
        make_view("v", Rules(False, None, None), windows=(5,))
    with pytest.raises(DefinitionError, match="both an entity and a feature"):
        make_view("v", RULES, features=[{"name": "e0", "type": "string"}])
    with pytest.raises(SchemaError, match="aggregation m: mean needs numbers, but column 'y' holds string"):
        join(GOOD, view=make_view("v", RULES, features=None, aggregations=[
            {"name": "m", "input": "y", "function": "mean", "window": "5s"}]))  # fmt: skip


def test_version_counts_what_changes_values() -> None:
    base = spec(RULES)
    assert definitions.version(base) == definitions.version(base | {"description": "other", "schedule": "0 * * * *"})
    assert definitions.version(base | {"ttl": "60m"}) == definitions.version(base | {"ttl": "1h"})
    others = [{"ttl": "2h"}, {"availability": "1s"}, {"timestampField": "t"}, {"transform": {"sql": "SELECT 1"}}]
    assert len({definitions.version(base | o) for o in [{}, *others]}) == 5
    assert definitions.view("v", base | {"version": "abc"}).version == "abc"


def test_keys_of_two_entities_are_never_one() -> None:
    v = make_view("v", RULES, entities=2)
    assert len({entity_key(v, k) for k in [("a|1", 2), ("a", 12), ("a%7C1", 2), ("a|1|2", 2)]}) == 4


async def test_unreachable_and_wrong_requests(tmp_path: Path) -> None:
    v = make_view("v", RULES, entities=2)
    reader = OnlineReader.connect(f"unix://{tmp_path}/none")
    with pytest.raises(StoreUnreachable, match="online store is unreachable"):
        await reader.read([(v, ["x"])], {"e0": ["a"], "e1": [1]})
    for entities, message in (
        ({"e0": ["a"]}, "entity 'e1' of view v is missing"),
        ({"e0": ["a"], "e1": ["x"]}, "entity 'e1' of view v is int64, not 'x'"),
        ({"e0": ["a"], "e1": [True]}, "entity 'e1' of view v is int64, not True"),
        ({"e0": [{}], "e1": [1]}, "entity 'e0' of view v is string, not {}"),
        ({"e0": ["a"], "e1": [1, 2]}, "differ in length"),
    ):
        with pytest.raises(RequestError, match=message):
            await reader.read([(v, ["x"])], entities)
    await asyncio.sleep(0)
    await reader.close()


def test_all_errors_are_feature_errors() -> None:
    assert all(
        issubclass(e, FeatureError) for e in (DefinitionError, RequestError, SchemaError, SourceError, TransformError)
    )
