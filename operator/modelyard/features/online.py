"""The online half: rows in Valkey (or Redis), answered by the same rule as the join.

Per view version and entity key there is one sorted set, ``my:<namespace>:<view>:<version>:<key>``, of
packed rows (see ``rows``) scored by when they could be known, in milliseconds. The store keeps *rows*,
not values: what is current is decided on reading, at T, so that rows dated later wait until they are
due, a correction lands, a late row does no harm, and an aggregate is what the join would have computed,
whatever the order of arrival.

Reading is one round trip for any number of views and keys. Writing adds what is new and removes what can no
longer matter; ``slack`` says how far back before a key's newest known row one may still ask (replays).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

import valkey
import valkey.asyncio
from valkey.exceptions import AuthenticationError, ResponseError, ValkeyError
from valkey.exceptions import ConnectionError as Disconnected
from valkey.exceptions import TimeoutError as TimedOut

from modelyard.features import rows as packed
from modelyard.features.definitions import Column, View
from modelyard.features.errors import RequestError, StoreUnreachable
from modelyard.features.rows import Stored

DEFAULT_SLACK_US: Final = int(float(os.environ.get("MODELYARD_ONLINE_SLACK_SECONDS", 86_400)) * 1_000_000)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER: Final = re.compile(r"\s*[+-]?[0-9]{1,19}\s*")
_CHUNK: Final = 2_000
"""Rows, or keys, per pipeline: large enough to hide the round trip, small enough for the store's buffers."""


class Status(StrEnum):
    """What is behind a value, in Feast's words."""

    PRESENT = "PRESENT"
    NOT_FOUND = "NOT_FOUND"
    NULL_VALUE = "NULL_VALUE"
    OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"


class Answer(NamedTuple):
    """One feature for all asked entities: values, statuses, and event timestamps (None where there is no
    row).
    """

    values: list[Any]
    statuses: list[Status]
    timestamps: list[datetime | None]


class NewRow(NamedTuple):
    """A row to write: keys and values in the view's types, times in microseconds; ``rest`` see ``rows``."""

    key: tuple[Any, ...]
    ts: int
    created: int | None
    values: tuple[Any, ...]
    rest: int = 0


class Written(NamedTuple):
    """What a write did: rows given, and distinct keys among them."""

    rows: int
    keys: int


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1_000


def to_us(moment: datetime | int) -> int:
    """Microseconds since the epoch; a naive datetime is UTC, an int is microseconds already."""
    if isinstance(moment, int):
        return moment
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def to_datetime(us: int) -> datetime:
    """The inverse of ``to_us``."""
    return EPOCH + timedelta(microseconds=us)


def prefix(view: View) -> str:
    """What the keys of a view's version begin with."""
    return f"my:{view.namespace}:{view.name}:{view.version}:"


def entity_key(view: View, key: Sequence[Any]) -> str:
    """The store's key of an entity; parts of a composite key are escaped, so that no two entities share
    one.
    """
    parts = (str(part).replace("%", "%25").replace("|", "%7C") for part in key)
    return prefix(view) + "|".join(parts)


