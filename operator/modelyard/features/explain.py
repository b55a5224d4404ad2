"""Where a value came from: every row of an entity, and why it was or was not the answer at T."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa

from modelyard.features import join, sql
from modelyard.features.definitions import View
from modelyard.features.online import to_datetime, to_us


class Line(NamedTuple):
    """One row of the entity; ``verdict`` is joined, counted, superseded, tooOld, outsideWindow or
    notYetKnown.
    """

    feature_timestamp: datetime
    created_timestamp: datetime | None
    known_at: datetime
    values: dict[str, Any]
    verdict: str


class Explanation(NamedTuple):
    """A view's values for one entity at one moment, and the rows behind them, latest first."""

    view: str
    values: dict[str, Any]
    lines: list[Line]
    hidden: int
    """Older rows that are not listed."""


def explain(
    view: View, key: Sequence[Any], at: datetime, *, source: pa.Table | None = None, limit: int = 20
) -> Explanation:
    """Explain all features of ``view`` for the entity ``key`` at ``at``; raises as the join does."""
    t = to_us(at)
    spine = pa.table({
        **{e.name: [value] for e, value in zip(view.entities, key, strict=True)},
        join.EVENT_TIMESTAMP: pa.array([t], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
    })  # fmt: skip
    rows = sql.transformed(view, source)
    names = [f"{view.name}:{c.name}" for c in view.outputs]
    joined = join.point_in_time_join(spine, {view.name: view}, names, sources={view.name: rows}, transformed=True)
    values = joined.select([c.name for c in view.outputs]).to_pylist()[0]
    con = sql.workbench()
    try:
        canonical = sql.canonicalise(con, view, rows, "rows")
        where = " AND ".join(f"k{i} = ?" for i in range(len(key)))
        stored = [f"v{i}" for i in range(len(canonical.types))]
        order = ", ".join(["ts DESC", "created DESC", *(f"{v} DESC NULLS LAST" for v in stored)])
        picked = ", ".join(["ts", "created", "known", *stored])
        found = con.execute(f"SELECT {picked} FROM rows WHERE {where} ORDER BY {order}", list(key)).fetchall()
    finally:
        con.close()
    lines, answered = [], False
    for ts, created, known, *kept in found:
        verdict = _verdict(view, ts, known, t, answered)
        answered = answered or verdict in ("joined", "tooOld")
        shown = {
            c.name: to_datetime(v) if kind == "timestamp" and v is not None else v
            for c, kind, v in zip(view.stored, canonical.types, kept, strict=True)
        }
        created_at = None if created is None else to_datetime(created)
        lines.append(Line(to_datetime(ts), created_at, to_datetime(known), shown, verdict))
    return Explanation(view.name, values, lines[:limit], max(0, len(lines) - limit))


def _verdict(view: View, ts: int, known: int, t: int, answered: bool) -> str:
    if known > t:
        return "notYetKnown"
    if view.aggregations:
        return "counted" if ts > t - view.max_window_us else "outsideWindow"
    if view.ttl_us is not None and ts < t - view.ttl_us:
        return "tooOld"
    return "superseded" if answered else "joined"
