"""The join against the oracle, over random histories."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.features.definitions import view
from modelyard.features.join import point_in_time_join

from .oracle import Row, Rules, aggregate, feature_row
from .support import KEYS, RULES, SECOND, make_view, moments, rows_of, same, spec, table

PROFILE = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
SPINE = st.lists(
    st.tuples(st.one_of(KEYS, KEYS, KEYS, st.just((None, None))), moments(nulls=True)), min_size=2, max_size=16
)


def spine_table(asked: list[tuple[tuple[Any, ...], int | None]]) -> pa.Table:
    return pa.table(
        {
            "e0": pa.array([k[0] for k, _ in asked], pa.string()),
            "e1": pa.array([k[1] for k, _ in asked], pa.int64()),
            "event_timestamp": pa.array([t for _, t in asked], pa.int64()).cast(pa.timestamp("us")),
            "row": list(range(len(asked))),
        }
    )


@PROFILE
@given(RULES, st.sampled_from([1, 2]), rows_of(2), SPINE)
def test_features_join_as_the_contract_says(
    rules: Rules, entities: int, rows: list[Row], asked: list[tuple[tuple[Any, ...], int | None]]
) -> None:
    mine = [Row(r.key[:entities], r.ts, r.created, r.values) for r in rows]
    v = make_view("v", rules, entities=entities)
    spine = spine_table(asked)
    out = point_in_time_join(spine, {"v": v}, ["v:y", "v:x", "v:n"], sources={"v": table(mine, entities)})
    assert out.column_names == ["e0", "e1", "event_timestamp", "row", "y", "x", "n"]
    assert out.select(spine.column_names).equals(spine)
    for got, (key, t) in zip(out.to_pylist(), asked, strict=True):
        best = feature_row(mine, key[:entities], t, rules)
        assert (got["x"], got["y"], got["n"]) == (best.values if best else (None, None, None))


@PROFILE
@given(RULES, rows_of(1), SPINE, st.sampled_from([(1, 4), (2, 24), (100,)]))
def test_aggregates_join_as_the_contract_says(
    rules: Rules, rows: list[Row], asked: list[tuple[tuple[Any, ...], int | None]], windows: tuple[int, ...]
) -> None:
    rules = Rules(rules.has_created, rules.availability, None)
    v = make_view("v", rules, windows=windows)
    names = [f"v:{a.name}" for a in v.aggregations]
    out = point_in_time_join(spine_table(asked), {"v": v}, names, sources={"v": table(rows)})
    for got, (key, t) in zip(out.to_pylist(), asked, strict=True):
        for a in v.aggregations:
            i = {None: None, "x": 0, "y": 1}[a.input]
            want = aggregate(rows, key[:1], t, rules, a.window_us, a.function, i)
            assert same(got[a.name], want), (a, key, t, got[a.name], want)


@settings(PROFILE, max_examples=10)
@given(RULES, rows_of(1), rows_of(2), SPINE)
def test_many_views_join_independently(
    rules: Rules, first: list[Row], second: list[Row], asked: list[tuple[tuple[Any, ...], int | None]]
) -> None:
    one, two = make_view("one", rules), make_view("two", Rules(True, None, 4 * SECOND), entities=2)
    third = view("one", spec(rules), namespace="other")
    out = point_in_time_join(
        spine_table(asked),
        {"one": one, "two": two, "other/one": third},
        ["one:x", "two:x", "two:n", "other/one:x"],
        sources={"one": table(first), "two": table(second, 2), "other/one": table([])},
    )
    assert out.column_names[4:] == ["one__x", "two__x", "n", "other__one__x"]
    for got, (key, t) in zip(out.to_pylist(), asked, strict=True):
        a = feature_row(first, key[:1], t, rules)
        b = feature_row(second, key, t, Rules(True, None, 4 * SECOND))
        assert got["one__x"] == (a.values[0] if a else None)
        assert (got["two__x"], got["n"]) == ((b.values[0], b.values[2]) if b else (None, None))
        assert got["other__one__x"] is None
