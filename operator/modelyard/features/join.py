"""The point-in-time join: what was known of each entity at each moment, and nothing else.

Features. Order a key's rows by when they were *known*; the winner at T is the greatest ``(ts, created,
values)`` among the rows known by then, which is a running maximum. Rows that do not raise it can never
win at any T, so only the staircase of those that do is kept, and one ASOF join on ``known`` finds the
step that T stands on. (An ASOF join on ``ts`` would be wrong: the newest event may not have been known
yet.) The ttl is judged last: if the greatest row is too old, all lesser ones are older still.

Aggregations. Where rows are known a fixed time after they happen, a window frame over rows and questions
together does it in O(n log n). Where each row says itself when it was known, rows and questions meet in
buckets as long as the window: a question at T can only need rows from its own bucket and the one before.

A full tie has one winner: values compared in declared order, null before everything, then false < true,
numbers by value with NaN last, strings by their UTF-8 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import duckdb
import pyarrow as pa

from modelyard.features import sql
from modelyard.features.definitions import COUNTING, Aggregation, Reference, View, resolve
from modelyard.features.errors import DefinitionError, FeatureError, SchemaError
from modelyard.features.sql import Canonical, Connection, quote

EVENT_TIMESTAMP: Final = "event_timestamp"

_FUNCTIONS: Final = {
    "count": "count({v})", "countDistinct": "count(DISTINCT {v})", "sum": "sum({v})", "mean": "avg({v})",
    "min": "min({v})", "max": "max({v})", "std": "stddev_samp({v})", "var": "var_samp({v})",
    "last": "arg_max({v}, rank)", "first": "arg_min({v}, rank)",
}  # fmt: skip


def point_in_time_join(
    spine: pa.Table,
    views: Mapping[str, View],
    features: Sequence[str | Reference],
    *,
    sources: Mapping[str, pa.Table] | None = None,
    event_timestamp: str = EVENT_TIMESTAMP,
    memory_limit: str = sql.MEMORY_LIMIT,
    transformed: bool = False,
) -> pa.Table:
    """The spine with a column per feature, as each row could have known them at its ``event_timestamp``.

    ``views`` are keyed by ``[namespace/]view``; ``sources`` may give a view's source rows instead of its URI
    (what its transform put out, if ``transformed``). The spine's rows (duplicates too), their order and
    its own columns stay as they are; a row without a match has nulls (0 for counts). Raises a
    FeatureError naming the view and the column.
    """
    wanted = resolve(features, views)
    taken = [column for _, _, column in wanted if column in spine.column_names]
    if taken:
        raise DefinitionError(f"the spine already has a column {taken[0]!r}, which is also the feature's name")
    by_view: dict[str, list[tuple[str, str]]] = {}
    for reference, _, column in wanted:
        by_view.setdefault(reference.view_key, []).append((reference.feature, column))
    con = sql.workbench(memory_limit)
    try:
        con.register("spine", spine.append_column("__rid", pa.array(range(spine.num_rows), pa.int64())))
        answers: dict[str, pa.ChunkedArray] = {}
        for key, names in by_view.items():
            view = views[key]
            source = (sources or {}).get(key)
            if source is None or not transformed:
                source = sql.transformed(view, source, memory_limit=memory_limit)
            canonical = sql.canonicalise(con, view, source, "rows")
            _questions(con, view, event_timestamp)
            answer = answer_questions(con, view, canonical, names)
            for _, column in names:
                answers[column] = answer.column(column)
        result = spine
        for _, _, column in wanted:
            result = result.append_column(column, answers[column])
        return result
    except duckdb.Error as error:
        raise FeatureError(f"the join failed in DuckDB: {str(error).strip()}") from None
    finally:
        con.close()


def _questions(con: Connection, view: View, event_timestamp: str) -> None:
    """``asked``: rid, keys and T in microseconds of every spine row, as this view types them."""
    duck = sql.duck_types(con, "spine")
    picked, wrong = ["__rid AS rid"], []
    needed = [(f"k{i}", e.name, e.type) for i, e in enumerate(view.entities)]
    for alias, name, kind in [*needed, ("t", event_timestamp, "timestamp")]:
        if name not in duck:
            has = ", ".join(n for n in duck if n != "__rid")
            what = "timestamp" if alias == "t" else f"entity of view {view.name}"
            raise SchemaError(f"the spine has no column {name!r} ({what}); it has {has}")
        value, bad = sql.cast(quote(name), duck[name], kind)
        picked.append(f"{value} AS {alias}")
        wrong.append((name, kind, bad))
    sql.refuse_unconvertible(con, "spine", wrong, f"spine, for view {view.name}")
    con.execute(f"CREATE OR REPLACE TEMP TABLE asked AS SELECT {', '.join(picked)} FROM spine")
    usable = " AND ".join(f"{c} IS NOT NULL" for c in [*_keys(view), "t"])
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE questions AS SELECT DISTINCT {', '.join(_keys(view))}, t "
        f"FROM asked WHERE {usable}"
    )


def _keys(view: View) -> list[str]:
    return [f"k{i}" for i in range(len(view.entities))]


def _order(view: View, types: Sequence[str]) -> str:
    """The order that decides: (ts, created), then the canonical order of values."""
    values = [f"v{i} ASC NULLS FIRST" for i in range(len(types))]
    return ", ".join(["ts", *(["created"] if view.created else []), *values])


def answer_questions(con: Connection, view: View, canonical: Canonical, names: Sequence[tuple[str, str]]) -> pa.Table:
    """A table with one row per spine row, in order, and a column per (feature, column) of ``names``.

    Needs the tables ``asked`` and ``questions``.
    """
    answers = _feature_answers(con, view, canonical) if view.features else _aggregate_answers(con, view, canonical)
    con.execute(f"CREATE OR REPLACE TEMP TABLE answers AS {answers}")
    positions = {c.name: i for i, c in enumerate(view.outputs)}
    kinds = output_types(view, canonical)
    picked = []
    for feature, column in names:
        value = f"r.f{positions[feature]}"
        if kinds[positions[feature]] == "timestamp":
            value = f"make_timestamptz({value})"
        if view.aggregations and view.aggregations[positions[feature]].function in COUNTING:
            value = f"COALESCE({value}, 0)"
        picked.append(f"{value} AS {quote(column)}")
    on = " AND ".join(f"a.{c} = r.{c}" for c in [*_keys(view), "t"])
    return con.sql(
        f"SELECT {', '.join(picked)} FROM asked a LEFT JOIN answers r ON {on} ORDER BY a.rid"
    ).to_arrow_table()


def output_types(view: View, canonical: Canonical) -> list[str]:
    """The type of each output, once the inputs' types are known."""
    inputs = {c.name: t for c, t in zip(view.stored, canonical.types, strict=True)}
    outputs = zip(view.outputs, view.aggregations or [None] * len(view.outputs), strict=True)
    return [inputs[a.input] if o.type == "any" and a is not None and a.input else o.type for o, a in outputs]


