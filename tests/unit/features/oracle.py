"""The contract, said again in the plainest Python, with nothing of the implementation in it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A feature row; times in microseconds; ``arrived`` orders corrections where no created is declared."""

    key: tuple[Any, ...]
    ts: int | None
    created: int | None
    values: tuple[Any, ...]
    arrived: int = 0


@dataclass(frozen=True)
class Rules:
    has_created: bool
    availability: int | None
    ttl: int | None


def _canonical(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    if isinstance(value, float) and math.isnan(value):
        return (2,)
    return (1, value.encode() if isinstance(value, str) else value)


def _order(row: Row, rules: Rules) -> tuple[Any, ...]:
    second = row.created if rules.has_created else row.arrived
    return (row.ts, second, [_canonical(v) for v in row.values])


def could_be_known(row: Row, t: int, rules: Rules) -> bool:
    if row.ts is None or row.ts > t or None in row.key:
        return False
    if rules.has_created and (row.created is None or row.created > t):
        return False
    return not (rules.availability is not None and row.ts + rules.availability > t)


def feature_row(rows: Sequence[Row], key: tuple[Any, ...], t: int | None, rules: Rules) -> Row | None:
    if t is None or None in key:
        return None
    fit = [
        r
        for r in rows
        if r.key == key and could_be_known(r, t, rules) and (rules.ttl is None or t - rules.ttl <= (r.ts or 0))
    ]
    return max(fit, key=lambda r: _order(r, rules)) if fit else None


def aggregate(
    rows: Sequence[Row],
    key: tuple[Any, ...],
    t: int | None,
    rules: Rules,
    window: int,
    function: str,
    i: int | None,
) -> Any:
    fit: list[Row] = []
    if t is not None and None not in key:
        fit = [r for r in rows if r.key == key and could_be_known(r, t, rules) and t - window < (r.ts or 0)]
    fit.sort(key=lambda r: _order(r, rules))
    if i is None:
        return len(fit)
    values = [r.values[i] for r in fit if r.values[i] is not None]
    if function == "count":
        return len(values)
    if function == "countDistinct":
        return len(set(values))
    if not values:
        return None
    if function in ("std", "var"):
        if len(values) < 2:
            return None
        return statistics.stdev(values) if function == "std" else statistics.variance(values)
    return {
        "sum": math.fsum,
        "mean": statistics.fmean,
        "min": min,
        "max": max,
        "last": lambda v: v[-1],
        "first": lambda v: v[0],
    }[function](values)
