"""The work queue: each key once, never twice at a time, nothing lost, back-off after failure."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from modelyard.cluster.queue import GONE, Key, WorkQueue

A = Key("Model", "default", "a")
B = Key("Model", "default", "b")


async def run_for(queue: WorkQueue, seconds: float) -> None:
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_many_additions_are_one_look() -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> float | None:
        seen.append(key)
        return None

    queue = WorkQueue(reconcile)
    for _ in range(10):
        await queue.add(A)
    await queue.add(B)
    await run_for(queue, 0.05)
    assert sorted(seen) == [A, B]


async def test_a_change_during_the_look_is_looked_at_again_and_never_at_the_same_time() -> None:
    active = 0
    looks = 0

    async def reconcile(key: Key) -> float | None:
        nonlocal active, looks
        active += 1
        looks += 1
        assert active == 1
        if looks == 1:
            await queue.add(key)
        await asyncio.sleep(0.01)
        active -= 1
        return None

    queue = WorkQueue(reconcile, workers=4)
    await queue.add(A)
    await run_for(queue, 0.1)
    assert looks == 2


async def test_failures_come_back_later_each_time_and_others_go_on() -> None:
    tries: list[float] = []
    loop = asyncio.get_running_loop()

    async def reconcile(key: Key) -> float | None:
        if key == A:
            tries.append(loop.time())
            raise RuntimeError("no")
        return None

    queue = WorkQueue(reconcile, base=0.02)
    await queue.add(A)
    await queue.add(B)
    await run_for(queue, 0.2)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert len(gaps) >= 2
    assert all(gap >= 0.019 for gap in gaps)
    assert gaps[-1] > gaps[0]


async def test_requeue_and_gone() -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> float | None:
        seen.append(key)
        return GONE if key == B else 0.02

    queue = WorkQueue(reconcile, resync=0.03)
    await queue.add(A)
    await queue.add(B)
    await run_for(queue, 0.15)
    assert seen.count(A) >= 3
    assert seen.count(B) == 1