def _feature_answers(con: Connection, view: View, canonical: Canonical) -> str:
    keys = ", ".join(_keys(view))
    values = [f"v{i}" for i in range(len(canonical.types))]
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE steps AS
        WITH ranked AS (
            SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY {_order(view, canonical.types)}) AS rank
            FROM {quote(canonical.table)}
        ), climbed AS (
            SELECT *, max(rank) OVER (w ROWS UNBOUNDED PRECEDING) AS top, lead(known) OVER w AS following
            FROM ranked WINDOW w AS (PARTITION BY {keys} ORDER BY known, rank)
        )
        -- of the rows known at one instant, the last has the greatest rank: one step per instant
        SELECT {keys}, known, ts, {", ".join(values)} FROM climbed
        WHERE rank = top AND (following IS NULL OR following <> known)""")
    fresh = "true" if view.ttl_us is None else f"s.ts >= q.t - {view.ttl_us}"
    picked = ", ".join(f"CASE WHEN {fresh} THEN s.v{i} END AS f{i}" for i in range(len(values)))
    on = " AND ".join(f"q.k{i} = s.k{i}" for i in range(len(view.entities)))
    asked = ", ".join(f"q.{c}" for c in [*_keys(view), "t"])
    return f"SELECT {asked}, {picked} FROM questions q ASOF LEFT JOIN steps s ON {on} AND q.t >= s.known"


def _aggregate_answers(con: Connection, view: View, canonical: Canonical) -> str:
    keys = ", ".join(_keys(view))
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE ranked AS
        SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY {_order(view, canonical.types)}) AS rank
        FROM {quote(canonical.table)}""")
    return _by_buckets(view) if view.created else _by_frames(view, canonical)


