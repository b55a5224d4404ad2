"""How a row lies in the online store, and which of a key's rows answers a question.

A member is ``ts, created, arrived, rest, copy | one type code per column | 8 bytes per column | strings``:

* ``created`` where the view declares one, else the time of ingestion, ``arrived``, orders corrections;
* ``rest`` hashes the columns that the view does not use, ``copy`` numbers equal rows of one batch, so that
  duplicates count while writing the same batch again changes nothing;
* type code 0 is null; ``q`` int, ``t`` timestamp, ``b`` bool, ``d`` float, ``s`` string (offset 8 bytes:
  its length).

All of it but ``arrived`` is the row's identity.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelyard.features.definitions import Aggregation, View

NO_TIME: Final = -(2**63)
HEADER: Final = struct.Struct("<qqqQI")
_NULL, _INT, _TIME, _BOOL, _FLOAT, _STRING = 0, ord("q"), ord("t"), ord("b"), ord("d"), ord("s")
CODES: Final = {
    "string": _STRING, "int32": _INT, "int64": _INT, "float32": _FLOAT, "float64": _FLOAT, "bool": _BOOL,
    "timestamp": _TIME,
}  # fmt: skip
_Q: Final = struct.Struct("<q")
_D: Final = struct.Struct("<d")


class Stored(NamedTuple):
    """A decoded row; times in microseconds; ``member`` are its bytes in the store."""

    ts: int
    created: int
    arrived: int
    values: tuple[Any, ...]
    member: bytes

    @property
    def second(self) -> int:
        """What breaks ties of ``ts``: created, or the time of ingestion."""
        return self.arrived if self.created == NO_TIME else self.created


def body(values: Sequence[Any], types: Sequence[str]) -> bytes:
    """Values as typed columns; ``types`` are the API's feature types."""
    codes = bytearray()
    fixed = bytearray()
    tail = bytearray()
    for value, kind in zip(values, types, strict=True):
        code = CODES[kind] if value is not None else _NULL
        codes.append(code)
        if code == _NULL:
            fixed += bytes(8)
        elif code == _FLOAT:
            fixed += _D.pack(value)
        elif code == _STRING:
            text = value.encode()
            fixed += _Q.pack(len(text))
            tail += text
        else:
            fixed += _Q.pack(int(value))
    return bytes(codes + fixed + tail)


def pack(ts: int, created: int | None, arrived: int, rest: int, copy: int, packed: bytes) -> bytes:
    """The member of a row; ``created`` is None where none is declared."""
    if created is None:
        return HEADER.pack(ts, NO_TIME, arrived, rest, copy) + packed
    return HEADER.pack(ts, created, 0, rest, copy) + packed


def identity(member: bytes) -> bytes:
    """The member without its time of ingestion."""
    return member[:16] + member[24:]


def unpack(member: bytes, columns: int) -> Stored:
    """The row in a member; timestamps stay microseconds here."""
    ts, created, arrived, _, _ = HEADER.unpack_from(member)
    codes = member[36 : 36 + columns]
    at, tail = 36 + columns, 36 + columns * 9
    values: list[Any] = []
    for code in codes:
        if code == _NULL:
            values.append(None)
        elif code == _FLOAT:
            values.append(_D.unpack_from(member, at)[0])
        else:
            number = _Q.unpack_from(member, at)[0]
            if code == _STRING:
                values.append(member[tail : tail + number].decode())
                tail += number
            else:
                values.append(bool(number) if code == _BOOL else number)
        at += 8
    return Stored(ts, created, arrived, tuple(values), member)


def is_time(member: bytes, column: int) -> bool:
    """Whether a column of a member is a timestamp."""
    return member[36 + column] == _TIME


