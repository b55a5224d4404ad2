"""One level-triggered queue for the whole operator.

Watches only say *that* an object may have changed; what is to be done follows from its state when a worker gets to
it. A key (kind, namespace, name) is in the queue once; it is never worked on by two workers at a time; one that was
added meanwhile is worked on again afterwards; failures come back with exponential back-off, successes after the time
they asked for, or with the resync period. The idea is client-go's workqueue.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

log = logging.getLogger(__name__)


class Key(NamedTuple):
    """What is to be looked at."""

    kind: str
    namespace: str
    name: str


#: What a reconciliation returns about an object that is gone: no resync, until an event puts the key in again.
GONE = math.inf

#: Looks at one object; returns the seconds after which it wants to be called again, None for the resync alone, or GONE.
Reconcile = Callable[[Key], Awaitable[float | None]]


class WorkQueue:
    """Keys that wait, with delays, deduplicated.

    Args:
        reconcile: called for each key, by `workers` tasks at a time.
        resync: seconds after which a key that succeeded is looked at again without any event.
        base, ceiling: seconds of the first and of the longest back-off.
    """

    def __init__(
        self,
        reconcile: Reconcile,
        *,
        workers: int = 8,
        resync: float = 300.0,
        base: float = 0.5,
        ceiling: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reconcile = reconcile
        self._workers = workers
        self._resync = resync
        self._base = base
        self._ceiling = ceiling
        self._clock = clock
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._active: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Condition()

    async def add(self, key: Key, after: float = 0.0) -> None:
        """Puts a key in, due after so many seconds; an earlier due time stays."""
        async with self._wake:
            self._put(key, self._clock() + after)
            self._wake.notify()

    def _put(self, key: Key, due: float) -> None:
        if key in self._active:
            self._again[key] = min(due, self._again.get(key, due))
            return
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))

    async def _next(self) -> Key:
        async with self._wake:
            while True:
                while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                    heapq.heappop(self._heap)
                delay = self._heap[0][0] - self._clock() if self._heap else None
                if delay is not None and delay <= 0:
                    key = heapq.heappop(self._heap)[2]
                    del self._due[key]
                    self._active.add(key)
                    return key
                try:
                    await asyncio.wait_for(self._wake.wait(), delay)
                except TimeoutError:
                    continue

    async def _done(self, key: Key, after: float | None, failed: bool) -> None:
        async with self._wake:
            self._active.discard(key)
            now = self._clock()
            if failed:
                count = self._failures.get(key, 0)
                self._failures[key] = count + 1
                after = min(self._ceiling, self._base * 2.0 ** min(count, 16))
            else:
                self._failures.pop(key, None)
                if after is None or (after > self._resync and after != GONE):
                    after = self._resync
            due = min(now + after, self._again.pop(key, GONE))
            if due == GONE:
                return
            self._put(key, due)
            self._wake.notify()

    async def _work(self) -> None:
        while True:
            key = await self._next()
            after, failed = None, False
            try:
                after = await self._reconcile(key)
            except asyncio.CancelledError:
                raise
            except Exception:
                failed = True
                log.exception("reconciling %s %s/%s failed and will be tried again", *key)
            await self._done(key, after, failed)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())
