"""Online after any arrival equals the oracle (and so the join) at that moment, on a real Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

import valkey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.features.definitions import View
from modelyard.features.materialize import materialize, push
from modelyard.features.online import NewRow, OnlineReader, OnlineWriter, Status, to_datetime

from .oracle import Row, Rules, aggregate, feature_row
from .support import BASE, RULES, SECOND, make_view, rows_of, same, table

PROFILE = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
TYPES = ("float64", "string", "int64")
KEYS = ["a", "b", "ü|%", "never"]


def usable(row: Row, rules: Rules) -> bool:
    return row.ts is not None and None not in row.key and not (rules.has_created and row.created is None)


def new(row: Row) -> NewRow:
    assert row.ts is not None
    return NewRow(row.key, row.ts, row.created, row.values)


def read(url: str, view: View, at: int, keys: list[str] = KEYS) -> dict[str, list[Any]]:
    async def go() -> dict[str, list[Any]]:
        reader = OnlineReader.connect(url)
        try:
            names = [c.name for c in view.outputs]
            (answers,) = await reader.read([(view, names)], {"e0": keys}, at=at)
            return {n: a.values for n, a in zip(names, answers, strict=True)}
        finally:
            await reader.close()

    return asyncio.run(go())


def fresh(url: str, slack: int = 3600 * SECOND) -> OnlineWriter:
    client = valkey.Valkey.from_url(url)
    client.flushall()
    return OnlineWriter(client, slack_us=slack)


@PROFILE
@given(st.data(), RULES, rows_of(1), st.sampled_from([0, 3 * SECOND, 3600 * SECOND]))
def test_features_after_any_arrival(
    store_url: str, data: st.DataObject, rules: Rules, rows: list[Row], slack: int
) -> None:
    """Batches in any order, some sent again; asked at every moment from the horizon on."""
    rows = list(dict.fromkeys(r for r in rows if usable(r, rules)))
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    v = make_view("v", rules)
    writer = fresh(store_url, slack)
    arrived = []
    now = BASE + 30 * SECOND
    for stamp, batch in enumerate([shuffled[:cut], shuffled[cut:]], 1):
        writer.write(v, map(new, batch), TYPES, now=now, arrived=stamp)
        arrived += [Row(r.key, r.ts, r.created, r.values, stamp) for r in batch]
    if data.draw(st.booleans()):  # the source is read again: nothing changes
        writer.write(v, map(new, shuffled), TYPES, now=now, arrived=9)
    known = {k: [r for r in arrived if r.key == (k,)] for k in KEYS}
    for seconds in (0, 1, 2, 2.999999, 4, 6, 16, 60):
        t = BASE + int(seconds * SECOND)
        got = read(store_url, v, t)
        for i, k in enumerate(KEYS):
            newest = max((_known(r, rules) for r in known[k] if _known(r, rules) <= now), default=now)
            if t < newest - slack:
                continue
            best = feature_row(arrived, (k,), t, rules)
            want = best.values if best else (None, None, None)
            assert (got["x"][i], got["y"][i], got["n"][i]) == want, (k, seconds)


def _known(row: Row, rules: Rules) -> int:
    assert row.ts is not None
    return max(row.ts + (rules.availability or 0), row.created or row.ts if rules.has_created else row.ts)


@settings(PROFILE, max_examples=40)
@given(st.data(), RULES, rows_of(1), st.sampled_from([(1, 4), (2, 24)]))
def test_aggregates_after_any_arrival(
    store_url: str, data: st.DataObject, rules: Rules, rows: list[Row], windows: tuple[int, ...]
) -> None:
    rules = Rules(rules.has_created, rules.availability, None)
    rows = [r for r in rows if usable(r, rules)]
    distinct = list(dict.fromkeys(rows))
    cut = data.draw(st.integers(0, len(distinct)))
    first = set(data.draw(st.permutations(distinct))[:cut])
    v = make_view("v", rules, windows=windows)
    writer = fresh(store_url)
    arrived = []
    for stamp, batch in enumerate([[r for r in rows if r in first], [r for r in rows if r not in first]], 1):
        pairs = [NewRow(r.key, r.ts or 0, r.created, r.values[:2]) for r in batch]
        # `n` is no input of the view, but tells rows apart
        pairs = [p._replace(rest=hash(r.values[2]) % 2**64) for p, r in zip(pairs, batch, strict=True)]
        for _ in range(2):  # sending a batch again changes nothing
            writer.write(v, pairs, TYPES[:2], now=BASE + 24 * SECOND, arrived=stamp)
        arrived += [Row(r.key, r.ts, r.created, r.values[:2], stamp) for r in batch]
    for seconds in (1, 3, 4.000001, 6, 8, 40):
        t = BASE + int(seconds * SECOND)
        got = read(store_url, v, t)
        for i, k in enumerate(KEYS):
            for a in v.aggregations:
                column = {None: None, "x": 0, "y": 1}[a.input]
                want = aggregate(arrived, (k,), t, rules, a.window_us, a.function, column)
                assert same(got[a.name][i], want), (a, k, seconds, got[a.name][i], want)


@settings(PROFILE, max_examples=20)
@given(RULES, rows_of(1), st.booleans())
def test_a_pushed_row_is_a_materialised_one(store_url: str, rules: Rules, rows: list[Row], aggregates: bool) -> None:
    if aggregates:
        rules = Rules(rules.has_created, rules.availability, None)
    v = make_view("v", rules, windows=(5,) if aggregates else ())
    writer = fresh(store_url)
    source = table(rows)
    through = to_datetime(BASE + 100 * SECOND)
    materialize(v, writer, through, source=source)
    before = _dump(store_url)
    push(v, writer, source, now=BASE + 100 * SECOND)
    after = _dump(store_url)
    assert {k: {(m[:16], m[24:]) for m in s} for k, s in before.items()} == {
        k: {(m[:16], m[24:]) for m in s} for k, s in after.items()
    }
    if rules.has_created:
        assert before == after


def _dump(url: str) -> dict[bytes, list[bytes]]:
    client = valkey.Valkey.from_url(url)
    return {k: client.zrange(k, 0, -1) for k in client.scan_iter()}


def test_statuses(clean_store: str) -> None:
    v = make_view("v", Rules(False, None, 5 * SECOND))
    writer = OnlineWriter.connect(clean_store)
    writer.write(v, [NewRow(("a",), BASE, None, (None, "y", 1))], TYPES, now=BASE)

    async def go() -> None:
        reader = OnlineReader.connect(clean_store)
        ask = [(v, ["x", "y"])]
        ((x, y),) = await reader.read(ask, {"e0": ["a", "b", None]}, at=BASE + 5 * SECOND)
        assert x.statuses == [Status.NULL_VALUE, Status.NOT_FOUND, Status.NOT_FOUND]
        assert y.values == ["y", None, None]
        ((x, y),) = await reader.read(ask, {"e0": ["a", "a"]}, at=[BASE - 1, BASE + 5 * SECOND + 1])
        assert y.statuses == [Status.NOT_FOUND, Status.OUTSIDE_MAX_AGE]
        assert y.values == [None, None]
        ((x, y),) = await reader.read(ask, {"e0": ["a"]}, at=BASE + 99 * SECOND, last_known=True)
        assert y.values == ["y"]
        await reader.close()

    asyncio.run(go())


def test_a_later_push_corrects_where_nothing_else_orders(clean_store: str) -> None:
    v = make_view("v", Rules(False, None, None))
    writer = OnlineWriter.connect(clean_store)
    source = [NewRow(("a",), BASE, None, (2.0, "first", 1))]
    writer.write(v, source, TYPES, now=BASE, arrived=1)
    writer.write(v, [NewRow(("a",), BASE, None, (1.0, "push", 1))], TYPES, now=BASE, arrived=2, again=True)
    assert read(clean_store, v, BASE)["y"][0] == "push"
    writer.write(v, source, TYPES, now=BASE, arrived=3)  # the source is read again
    assert read(clean_store, v, BASE)["y"][0] == "push"
    writer.write(v, source, TYPES, now=BASE, arrived=4, again=True)
    assert read(clean_store, v, BASE)["y"][0] == "first"
