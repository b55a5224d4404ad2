"""Builders and hypothesis strategies that the feature tests share."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from modelyard.features.definitions import View, view

from .oracle import Row, Rules

BASE = 1_700_000_000_000_000
SECOND = 1_000_000
FUNCTIONS = ("count", "countDistinct", "sum", "mean", "min", "max", "last", "first", "std", "var")


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(BASE // SECOND + seconds, UTC)


def spec(rules: Rules, *, entities: int = 1, windows: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    """A view over columns e0.., ts, created, x (float64), y (string), n (int64)."""
    result: dict[str, Any] = {
        "entities": [{"name": "e0", "type": "string"}, {"name": "e1", "type": "int64"}][:entities],
        "timestampField": "ts",
        "source": {"batch": {"uri": "file:///nowhere/"}, "stream": {"push": True}},
        "online": True,
    }
    if rules.has_created:
        result["createdTimestampField"] = "created"
    if rules.availability is not None:
        result["availability"] = f"{rules.availability // SECOND}s"
    if rules.ttl is not None:
        result["ttl"] = f"{rules.ttl // SECOND}s"
    if windows:
        result["aggregations"] = (
            [{"name": "rows", "function": "count", "window": f"{windows[0]}s"}]
            + [
                {"name": f"x_{f}_{w}", "input": "x", "function": f, "window": f"{w}s"}
                for f in FUNCTIONS
                for w in windows
            ]
            + [
                {"name": f"y_{f}", "input": "y", "function": f, "window": f"{windows[-1]}s"}
                for f in ("min", "max", "last", "first", "countDistinct")
            ]
        )
    else:
        result["features"] = [
            {"name": "x", "type": "float64"},
            {"name": "y", "type": "string"},
            {"name": "n", "type": "int64"},
        ]
    return result | more


def make_view(name: str, rules: Rules, **options: Any) -> View:
    return view(name, spec(rules, **options), namespace="team")


def table(rows: list[Row], entities: int = 1) -> pa.Table:
    """The source rows of these views."""
    stamp = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            **{f"e{i}": pa.array([r.key[i] for r in rows], [pa.string(), pa.int64()][i]) for i in range(entities)},
            "ts": pa.array([r.ts for r in rows], pa.int64()).cast(stamp),
            "created": pa.array([r.created for r in rows], pa.int64()).cast(stamp),
            "x": pa.array([r.values[0] for r in rows], pa.float64()),
            "y": pa.array([r.values[1] for r in rows], pa.string()),
            "n": pa.array([r.values[2] for r in rows], pa.int64()),
        }
    )


TICKS = st.integers(0, 6)
"""Few moments, so that ties, edges and duplicates are common."""


def moments(nulls: bool = False) -> st.SearchStrategy[int | None]:
    exact = TICKS.map(lambda s: BASE + s * SECOND)
    edged = st.tuples(exact, st.sampled_from([-1, 0, 0, 0, 1])).map(sum)
    return st.one_of(edged, edged, edged, st.none()) if nulls else edged


KEYS = st.tuples(st.sampled_from(["a", "a", "a", "ü|%"]), st.sampled_from([1, 1, 2]))
VALUES = st.tuples(
    st.one_of(
        st.none(),
        st.sampled_from([0.0, 1.0, -2.5, 1e6]),
        st.floats(-100, 100, allow_nan=False).map(lambda v: v + 0.0),
    ),
    st.one_of(st.none(), st.sampled_from(["", "a", "é", "zz", "🚀"])),
    st.one_of(st.none(), st.sampled_from([0, -1, 2**62, 7])),
)
RULES = st.one_of(
    st.builds(Rules, st.just(True), st.none(), st.sampled_from([None, SECOND, 3 * SECOND])),
    st.builds(
        Rules,
        st.just(False),
        st.sampled_from([0, SECOND, 10 * SECOND]),
        st.sampled_from([None, 2 * SECOND]),
    ),
)


def rows_of(entities: int = 1, nulls: bool = True) -> st.SearchStrategy[list[Row]]:
    key = KEYS.map(lambda k: k[:entities])
    if nulls:
        key = st.one_of(key, key, key, key, st.just((None,) * entities))
    row = st.builds(Row, key, moments(nulls), moments(nulls), VALUES)
    # Some rows twice: duplicates count.
    return st.lists(row, min_size=1, max_size=14).flatmap(
        lambda rows: (
            st.lists(st.sampled_from(rows), max_size=3).map(lambda more: rows + more) if rows else st.just(rows)
        )
    )


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-6)
    return type(left) is type(right) and bool(left == right)
