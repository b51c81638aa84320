"""Test unique locks when a worker dies, when a lock outlives its task, and when a task outlives its lock."""

import asyncio
from typing import Any

import pytest

from taskq_core import Discard, DuplicateTaskError, TaskQ, Unique
from taskq_core.wire import QueueKeys
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    PATIENCE_S,
    Ends,
    Runner,
    state_of,
    until,
)

pytestmark = pytest.mark.redis


def locks(server: RedisServer, queue: QueueKeys) -> dict[bytes, bytes | None]:
    """Return the holder of each lock."""
    return {key: server.client.get(key) for key in server.client.scan_iter(queue.unique_prefix + "*")}  # type: ignore[misc]  # blocking


@pytest.mark.parametrize("end", ["succeeds", "fails for good", "is discarded"])
async def test_a_task_that_outlives_its_lock_does_not_release_the_next_lock(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, end: str
) -> None:
    """If its lock is deleted, another task may take the lock, and only that task releases it."""
    release = asyncio.Event()
    runs: list[str] = []

    @app.task(name="slow", max_retry=0, retention=600)
    async def slow() -> None:
        runs.append(end)
        await release.wait()
        if len(runs) == 1 and end == "fails for good":
            raise ValueError(end)
        if len(runs) == 1 and end == "is discarded":
            raise Discard

    ends = Ends()
    await start(listener=ends, concurrency=1, lease=60, heartbeat=20)  # a beat would take the lock again for the first
    first = await slow.using(unique_for=600).adelay()
    await until(lambda: runs == [end])
    (lock,) = locks(redis_server, queue)
    redis_server.client.delete(lock)
    second = await slow.using(unique_for=600, run_after=600).adelay()
    release.set()
    await until(lambda: ends.of(first.id))
    await until(lambda: state_of(redis_server, queue, first.id) != "active")  # listeners run first

    assert locks(redis_server, queue) == {lock: second.id.encode()}
    with pytest.raises(DuplicateTaskError):
        await slow.using(unique_for=600).adelay()


@pytest.mark.parametrize(
    "options",
    [{"unique_for": 1}, {"unique": Unique(period=1)}, {"unique": Unique()}],
    ids=["asynq", "period", "endless"],
)
async def test_a_short_lock_is_renewed_until_the_run_ends(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock, options: dict[str, Any]
) -> None:
    """Heartbeats renew it; it is free with the end of the task."""
    release = asyncio.Event()
    runs: list[int] = []

    @app.task(name="slow", **options)
    async def slow() -> None:
        runs.append(1)
        await release.wait()

    await start()
    handle = await slow.adelay()
    await until(lambda: runs)
    await clock.advance(100)

    assert list(locks(redis_server, queue).values()) == [handle.id.encode()]
    with pytest.raises(DuplicateTaskError):
        await slow.adelay()
    release.set()
    await handle.aresult(PATIENCE_S)
    assert locks(redis_server, queue) == {}
    await slow.adelay()


async def test_unique_tasks_never_run_at_the_same_time(app: TaskQ, start: Runner, clock: Clock) -> None:
    """Two workers run a task that sometimes fails while producers enqueue it constantly. At most one run is active."""
    running = most = 0
    runs = 0

    @app.task(name="one", unique=Unique(args=[], on_conflict="return_existing"), retry_delay=0, max_retry=100)
    async def one(number: int) -> None:
        nonlocal running, most, runs
        running += 1
        most = max(most, running)
        runs += 1
        await asyncio.sleep(0)
        running -= 1
        if runs % 5 == 0:
            raise ValueError("now and then")

    for _ in range(2):
        await start(concurrency=10)
    number = 0
    while runs < 40:
        await asyncio.gather(*(one.adelay(number + i) for i in range(10)))
        number += 10
        await clock.settle()
        clock.skip(1)

    assert most == 1


async def test_a_unique_task_enqueued_during_a_run_runs_afterwards(app: TaskQ, start: Runner) -> None:
    """The lock is released at the start. An enqueue during the run is not lost, and runs once with its arguments."""
    seen: list[int] = []
    first_runs, go_on = asyncio.Event(), asyncio.Event()

    @app.task(name="save", unique=Unique(args=[], states="until_started", on_conflict="replace"))
    async def save(version: int) -> None:
        seen.append(version)
        first_runs.set()
        await go_on.wait()

    await start(concurrency=1)
    await save.adelay(1)
    await first_runs.wait()
    handles = [await save.adelay(version) for version in (2, 3, 4)]
    go_on.set()
    await handles[-1].aresult(PATIENCE_S)

    assert seen == [1, 4]
    assert [handle.existing for handle in handles] == [False, True, True]
    assert len({handle.id for handle in handles}) == 1