def _call(view: View, a: Aggregation) -> str:
    inputs = [c.name for c in view.stored]
    value = "present" if a.input is None else f"v{inputs.index(a.input)}"
    return _FUNCTIONS[a.function].format(v=value)


def _by_frames(view: View, canonical: Canonical) -> str:
    keys = ", ".join(_keys(view))
    delay = view.availability_us or 0
    values = [f"v{i}" for i in range(len(canonical.types))]
    windows, picked = [], []
    for i, a in enumerate(view.aggregations):
        if a.window_us <= delay:  # by the time a row is known, the window has passed it
            picked.append(f"CAST({'0' if a.function in COUNTING else 'NULL'} AS BIGINT) AS f{i}")
            continue
        windows.append(
            f"w{i} AS (PARTITION BY {keys} ORDER BY moment "
            f"RANGE BETWEEN {a.window_us - 1} PRECEDING AND {delay} PRECEDING)"
        )
        picked.append(f"{_call(view, a)} OVER w{i} AS f{i}")
    clause = f"WINDOW {', '.join(windows)}" if windows else ""
    return f"""
        WITH line AS (
            SELECT {keys}, ts AS moment, 1 AS present, rank, {"".join(v + ", " for v in values)} false AS question
            FROM ranked
            UNION ALL
            SELECT {keys}, t, NULL, NULL, {"".join("NULL, " for _ in values)} true FROM questions
        ), framed AS (SELECT {keys}, moment AS t, question, {", ".join(picked)} FROM line {clause})
        SELECT * EXCLUDE (question) FROM framed WHERE question"""


def _by_buckets(view: View) -> str:
    keys = _keys(view)
    groups: dict[int, list[int]] = {}
    for i, a in enumerate(view.aggregations):
        groups.setdefault(a.window_us, []).append(i)
    parts, joins, picked = [], [], []
    for n, (window, members) in enumerate(groups.items()):
        bucket = "(({0} - (({0} % {1}) + {1}) % {1}) // {1})"
        asked_in = bucket.format("t", window)
        on = " AND ".join(f"q.{k} = r.{k}" for k in keys)
        calls = ", ".join(f"{_call(view, view.aggregations[i])} AS f{i}" for i in members)
        asked = ", ".join([*keys, "t"])
        parts.append(f"""
            g{n} AS (
                SELECT {", ".join(f"q.{c}" for c in [*keys, "t"])}, {calls}
                FROM (SELECT {asked}, unnest([{asked_in}, {asked_in} - 1]) AS b
                      FROM questions) q
                JOIN (SELECT *, 1 AS present, {bucket.format("ts", window)} AS b FROM ranked) r
                  ON {on} AND q.b = r.b AND r.ts > q.t - {window} AND r.ts <= q.t AND r.known <= q.t
                GROUP BY ALL)""")
        joins.append(f"LEFT JOIN g{n} ON " + " AND ".join(f"q.{c} = g{n}.{c}" for c in [*keys, "t"]))
        picked += [f"g{n}.f{i}" for i in members]
    asked = ", ".join(f"q.{c}" for c in [*keys, "t"])
    return f"WITH {', '.join(parts)} SELECT {asked}, {', '.join(picked)} FROM questions q {' '.join(joins)}"
