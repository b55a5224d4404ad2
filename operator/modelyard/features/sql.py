"""Runs a view's transform over its source, and brings the result into one canonical table.

Two DuckDB connections, because two parties speak SQL here. The *sandbox* runs the user's one SELECT: its files are
fixed beforehand, everything else outside is closed and the configuration locked. What comes out is
an Arrow table, and only that reaches the *workbench*, where our own SQL casts, checks and joins.

The canonical table has a fixed form, whatever the source looked like: keys ``k0..``, ``ts``,
``created``, ``known`` (microseconds since the epoch, BIGINT), stored values ``v0..`` and ``rest``, a
hash of the columns that the view does not use (it tells apart rows that differ only there). Rows that
can never match are not in it: a null key, a null feature timestamp, a null created timestamp where one
is declared.
"""

from __future__ import annotations

import glob as globbing
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa

from modelyard.features.definitions import View
from modelyard.features.errors import SchemaError, SourceError, TransformError

MEMORY_LIMIT: Final = os.environ.get("MODELYARD_MEMORY_LIMIT", "2GB")

_DUCK: Final = {
    "string": "VARCHAR", "int32": "INTEGER", "int64": "BIGINT", "float32": "FLOAT", "float64": "DOUBLE",
    "bool": "BOOLEAN", "timestamp": "BIGINT",
}  # fmt: skip
_INTEGERS: Final = frozenset(
    {
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
    }
)
_SUFFIXES: Final = {"parquet": (".parquet", ".pq"), "csv": (".csv", ".csv.gz", ".tsv")}

Connection = duckdb.DuckDBPyConnection


class Canonical(NamedTuple):
    """The canonical table's name, and the type of each stored column ``v0..`` in declared order."""

    table: str
    types: tuple[str, ...]


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def workbench(memory_limit: str = MEMORY_LIMIT) -> Connection:
    """A connection for our own SQL, with time in UTC and no way out."""
    con = _open(memory_limit)
    con.execute("SET enable_external_access=false; SET lock_configuration=true")
    return con


def _open(memory_limit: str) -> Connection:
    config: dict[str, Any] = {
        "memory_limit": memory_limit,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    con = duckdb.connect(":memory:", config=config)
    con.execute("SET TimeZone='UTC'; SET python_enable_replacements=false; SET enable_progress_bar=false")
    return con


def source_files(view: View) -> tuple[list[str], str]:
    """The files behind a view's ``source.batch.uri``, sorted, and their format.

    ``file://`` with a path (a relative one is relative to the working directory), a folder, or a glob.
    Raises SourceError where there is nothing to read or the scheme is not supported.
    """
    if view.uri is None:
        raise SourceError(f"view {view.name}: source.batch.uri is not declared, so there is nothing to read")
    return find_files(view.uri, view.format, f"view {view.name}")


def find_files(uri: str, fmt: str | None, what: str) -> tuple[list[str], str]:
    """Like ``source_files`` for any URI or path; ``what`` opens the error messages."""
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise SourceError(f"{what}: {scheme}:// sources are not supported here yet; use file:// ({uri})")
    path = rest if separator else uri
    if os.path.isdir(path):
        suffixes = _SUFFIXES[fmt] if fmt else (*_SUFFIXES["parquet"], *_SUFFIXES["csv"])
        found = [p for p in globbing.glob(os.path.join(path, "**", "*"), recursive=True) if p.endswith(suffixes)]
    elif any(c in path for c in "*?["):
        found = globbing.glob(path, recursive=True)
    else:
        found = [path] if os.path.exists(path) else []
    files = sorted(os.path.abspath(p) for p in found if os.path.isfile(p))
    if not files:
        raise SourceError(f"{what}: no {fmt or 'data'} files at {uri}")
    return files, fmt or ("parquet" if files[0].endswith(_SUFFIXES["parquet"]) else "csv")


def reader_sql(files: Sequence[str], fmt: str, strings: Iterable[str] = ()) -> str:
    """The DuckDB table function that reads the files; ``strings`` are columns that a CSV must not guess
    (``007``).
    """
    listed = ", ".join(literal(f) for f in files)
    if fmt == "parquet":
        return f"read_parquet([{listed}], union_by_name=true)"
    forced = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in sorted(strings))
    types = f", types={{{forced}}}" if forced else ""
    return f"read_csv([{listed}], union_by_name=true, sample_size=-1{types})"


def _one_line(error: Exception) -> str:
    return str(error).strip()


