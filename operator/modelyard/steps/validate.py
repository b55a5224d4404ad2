"""``validate``: statistics of every column, and checks that stop the run before anything learns from bad data.

Checks (argument ``checks``)::

    rows: {min: 1000, max: 1000000}
    columns:
      temp: {type: float64, required: true, min: -60, max: 140, maxNullRatio: 0.05}
      origin: {type: string, values: [EWR, JFK, LGA]}
      flight_id: {unique: true}
    allowOtherColumns: true

A column that is named is required unless it says otherwise.  Whatever is asked, the dataset's id must be unique and
its event timestamp a time.  Limits are inclusive; a violation is what lies strictly beyond.  ``failOnAnomalies:
false`` counts them instead of failing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.steps import tables
from modelyard.steps.context import Outputs, Step, StepError

_COLUMN_CHECKS = {"type", "required", "min", "max", "maxNullRatio", "values", "unique"}
_CHECKS = {"rows", "columns", "allowOtherColumns"}
_TYPES = ("string", "int64", "int32", "float64", "float32", "bool", "timestamp")


def run(step: Step) -> Outputs:
    """Output ``report``; parameter ``anomalies``."""
    table = tables.load(step.input("data"))
    checks = step.argument("checks", dict, {})
    _refuse_unknown(checks)
    found = list(anomalies(table, _with_defaults(checks, step)))
    report = {
        "rows": table.num_rows,
        "anomalies": found,
        "columns": {name: statistics(table[name]) for name in table.column_names},
    }
    path = step.prefix / "report"
    tables.write_json(report, path)
    for anomaly in found:
        print(f"{anomaly['check']}: {anomaly['message']}")
    if found and step.argument("failOnAnomalies", bool, True):
        shown = "; ".join(f"{a['check']}: {a['message']}" for a in found[:5])
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise StepError("SchemaViolation", shown + more)
    outputs = Outputs({"anomalies": len(found)})
    outputs.add("report", path, "Artifact", rows=table.num_rows, anomalies=len(found))
    return outputs


def _with_defaults(checks: dict[str, Any], step: Step) -> dict[str, Any]:
    """The user's checks and those that go without saying."""
    columns = {name: dict(rules or {}) for name, rules in (checks.get("columns") or {}).items()}
    if step.spec:
        data = step.dataset
        columns.setdefault(data.event_timestamp, {}).setdefault("type", "timestamp")
        columns[data.event_timestamp].setdefault("maxNullRatio", 0)
        if data.id:
            columns.setdefault(data.id, {}).setdefault("unique", True)
        if data.label:
            columns.setdefault(data.label, {})
    return {"rows": {"min": 1}, **checks, "columns": columns}


def _refuse_unknown(checks: dict[str, Any]) -> None:
    """A misspelt check would pass everything."""
    for name in sorted(set(checks) - _CHECKS):
        raise StepError("InvalidArgument", f"checks.{name}: there is no such check; there are {sorted(_CHECKS)}")
    for column, rules in (checks.get("columns") or {}).items():
        for name in sorted(set(rules or {}) - _COLUMN_CHECKS):
            raise StepError(
                "InvalidArgument",
                f"checks.columns.{column}.{name}: there is no such check; there are {sorted(_COLUMN_CHECKS)}",
            )
        if rules and rules.get("type", "string") not in _TYPES:
            raise StepError("InvalidArgument", f"checks.columns.{column}.type: there are {', '.join(_TYPES)}")


