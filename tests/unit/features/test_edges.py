"""The edges of the contract, one by one, offline and online."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from modelyard.features.join import point_in_time_join
from modelyard.features.online import NewRow, OnlineWriter

from .oracle import Row, Rules
from .support import BASE, SECOND, make_view, table
from .test_online_property import TYPES, read


@pytest.mark.parametrize(
    ("rules", "rows", "t", "want"),
    [
        (Rules(False, None, SECOND), [(0, None, 1.0)], SECOND, 1.0),  # exactly as old as the ttl
        (Rules(False, None, SECOND), [(0, None, 1.0)], SECOND + 1, None),
        (Rules(True, None, None), [(0, 5, 1.0)], 5, 1.0),  # known at this very microsecond
        (Rules(True, None, None), [(0, 5, 1.0)], 4, None),
        (Rules(False, SECOND, None), [(0, None, 1.0)], SECOND - 1, None),
        (Rules(True, None, None), [(0, 0, None), (0, 0, 1.0)], 9, 1.0),  # a full tie: null comes first
        (Rules(True, None, None), [(0, 0, 2.0), (0, 0, 1.0)], 9, 2.0),
        (Rules(True, None, None), [(0, 8, 1.0), (1, 2, 2.0)], 9, 2.0),  # late, but of an older event
        (Rules(True, None, None), [(0, 1, 1.0), (0, 2, 3.0)], 9, 3.0),  # a correction
    ],
)
def test_edges(clean_store: str, rules: Rules, rows: list[tuple[int, Any, Any]], t: int, want: Any) -> None:
    v = make_view("v", rules)
    made = [Row(("a",), BASE + ts, None if c is None else BASE + c, (x, None, None)) for ts, c, x in rows]
    spine = pa.table({"e0": ["a"], "event_timestamp": [BASE + t]})
    assert point_in_time_join(spine, {"v": v}, ["v:x"], sources={"v": table(made)})["x"].to_pylist() == [want]
    writer = OnlineWriter.connect(clean_store)
    writer.write(v, [NewRow(r.key, r.ts or 0, r.created, r.values) for r in made], TYPES, now=BASE + t)
    assert read(clean_store, v, BASE + t, ["a"])["x"] == [want]