def check_sql(view: View, con: Connection) -> str:
    """The view's transform as one bare SELECT; TransformError if it is anything else."""
    assert view.sql is not None
    try:
        statements = con.extract_statements(view.sql)
    except duckdb.Error as error:
        raise TransformError(f"view {view.name}: transform.sql: {_one_line(error)}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise TransformError(f"view {view.name}: transform.sql must be one SELECT over the table `source`")
    return view.sql


def transformed(
    view: View, source: pa.Table | None = None, *, everything: bool = False, memory_limit: str = MEMORY_LIMIT
) -> pa.Table:
    """The rows that the view's transform puts out, over its files or over ``source``.

    Only the columns that the view uses are read, unless ``everything`` is asked for.
    Raises SourceError, TransformError (with DuckDB's position) or SchemaError (a missing column).
    """
    con = _open(memory_limit)
    try:
        _provide(con, view, source)
        con.execute("SET enable_external_access=false; SET lock_configuration=true")
        sql = "FROM source" if view.sql is None else check_sql(view, con)
        try:
            con.execute(f"CREATE TEMP VIEW transformed AS {sql}")
            columns = list(duck_types(con, "transformed"))
        except duckdb.Error as error:
            raise TransformError(f"view {view.name}: transform.sql: {_one_line(error)}") from None
        needed = [_actual(c, columns, view, bool(view.sql)) for c in used_columns(view)]
        chosen = columns if everything else list(dict.fromkeys(needed))
        try:
            return con.sql(f"SELECT {', '.join(quote(c) for c in chosen)} FROM transformed").to_arrow_table()
        except duckdb.Error as error:
            where = "transform.sql" if view.sql else "source"
            raise TransformError(f"view {view.name}: {where}: {_one_line(error)}") from None
    finally:
        con.close()


def _provide(con: Connection, view: View, source: pa.Table | None) -> None:
    if source is not None:
        con.register("source", source if view.sql is None else _with_times(con, view, source))
        return
    files, fmt = source_files(view)
    try:
        names = duck_types(con, reader_sql(files, fmt), quoted=False)
        strings = {c.name for c in (*view.entities, *view.stored) if c.type == "string"} & set(names)
        con.execute(f"CREATE VIEW source AS SELECT * FROM {reader_sql(files, fmt, strings)}")
    except duckdb.Error as error:
        raise SourceError(f"view {view.name}: cannot read {view.uri} as {fmt}: {_one_line(error)}") from None
    # The only paths that stay readable once external access is off.
    con.execute(f"SET allowed_paths=[{', '.join(literal(f) for f in files)}]")


def _with_times(con: Connection, view: View, source: pa.Table) -> pa.Table:
    """Timestamps that came as text or numbers (JSON has no others), as the timestamps that the SQL
    expects.
    """
    duck = duck_types(con, _registered(con, source))
    replaced, wrong = [], []
    for name in {view.timestamp, view.created} - {None}:
        assert name is not None
        if name in duck and not duck[name].startswith(("TIMESTAMP", "DATE")):
            value, bad = timestamp_us(quote(name), duck[name])
            replaced.append(f"make_timestamptz({value}) AS {quote(name)}")
            wrong.append((name, "timestamp", bad))
    refuse_unconvertible(con, "given", wrong, f"view {view.name}")
    if replaced:
        source = con.sql(f"SELECT * REPLACE ({', '.join(replaced)}) FROM given").to_arrow_table()
    con.unregister("given")
    return source


def _registered(con: Connection, source: pa.Table) -> str:
    con.register("given", source)
    return "given"


def used_columns(view: View) -> list[str]:
    """The columns of the transform's output that the view uses."""
    names = [e.name for e in view.entities] + [view.timestamp] + ([view.created] if view.created else [])
    return names + [c.name for c in view.stored]


def _actual(name: str, columns: Sequence[str], view: View, by_sql: bool) -> str:
    """DuckDB's names know no case; prefer the exact one."""
    if name in columns:
        return name
    for column in columns:
        if column.lower() == name.lower():
            return column
    who = "the transform" if by_sql else "the source"
    raise SchemaError(f"view {view.name}: {who} has no column {name!r}; it has {', '.join(columns)}")


def timestamp_us(column: str, duck: str) -> tuple[str, str]:
    """SQL for microseconds since the epoch (BIGINT), and SQL that is true where the value is no timestamp.

    Naive timestamps are UTC. Numbers are epochs, in the unit that their size says: below 1e11 seconds, below
    1e14 milliseconds, below 1e17 microseconds, else nanoseconds. Strings are ISO 8601 or such numbers.
    """
    c = column
    if duck.startswith("TIMESTAMP_NS"):
        floor = f"((epoch_ns({c}) - ((epoch_ns({c}) % 1000) + 1000) % 1000) // 1000)"
        return floor, f"({c} IS NOT NULL AND NOT isfinite(CAST({c} AS TIMESTAMP)))"
    if duck.startswith("TIMESTAMP") or duck == "DATE":
        as_ts = c if duck.startswith("TIMESTAMP WITH") else f"CAST({c} AS TIMESTAMP)"
        return f"(CASE WHEN isfinite({as_ts}) THEN epoch_us({as_ts}) END)", f"(NOT isfinite({as_ts}))"
    if duck in _INTEGERS or duck in ("DOUBLE", "FLOAT") or duck.startswith("DECIMAL"):
        return _epoch(c, duck)
    if duck == "VARCHAR":
        number, _ = _epoch(f"TRY_CAST({c} AS DOUBLE)", "DOUBLE")
        stamp = f"TRY_CAST({c} AS TIMESTAMPTZ)"
        parsed = f"(CASE WHEN isfinite({stamp}) THEN epoch_us({stamp}) END)"
        value = f"COALESCE({parsed}, {number})"
        blank = f"(trim({c}) = '')"
        return f"(CASE WHEN {blank} THEN NULL ELSE {value} END)", f"({value} IS NULL AND NOT {blank})"
    return "CAST(NULL AS BIGINT)", f"({c} IS NOT NULL)"


def _epoch(c: str, duck: str) -> tuple[str, str]:
    wide = f"CAST({c} AS DOUBLE)" if duck in ("DOUBLE", "FLOAT") or duck.startswith("DECIMAL") else c
    size = f"abs(CAST({c} AS DOUBLE))"
    scaled = (
        f"CASE WHEN {size} < 1e11 THEN {wide} * 1000000 WHEN {size} < 1e14 THEN {wide} * 1000 "
        f"WHEN {size} < 1e17 THEN {wide} ELSE {wide} / 1000 END"
    )
    if duck in _INTEGERS:
        scaled = scaled.replace(f"{wide} * ", f"CAST({c} AS HUGEINT) * ")
        return f"TRY_CAST({scaled} AS BIGINT)", "false"
    usable = f"({c} IS NOT NULL AND NOT isnan({wide}) AND NOT isinf({wide}))"
    return f"(CASE WHEN {usable} THEN TRY_CAST({scaled} AS BIGINT) END)", f"isinf({wide})"


def cast(column: str, duck: str, kind: str) -> tuple[str, str]:
    """SQL for a value of the declared type, and SQL that is true where it cannot be one.

    NaN in an integer column is a null (that is how pandas writes it); -0.0 is 0.0; a fraction is no integer.
    """
    c = column
    if kind == "timestamp":
        return timestamp_us(c, duck)
    target = _DUCK[kind]
    if kind == "string":
        return f"CAST({c} AS VARCHAR)", "false"
    if kind in ("int32", "int64"):
        if duck in ("DOUBLE", "FLOAT"):
            broken = f"isnan({c}) OR isinf({c}) OR {c} <> trunc({c})"
            value = f"(CASE WHEN {broken} THEN NULL ELSE TRY_CAST({c} AS {target}) END)"
            return value, f"({c} IS NOT NULL AND NOT isnan({c}) AND {value} IS NULL)"
        if duck.startswith("DECIMAL"):
            value = f"(CASE WHEN {c} = trunc({c}) THEN TRY_CAST({c} AS {target}) END)"
        elif duck == "VARCHAR":
            value = f"(CASE WHEN regexp_full_match(trim({c}), '[+-]?[0-9]+') THEN TRY_CAST({c} AS {target}) END)"
        else:
            value = f"TRY_CAST({c} AS {target})" if duck in _INTEGERS or duck == "BOOLEAN" else "NULL"
    elif kind in ("float32", "float64"):
        if duck.startswith("TIMESTAMP") or duck in ("DATE", "TIME", "BLOB"):
            value = "NULL"
        else:
            value = f"(TRY_CAST({c} AS {target}) + CAST(0 AS {target}))"
    else:
        value = f"TRY_CAST({c} AS {target})"
    return f"CAST({value} AS {target})", f"({c} IS NOT NULL AND {value} IS NULL)"


def infer(duck: str) -> str:
    """The type kept for an aggregation's input, so that a pushed row and a file's row come to the same."""
    if duck == "VARCHAR":
        return "string"
    if duck.startswith("TIMESTAMP") or duck == "DATE":
        return "timestamp"
    if duck in _INTEGERS or duck in ("DOUBLE", "FLOAT", "BOOLEAN") or duck.startswith("DECIMAL"):
        return "float64"
    return "float64" if duck == '"NULL"' else "string"


def duck_types(con: Connection, table: str, *, quoted: bool = True) -> dict[str, str]:
    """Column name to DuckDB type, of a table, or of a table function where not ``quoted``."""
    what = quote(table) if quoted else f"SELECT * FROM {table}"
    return {str(r[0]): str(r[1]) for r in con.execute(f"DESCRIBE {what}").fetchall()}


def canonicalise(con: Connection, view: View, rows: pa.Table, table: str, *, rest: bool = False) -> Canonical:
    """Cast the transform's output into the canonical table ``table`` (see the module); ``rest`` fills
    that column.

    Raises SchemaError naming view, column, the first bad value and the type it should have.
    """
    raw = f"{table}_raw"
    con.register(raw, rows)
    duck = duck_types(con, raw)
    names = list(duck)
    expressions: list[tuple[str, str]] = []
    wrong: list[tuple[str, str, str]] = []

    def add(alias: str, name: str, kind: str) -> None:
        actual = _actual(name, names, view, bool(view.sql))
        value, bad = cast(quote(actual), duck[actual], kind)
        expressions.append((value, alias))
        wrong.append((actual, kind, bad))

    for i, entity in enumerate(view.entities):
        add(f"k{i}", entity.name, entity.type)
    add("ts", view.timestamp, "timestamp")
    if view.created is not None:
        add("created", view.created, "timestamp")
    types = []
    for i, column in enumerate(view.stored):
        actual = _actual(column.name, names, view, bool(view.sql))
        kind = infer(duck[actual]) if column.type == "any" else column.type
        types.append(kind)
        add(f"v{i}", column.name, kind)
    _check_functions(view, types)
    refuse_unconvertible(con, raw, wrong, f"view {view.name}")
    if view.created is None:
        expressions.append(("CAST(NULL AS BIGINT)", "created"))
    used = {_actual(c, names, view, bool(view.sql)) for c in used_columns(view)}
    expressions.append((_rest({n: t for n, t in duck.items() if n not in used}) if rest else "0::UBIGINT", "rest"))
    picked = ", ".join(f"{value} AS {alias}" for value, alias in expressions)
    known = f"greatest(ts + {view.availability_us or 0}" + (", created)" if view.created else ")")
    usable = " AND ".join(
        [f"k{i} IS NOT NULL" for i in range(len(view.entities))]
        + ["ts IS NOT NULL"]
        + (["created IS NOT NULL"] if view.created else [])
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {quote(table)} AS SELECT *, {known} AS known "
        f"FROM (SELECT {picked} FROM {quote(raw)}) WHERE {usable}"
    )
    con.unregister(raw)
    return Canonical(table, tuple(types))


def _check_functions(view: View, types: Sequence[str]) -> None:
    kinds: Mapping[str, str] = {c.name: t for c, t in zip(view.stored, types, strict=True)}
    for a in view.aggregations:
        if a.function in ("sum", "mean", "std", "var") and a.input is not None and kinds[a.input] != "float64":
            raise SchemaError(
                f"view {view.name}: aggregation {a.name}: {a.function} needs numbers, "
                f"but column {a.input!r} holds {kinds[a.input]}"
            )


def refuse_unconvertible(con: Connection, table: str, wrong: Sequence[tuple[str, str, str]], what: str) -> None:
    """Raise SchemaError for the first (column, declared type, SQL that is true where bad) that has a bad
    value.
    """
    tested = [w for w in wrong if w[2] != "false"]
    if not tested:
        return
    picked = ", ".join(
        f"count(*) FILTER (WHERE {bad}), any_value(CAST({quote(name)} AS VARCHAR)) FILTER (WHERE {bad})"
        for name, _, bad in tested
    )
    (found,) = con.execute(f"SELECT {picked} FROM {quote(table)}").fetchall()
    for i, (name, kind, _) in enumerate(tested):
        if found[2 * i]:
            raise SchemaError(f"{what}: column {name!r}: {found[2 * i + 1]!r} is no {kind} ({found[2 * i]} such rows)")


def _rest(columns: Mapping[str, str]) -> str:
    """A hash of the unused columns; a null counts as absent, so that a push may leave a column out."""
    parts = []
    for name in sorted(columns):
        kind = infer(columns[name])
        value, _ = cast(quote(name), columns[name], kind)
        parts.append(f"{literal(name + '=')} || CAST({value} AS VARCHAR)")
    if not parts:
        return "0::UBIGINT"
    return f"md5_number_lower(concat_ws(chr(31), {', '.join(parts)}))"