def anomalies(table: pa.Table, checks: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Every violation: which check, which column, what was found and what is allowed."""
    rows = checks.get("rows") or {}
    if "min" in rows and table.num_rows < rows["min"]:
        yield _anomaly("rows", None, f"{table.num_rows} rows, at least {rows['min']} are asked")
    if "max" in rows and table.num_rows > rows["max"]:
        yield _anomaly("rows", None, f"{table.num_rows} rows, at most {rows['max']} are allowed")
    if checks.get("allowOtherColumns", True) is False:
        for name in table.column_names:
            if name not in checks["columns"]:
                yield _anomaly("newColumn", name, f"column {name} is not expected")
    for name, rules in checks["columns"].items():
        if name in table.column_names:
            yield from _column(name, table[name], rules)
        elif rules.get("required", True):
            yield _anomaly(
                "missingColumn", name, f"column {name} is missing; there are {', '.join(table.column_names)}"
            )


def _column(name: str, column: pa.ChunkedArray, rules: dict[str, Any]) -> Iterator[dict[str, str]]:
    if "type" in rules and kind(column.type) not in _accepted(rules["type"]):
        yield _anomaly("type", name, f"column {name}: expected {rules['type']}, found {column.type}")
        return  # what follows would be about another type
    if "maxNullRatio" in rules and len(column):
        ratio = nulls(column) / len(column)
        if ratio > rules["maxNullRatio"]:
            yield _anomaly(
                "maxNullRatio",
                name,
                f"column {name}: {ratio:.4g} of {len(column)} are null, at most {rules['maxNullRatio']} is allowed",
            )
    if rules.get("unique"):
        distinct = pc.count_distinct(column, mode="only_valid").as_py()
        doubled = len(column) - column.null_count - distinct
        if doubled:
            counts = pc.value_counts(column.combine_chunks())
            worst = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
            yield _anomaly(
                "unique",
                name,
                f"column {name}: {doubled} values are not unique, e.g. {worst['values']!r} ({worst['counts']} times)",
            )
    if "values" in rules:
        unexpected = [v for v in column.unique().to_pylist() if v is not None and v not in rules["values"]]
        if unexpected:
            shown = ", ".join(map(repr, sorted(unexpected, key=str)[:3]))
            yield _anomaly(
                "values",
                name,
                f"column {name}: unexpected {shown} ({len(unexpected)} values)",
            )
    if ("min" in rules or "max" in rules) and not tables.is_number(column.type):
        yield _anomaly("type", name, f"column {name}: min and max are for numbers, found {column.type}")
    elif "min" in rules or "max" in rules:
        values = tables.floats(column)
        for side, beyond in (
            ("min", values < rules.get("min", -np.inf)),
            ("max", values > rules.get("max", np.inf)),
        ):
            if beyond.any():
                worst = values[beyond].min() if side == "min" else values[beyond].max()
                yield _anomaly(
                    side,
                    name,
                    f"column {name}: {int(beyond.sum())} values beyond {side} {rules[side]}, e.g. {worst:g}",
                )


def _accepted(expected: str) -> tuple[str, ...]:
    """Types that pass for another: a narrower one loses nothing, and nulls make integers of floats in no file."""
    wider = {
        "float64": ("float64", "float32", "int64", "int32"),
        "int64": ("int64", "int32"),
        "float32": ("float32",),
    }
    return (*wider.get(expected, (expected,)), "null")


def kind(type_: pa.DataType) -> str:
    """The name of a type in the API's words."""
    if tables.is_text(type_):
        return "string"
    if pa.types.is_timestamp(type_):
        return "timestamp"
    if pa.types.is_boolean(type_):
        return "bool"
    if pa.types.is_integer(type_):
        return "int32" if type_.bit_width <= 32 else "int64"
    if pa.types.is_floating(type_):
        return "float32" if type_.bit_width <= 32 else "float64"
    return str(type_)


def nulls(column: pa.ChunkedArray) -> int:
    """Nulls and NaN."""
    if pa.types.is_floating(column.type):
        return int(pc.sum(pc.is_null(column, nan_is_null=True)).as_py() or 0)
    return int(column.null_count)


def statistics(column: pa.ChunkedArray) -> dict[str, Any]:
    """What there is to say of a column."""
    result: dict[str, Any] = {"type": kind(column.type), "count": len(column), "nulls": nulls(column)}
    if pa.types.is_timestamp(column.type):
        span = pc.min_max(column).as_py()
        return result | {side: value.isoformat() if value else None for side, value in span.items()}
    if tables.is_number(column.type):
        values = tables.floats(column)
        present = values[np.isfinite(values)]
        result["infinite"] = int(np.isinf(values).sum())
        if present.size:
            places = ("min", "p25", "median", "p75", "max")
            result |= dict(zip(places, np.quantile(present, [0, 0.25, 0.5, 0.75, 1]).tolist(), strict=True))
            result |= {
                "mean": float(present.mean()),
                "std": float(present.std()),
                "zeros": int((present == 0).sum()),
            }
        return result
    if tables.is_text(column.type):
        counts = pc.value_counts(column.combine_chunks()).to_pylist()
        top = sorted((c for c in counts if c["values"] is not None), key=lambda c: (-c["counts"], c["values"]))
        return result | {"distinct": len(top), "top": {c["values"]: c["counts"] for c in top[:10]}}
    return result


def _anomaly(check: str, column: str | None, message: str) -> dict[str, str]:
    return {"check": check, "message": message} | ({"column": column} if column else {})