def _canonical(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    if isinstance(value, float) and math.isnan(value):
        return (2,)
    return (1, value.encode() if isinstance(value, str) else value)


def order(row: Stored) -> tuple[Any, ...]:
    """The contract's order: the greatest wins."""
    return (row.ts, row.second, tuple(_canonical(v) for v in row.values))


def known(row: Stored, view: View) -> int:
    """When the row could be known, in microseconds."""
    return view.known_us(row.ts, None if row.created == NO_TIME else row.created)


def decode(members: Iterable[bytes], view: View) -> list[Stored]:
    """A key's rows; of two with one identity (two writers at once) the one that arrived last."""
    columns = len(view.stored)
    rows = [unpack(m, columns) for m in members]
    if view.created is not None:
        return rows
    last: dict[bytes, Stored] = {}
    for row in rows:
        mark = identity(row.member)
        if mark not in last or last[mark].arrived < row.arrived:
            last[mark] = row
    return list(last.values())


def winner(rows: Iterable[Stored], view: View, t: int) -> Stored | None:
    """The row that answers at ``t`` (microseconds), its age not yet judged: the greatest of those known."""
    best: Stored | None = None
    for row in rows:
        if known(row, view) > t:
            continue
        if best is None or row.ts > best.ts or (row.ts == best.ts and order(row) > order(best)):
            best = row
    return best


def needed(rows: Sequence[Stored], view: View, horizon: int) -> list[Stored]:
    """The rows of a feature view that can still win at some T from ``horizon`` (microseconds) on.

    A row is of no use if a greater one was known no later than it, or no later than the horizon. Rows
    that differ only in what arrived last are kept while their moment is the latest, so that reading a
    source again does not bring back what a push has corrected.
    """
    at_horizon = winner(rows, view, horizon)
    if view.created is None:
        return [r for r in rows if at_horizon is None or r.ts >= at_horizon.ts]
    kept: list[Stored] = []
    best: tuple[Any, ...] | None = order(at_horizon) if at_horizon is not None else None
    if at_horizon is not None:
        kept.append(at_horizon)
    later = [(known(r, view), order(r), r) for r in rows if known(r, view) > horizon]
    for _, rank, row in sorted(later, key=lambda item: (item[0], _negated(item[1]))):
        if best is None or rank > best:
            kept.append(row)
            best = rank
    return kept


class _negated:
    """Sorts greatest first."""

    __slots__ = ("value",)

    def __init__(self, value: tuple[Any, ...]) -> None:
        self.value = value

    def __lt__(self, other: _negated) -> bool:
        return other.value < self.value


class Frame:
    """The rows of one key that are known at T, as arrays, for aggregations."""

    def __init__(self, members: Sequence[bytes], view: View, t: int) -> None:
        self.view, self.t = view, t
        self._names = [c.name for c in view.stored]
        self._columns: dict[int, tuple[NDArray[np.bool_], NDArray[Any], bool]] = {}
        if view.created is None:
            members = [r.member for r in decode(members, view)]
        head = np.frombuffer(
            b"".join(m[:24] for m in members), dtype=[("ts", "<i8"), ("created", "<i8"), ("arrived", "<i8")]
        )
        ts = head["ts"].astype(np.int64)
        at = ts + (view.availability_us or 0)
        if view.created is not None:
            at = np.maximum(at, head["created"])
        seen = np.flatnonzero((at <= t) & (ts <= t))
        self._second = (head["created"] if view.created is not None else head["arrived"])[seen]
        self.members = [members[int(i)] for i in seen]
        self.ts = ts[seen]

    def _column(self, i: int) -> tuple[NDArray[np.bool_], NDArray[Any], bool]:
        """Present, values, whether they are timestamps."""
        if i not in self._columns:
            n = len(self._names)
            codes = np.frombuffer(b"".join(m[36 + i : 37 + i] for m in self.members), dtype=np.uint8)
            kinds = set(np.unique(codes).tolist()) - {_NULL}
            if kinds <= {_FLOAT}:
                at = 36 + n + 8 * i
                values: NDArray[Any] = np.frombuffer(b"".join(m[at : at + 8] for m in self.members), dtype="<f8")
            else:
                # One kind per column is the rule; where sources disagree over time, the latest kind counts.
                values = np.array([unpack(m, n).values[i] for m in self.members] + [None], dtype=object)[:-1]
            self._columns[i] = (codes != _NULL, values, _TIME in kinds)
        return self._columns[i]

    def value(self, a: Aggregation) -> tuple[Any, bool, bool]:
        """(value, whether any row was in the window, whether it is a timestamp)."""
        inside = self.ts > self.t - a.window_us
        some = bool(inside.any())
        if a.input is None:
            return int(inside.sum()), some, False
        i = self._names.index(a.input)
        present, values, is_timestamp = self._column(i)
        chosen = np.flatnonzero(inside & present)
        if a.function == "count":
            return len(chosen), some, False
        picked = values[chosen]
        if a.function == "countDistinct":
            return len({"nan" if v != v else v for v in picked.tolist()}), some, False
        if not len(chosen):
            return None, some, is_timestamp
        if a.function in ("last", "first"):
            return self._edge(chosen, values, a.function), some, is_timestamp
        if values.dtype == object:
            plain = picked.tolist()
            return (
                (min(plain, key=_canonical) if a.function == "min" else max(plain, key=_canonical)),
                some,
                is_timestamp,
            )
        return _numeric(a.function, picked), some, False

    def _edge(self, chosen: NDArray[np.intp], values: NDArray[Any], function: str) -> Any:
        ts, second = self.ts[chosen], self._second[chosen]
        edge = np.max if function == "last" else np.min
        chosen = chosen[ts == edge(ts)]
        second = self._second[chosen]
        chosen = chosen[second == edge(second)]
        if len(chosen) > 1:
            n = len(self._names)
            rows = [(order(unpack(self.members[i], n)), int(i)) for i in chosen]
            best = (max if function == "last" else min)(rows)[1]
        else:
            best = int(chosen[0])
        value = values[best]
        return value.item() if isinstance(value, np.generic) else value


def _numeric(function: str, values: NDArray[np.float64]) -> float | None:
    """As DuckDB has it: NaN is the greatest number, spread needs two values."""
    if function == "max":
        return float(np.max(values))  # propagates NaN, the greatest
    if function == "min":
        return float(np.fmin.reduce(values))
    if function == "sum":
        return float(np.sum(values))
    if function == "mean":
        return float(np.mean(values))
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) if function == "std" else np.var(values, ddof=1))