def coerce_key(view: View, entity: Column, value: Any) -> Any:
    """An entity value in its declared type, None for null; RequestError naming the entity if it is none."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if entity.type == "string":
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    elif (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _INTEGER.fullmatch(value)):
        return int(value)
    raise RequestError(f"entity {entity.name!r} of view {view.name} is {entity.type}, not {value!r}")


@contextmanager
def _reaching(what: str) -> Iterator[None]:
    try:
        yield
    except AuthenticationError as error:
        raise StoreUnreachable(f"{what}: the online store refuses the credentials ({error})") from error
    except (Disconnected, TimedOut, OSError) as error:
        raise StoreUnreachable(f"{what}: the online store is unreachable ({error})") from error
    except ResponseError as error:
        raise StoreUnreachable(f"{what}: the online store refused the command ({error})") from error
    except ValkeyError as error:
        raise StoreUnreachable(f"{what}: the online store failed ({error})") from error


class OnlineReader:
    """Reads features for many views and entities in one round trip. Values are Python's; timestamps
    datetimes.
    """

    def __init__(self, client: valkey.asyncio.Valkey) -> None:
        self._client = client

    @classmethod
    def connect(cls, url: str, *, timeout: float = 2.0, max_connections: int = 64) -> OnlineReader:
        """A reader for ``redis://…`` or ``unix://…``; ``timeout`` in seconds. Connects at the first read."""
        client = valkey.asyncio.Valkey.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, max_connections=max_connections
        )
        return cls(client)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ping(self) -> None:
        """Raise StoreUnreachable unless the store answers."""
        with _reaching("ping"):
            await self._client.ping()

    async def read(
        self,
        wanted: Sequence[tuple[View, Sequence[str]]],
        entities: Mapping[str, Sequence[Any]],
        *,
        at: datetime | int | Sequence[datetime | int] | None = None,
        last_known: bool = False,
    ) -> list[list[Answer]]:
        """Per view, per feature, the values at ``at`` (now; one moment for all, or one per entity row).

        ``entities`` are columns of equal length. ``last_known`` gives a feature's last value whatever
        its ttl. Raises RequestError (an entity is missing or of the wrong type, an unknown feature),
        StoreUnreachable.
        """
        count = _length(entities)
        times = _times(at, count)
        pipeline = self._client.pipeline(transaction=False)
        places: dict[tuple[str, int], int] = {}
        plan: list[list[int | None]] = []
        for view, names in wanted:
            unknown = sorted(set(names) - {c.name for c in view.outputs})
            if unknown:
                raise RequestError(f"view {view.name} has no feature {unknown[0]!r}")
            plan.append([])
            for key, t in zip(_keys(view, entities, count), times, strict=True):
                plan[-1].append(None if key is None else _ask(pipeline, places, view, key, t))
        if places:
            with _reaching("reading features"):
                replies: list[Any] = await pipeline.execute()
        else:
            replies = []
        answers = []
        for (view, names), slots in zip(wanted, plan, strict=True):
            columns = [Answer([], [], []) for _ in names]
            cache: dict[tuple[int, int], list[tuple[Any, Status, datetime | None]]] = {}
            for slot, t in zip(slots, times, strict=True):
                if slot is None:
                    found = answer(view, names, [], 0, t)
                elif (slot, t) in cache:
                    found = cache[slot, t]
                else:
                    behind = replies[slot + 1] if view.aggregations else 0
                    found = cache[slot, t] = answer(view, names, replies[slot], behind, t, last_known=last_known)
                for column, (value, status, stamp) in zip(columns, found, strict=True):
                    column.values.append(value)
                    column.statuses.append(status)
                    column.timestamps.append(stamp)
            answers.append(columns)
        return answers

    async def rows(self, view: View, key: Sequence[Any]) -> list[Stored]:
        """All rows kept for one entity, for explanations."""
        with _reaching("reading rows"):
            members = await self._client.zrange(entity_key(view, key), 0, -1)
        return packed.decode(members, view)


