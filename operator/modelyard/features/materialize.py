"""Materialisation: a view's source, up to a moment, into the online store; all of it or nothing of it.

Checks come before the first write, so a source that fails them changes nothing that is served. Writing is
idempotent: a Job that died half-way is simply run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa

from modelyard.features import join, sql
from modelyard.features.definitions import Checks, View
from modelyard.features.errors import CheckError, FeatureError
from modelyard.features.online import NewRow, OnlineWriter, to_us
from modelyard.features.sql import Canonical, Connection, quote

_BATCH: Final = 50_000
"""Rows per write, in memory at once."""


class Materialized(NamedTuple):
    """What a materialisation did; ``online_keys`` are the entities of this version in the store."""

    rows: int
    online_keys: int
    through: datetime


def materialize(
    view: View,
    writer: OnlineWriter,
    through: datetime,
    *,
    source: pa.Table | None = None,
    memory_limit: str = sql.MEMORY_LIMIT,
) -> Materialized:
    """Write the source's rows up to ``through`` (naive is UTC) into the store.

    A row belongs to it if its created timestamp, or where none is declared its feature timestamp, is not
    later; rows not yet due then wait in the store. Raises CheckError, SchemaError, SourceError,
    TransformError, StoreUnreachable; after the first four nothing has been written.
    """
    limit = to_us(through)
    con = sql.workbench(memory_limit)
    try:
        canonical = prepare(con, view, source, limit, memory_limit)
        check(con, view, canonical, limit)
        rows = 0
        for batch in batches(con, view, canonical):
            rows += writer.write(view, batch, canonical.types, now=limit).rows
        return Materialized(rows, writer.count_keys(view), through)
    except duckdb.Error as error:
        raise FeatureError(f"view {view.name}: DuckDB failed: {str(error).strip()}") from None
    finally:
        con.close()


def push(view: View, writer: OnlineWriter, source: pa.Table, *, now: int | None = None) -> int:
    """Run pushed source rows through the same transform and write them; the number of rows written.

    Raises SchemaError, TransformError, StoreUnreachable.
    """
    con = sql.workbench()
    try:
        canonical = prepare(con, view, source, None, sql.MEMORY_LIMIT)
        rows = list(chain.from_iterable(batches(con, view, canonical)))
        return writer.write(view, rows, canonical.types, now=now, arrived=now, again=True).rows
    except duckdb.Error as error:
        raise FeatureError(f"view {view.name}: DuckDB failed: {str(error).strip()}") from None
    finally:
        con.close()


def prepare(con: Connection, view: View, source: pa.Table | None, limit: int | None, memory_limit: str) -> Canonical:
    """The canonical table ``rows`` of the view's source, up to ``limit`` (microseconds) if one is given."""
    table = sql.transformed(view, source, everything=True, memory_limit=memory_limit)
    canonical = sql.canonicalise(con, view, table, "rows", rest=True)
    if limit is not None:
        con.execute(f"DELETE FROM rows WHERE {'created' if view.created else 'ts'} > {limit}")
    return canonical


def batches(con: Connection, view: View, canonical: Canonical) -> Iterator[list[NewRow]]:
    """The canonical rows, key by key. Equal rows are never in different batches, for they are numbered
    there.
    """
    keys = [f"k{i}" for i in range(len(view.entities))]
    values = [f"v{i}" for i in range(len(canonical.types))]
    columns = [*keys, "ts", "created", "rest", *values]
    reader = con.sql(
        f"SELECT {', '.join(columns)} FROM {quote(canonical.table)} ORDER BY {', '.join([*keys, 'ts'])}"
    ).to_arrow_reader(_BATCH)
    held: list[NewRow] = []
    for batch in reader:
        lists: list[list[Any]] = [c.to_pylist() for c in batch.columns]
        width = len(keys)
        for row in zip(*lists, strict=True):
            new = NewRow(row[:width], row[width], row[width + 1], row[width + 3 :], row[width + 2])
            if len(held) >= _BATCH and (held[-1].key, held[-1].ts) != (new.key, new.ts):
                yield held
                held = []
            held.append(new)
    if held:
        yield held


def check(con: Connection, view: View, canonical: Canonical, limit: int) -> None:
    """Refuse (CheckError) rows, or aggregates as of ``limit``, that a feature's checks do not allow."""
    if view.features:
        for i, feature in enumerate(view.features):
            _check(
                con,
                f"view {view.name}: column {feature.name!r}",
                quote(canonical.table),
                f"v{i}",
                feature.checks,
            )
        return
    if all(a.checks == Checks() for a in view.aggregations):
        return
    keys = ", ".join(f"k{i}" for i in range(len(view.entities)))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE questions AS SELECT DISTINCT {keys}, {limit}::BIGINT AS t FROM rows;"
        "CREATE OR REPLACE TEMP TABLE asked AS SELECT *, row_number() OVER () AS rid FROM questions"
    )
    answers = join.answer_questions(con, view, canonical, [(a.name, a.name) for a in view.aggregations])
    con.register("aggregates", answers)
    for a in view.aggregations:
        _check(con, f"view {view.name}: aggregation {a.name!r}", "aggregates", quote(a.name), a.checks)
    con.unregister("aggregates")


def _check(con: Connection, what: str, table: str, column: str, checks: Checks) -> None:
    if checks == Checks():
        return
    allowed = ", ".join(sql.literal(v) for v in checks.values) or "NULL"
    numeric = checks.min is not None or checks.max is not None
    (found,) = con.execute(
        f"SELECT count(*), count(*) FILTER (WHERE {column} IS NULL), "
        + (f"min({column}), max({column}), " if numeric else "NULL, NULL, ")
        + f"any_value({column}) FILTER (WHERE CAST({column} AS VARCHAR) NOT IN ({allowed})) FROM {table}"
    ).fetchall()
    rows, nulls, least, greatest, stranger = found
    if checks.min is not None and least is not None and least < checks.min:
        raise CheckError(f"{what}: check min: {least} is less than {checks.min}")
    if checks.max is not None and greatest is not None and greatest > checks.max:
        raise CheckError(f"{what}: check max: {greatest} is greater than {checks.max}")
    if checks.max_null_ratio is not None and rows and nulls / rows > checks.max_null_ratio:
        raise CheckError(
            f"{what}: check maxNullRatio: {nulls} of {rows} are null ({nulls / rows:.3g}), "
            f"more than {checks.max_null_ratio}"
        )
    if checks.values and stranger is not None:
        raise CheckError(f"{what}: check values: {stranger!r} is not one of {', '.join(checks.values)}")