def _ask(pipeline: Any, places: dict[tuple[str, int], int], view: View, key: tuple[Any, ...], t: int) -> int:
    """Queue what must be known of a key at ``t``; the index of the first reply. Equal questions are
    asked once.
    """
    name = entity_key(view, key)
    if (name, t) not in places:
        places[name, t] = len(pipeline)
        newest = t // 1_000
        if view.aggregations:
            # known >= ts > T - window; one millisecond more, because scores are whole milliseconds
            pipeline.zrangebyscore(name, (t - view.max_window_us) // 1_000 - 1, newest)
            pipeline.zcount(name, "-inf", newest)
        else:
            pipeline.zrangebyscore(name, "-inf", newest)
    return places[name, t]


def answer(
    view: View,
    names: Sequence[str],
    members: Sequence[bytes],
    known: int,
    t: int,
    *,
    last_known: bool = False,
) -> list[tuple[Any, Status, datetime | None]]:
    """The features ``names`` at ``t`` (microseconds) from a key's members; ``known`` counts its rows
    known by then.
    """
    if view.features:
        return _feature_values(view, names, members, t, last_known)
    frame = packed.Frame(members, view, t)
    by_name = {a.name: a for a in view.aggregations}
    newest = to_datetime(int(frame.ts.max())) if len(frame.ts) else None
    result = []
    for name in names:
        value, some, is_timestamp = frame.value(by_name[name])
        if value is not None:
            status = Status.PRESENT
            value = to_datetime(value) if is_timestamp and name not in _counts(view) else value
        elif some:
            status = Status.NULL_VALUE
        else:
            status = Status.OUTSIDE_MAX_AGE if known else Status.NOT_FOUND
        result.append((value, status, newest))
    return result


def _counts(view: View) -> set[str]:
    return {c.name for c in view.outputs if c.type == "int64"}


def _feature_values(
    view: View, names: Sequence[str], members: Sequence[bytes], t: int, last_known: bool
) -> list[tuple[Any, Status, datetime | None]]:
    best = packed.winner(packed.decode(members, view), view, t)
    if best is None:
        return [(None, Status.NOT_FOUND, None)] * len(names)
    stamp = to_datetime(best.ts)
    stale = view.ttl_us is not None and best.ts < t - view.ttl_us
    positions = {c.name: i for i, c in enumerate(view.stored)}
    result: list[tuple[Any, Status, datetime | None]] = []
    for name in names:
        i = positions[name]
        value = best.values[i]
        if value is not None and view.stored[i].type == "timestamp":
            value = to_datetime(value)
        status = Status.OUTSIDE_MAX_AGE if stale else Status.NULL_VALUE if value is None else Status.PRESENT
        result.append((None if stale and not last_known else value, status, stamp))
    return result


def _length(entities: Mapping[str, Sequence[Any]]) -> int:
    lengths = {name: len(column) for name, column in entities.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{n}: {c}" for n, c in lengths.items())
        raise RequestError(f"entity columns differ in length ({listed})")
    return next(iter(lengths.values()), 0)


def _times(at: Any, count: int) -> list[int]:
    if at is None:
        return [now_us()] * count
    if isinstance(at, (datetime, int)):
        return [to_us(at)] * count
    if len(at) != count:
        raise RequestError(f"{len(at)} event timestamps for {count} entity rows")
    return [to_us(moment) for moment in at]


def _keys(view: View, entities: Mapping[str, Sequence[Any]], count: int) -> Iterator[tuple[Any, ...] | None]:
    for entity in view.entities:
        if entity.name not in entities:
            raise RequestError(f"entity {entity.name!r} of view {view.name} is missing")
    for i in range(count):
        key = tuple(coerce_key(view, e, entities[e.name][i]) for e in view.entities)
        yield None if None in key else key


class OnlineWriter:
    """Writes rows; running the same write again changes nothing. Safe beside other writers."""

    def __init__(self, client: valkey.Valkey, *, slack_us: int = DEFAULT_SLACK_US) -> None:
        self._client = client
        self._slack_us = slack_us

    @classmethod
    def connect(cls, url: str, *, timeout: float = 10.0, slack_us: int = DEFAULT_SLACK_US) -> OnlineWriter:
        """A writer for ``redis://…`` or ``unix://…``; ``timeout`` in seconds. Connects at the first write."""
        client = valkey.Valkey.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        return cls(client, slack_us=slack_us)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def write(
        self,
        view: View,
        new: Iterable[NewRow],
        types: Sequence[str],
        *,
        now: int | None = None,
        arrived: int | None = None,
        again: bool = False,
    ) -> Written:
        """Add rows whose stored columns have ``types``; drop what can no longer matter.

        ``now`` (microseconds) bounds what counts as a key's newest known row; ``arrived`` is the time of
        ingestion that orders corrections without a created timestamp. ``again`` says that a row already
        here has arrived once more (a push); without it, it keeps its first arrival (a source read
        again). Raises StoreUnreachable.
        """
        now = now_us() if now is None else now
        arrived = now_us() if arrived is None else arrived
        by_key: dict[tuple[Any, ...], list[bytes]] = {}
        copies: dict[tuple[tuple[Any, ...], bytes], int] = {}
        count = 0
        for row in new:
            count += 1
            created = row.created if view.created is not None else None
            bare = packed.pack(row.ts, created, arrived, row.rest, 0, packed.body(row.values, types))
            copy = copies.get((row.key, bare), 0)
            copies[row.key, bare] = copy + 1
            member = bare if not copy else bare[:32] + copy.to_bytes(4, "little") + bare[36:]
            by_key.setdefault(row.key, []).append(member)
        with _reaching(f"writing view {view.name}"):
            for chunk in _chunks(by_key):
                self._write_chunk(view, chunk, now, again)
        return Written(count, len(by_key))

    def _write_chunk(
        self, view: View, chunk: Sequence[tuple[tuple[Any, ...], list[bytes]]], now: int, again: bool
    ) -> None:
        names = [entity_key(view, key) for key, _ in chunk]
        fresh = [packed.decode(members, view) for _, members in chunk]
        if view.features or view.created is None:
            pipeline = self._client.pipeline(transaction=False)
            for name, rows in zip(names, fresh, strict=True):
                known = [packed.known(r, view) // 1_000 for r in rows]
                # of aggregates only the batch's own moments matter: is a row there already?
                low, high = ("-inf", "+inf") if view.features else (min(known), max(known))
                pipeline.zrangebyscore(name, low, high)
            present = [packed.decode(members, view) for members in pipeline.execute()]
        else:
            present = [[] for _ in names]
        pipeline = self._client.pipeline(transaction=False)
        for name, rows, old in zip(names, fresh, present, strict=True):
            add, remove = self._merge(view, rows, old, now, again)
            for part in range(0, len(add), _CHUNK):
                pipeline.zadd(name, {r.member: packed.known(r, view) // 1_000 for r in add[part : part + _CHUNK]})
            for part in range(0, len(remove), _CHUNK):
                pipeline.zrem(name, *remove[part : part + _CHUNK])
            if view.aggregations:
                pipeline.zrevrangebyscore(name, now // 1_000, "-inf", start=0, num=1, withscores=True)
        replies = pipeline.execute()
        if view.aggregations:
            self._forget(view, names, [r for r in replies if isinstance(r, list)])

    def _merge(
        self, view: View, rows: list[Stored], old: list[Stored], now: int, again: bool
    ) -> tuple[list[Stored], list[bytes]]:
        """What to add, and which members to remove."""
        here = {packed.identity(r.member): r for r in old}
        added: dict[bytes, Stored] = {}
        remove = set()
        for row in rows:
            mark = packed.identity(row.member)
            if mark not in here:
                added[mark] = row
            elif again and view.created is None and here[mark].arrived < row.arrived:
                remove.add(here[mark].member)
                added[mark] = row
        if view.features:
            every = [r for m, r in here.items() if m not in added] + list(added.values())
            newest = max((k for r in every if (k := packed.known(r, view)) <= now), default=now)
            kept = {r.member for r in packed.needed(every, view, min(newest, now) - self._slack_us)}
            remove |= {r.member for r in old if r.member not in kept}
            added = {m: r for m, r in added.items() if r.member in kept}
        return list(added.values()), sorted(remove)

    def _forget(self, view: View, names: Sequence[str], newest: Sequence[list[tuple[bytes, float]]]) -> None:
        """Drop rows that no window can reach any more; the newest itself is always within it."""
        pipeline = self._client.pipeline(transaction=False)
        for name, found in zip(names, newest, strict=True):
            if found:
                limit = int(found[0][1]) - (view.max_window_us + self._slack_us) // 1_000 - 1
                pipeline.zremrangebyscore(name, "-inf", f"({limit}")
        pipeline.execute()

    def count_keys(self, view: View) -> int:
        """How many entities of this version the store holds."""
        with _reaching(f"counting view {view.name}"):
            return sum(1 for _ in self._client.scan_iter(match=_pattern(view), count=1_000))

    def drop(self, view: View) -> int:
        """Remove everything of this version; the number of keys removed."""
        removed = 0
        with _reaching(f"dropping view {view.name}"):
            batch: list[bytes] = []
            for name in self._client.scan_iter(match=_pattern(view), count=1_000):
                batch.append(name)
                if len(batch) >= _CHUNK:
                    removed += int(self._client.unlink(*batch))
                    batch = []
            if batch:
                removed += int(self._client.unlink(*batch))
        return removed


def _pattern(view: View) -> str:
    return prefix(view) + "*"


def _chunks(
    by_key: Mapping[tuple[Any, ...], list[bytes]],
) -> Iterator[list[tuple[tuple[Any, ...], list[bytes]]]]:
    chunk: list[tuple[tuple[Any, ...], list[bytes]]] = []
    size = 0
    for item in by_key.items():
        chunk.append(item)
        size += len(item[1])
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
