"""Test that iterating tasks continue at their position after deploys, kills and outages of Redis."""

import asyncio
import json
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskContext, TaskQ
from taskq_core.broker.operations.steps import POSITION
from taskq_core.execution.step_record import read_result
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    LONG_LEASE,
    Runner,
    WorkerProcess,
    lapse,
    marks,
    state_of,
    until,
    until_blocking,
)

PLAIN = "iterate"

COROUTINE = "iterate_coroutine"


def cursor_of(server: RedisServer, queue: QueueKeys, task_id: str) -> int:
    """Return the stored cursor of a task's only loop, 0 without a cursor."""
    data: Any = server.client.hget(queue.steps_of(task_id), POSITION)
    return int(json.loads(read_result(data)[2])["/0"][0] or 0) if data else 0


def items_of(server: RedisServer, name: str) -> list[int]:
    """Return the numbers of the items that a task has begun, in order."""
    return [int(mark.split()[1]) for mark in marks(server, name)]


def attempts_of(server: RedisServer, name: str) -> set[int]:
    return {int(mark.split()[0]) for mark in marks(server, name)}


def repeats(items: list[int]) -> int:
    return len(items) - len(set(items))


@pytest.mark.redis
def test_five_deploys_under_load_repeat_no_item(
    app: TaskQ, redis_server: RedisServer, start_process: Callable[..., WorkerProcess], queue: QueueKeys
) -> None:
    """Items are shorter than the shutdown grace, so a worker stops between two items."""
    names = ["plain 0", "plain 1", "coroutine 0", "coroutine 1"]
    handles = [
        app.remote(PLAIN if name.startswith("plain") else COROUTINE).delay(name=name, count=120, pause_s=0.02)
        for name in names
    ]
    load = [app.remote("quick").delay(name="load") for _ in range(200)]
    process = start_process(concurrency=6, **LONG_LEASE)
    for deploy in range(5):
        until_blocking(
            lambda deploy=deploy: all(len(items_of(redis_server, name)) > 10 * (deploy + 1) for name in names)
        )
        process.signal(signal.SIGTERM)
        following = start_process(concurrency=6, **LONG_LEASE)
        assert process.wait() == 0, process.output
        process = following
        load += [app.remote("quick").delay(name="load") for _ in range(200)]
    for handle in handles:
        assert handle.result(timeout=60) == "done"
    until_blocking(lambda: len(marks(redis_server, "load")) == len(load))

    for name in names:
        assert items_of(redis_server, name) == list(range(120)), "an item was repeated or skipped"
        assert attempts_of(redis_server, name) == {1}, "a stop used an attempt"
    for handle in handles:
        assert cursor_of(redis_server, queue, handle.id) == 0, "the cursor was not deleted at the end"


@pytest.mark.redis
def test_a_kill_repeats_only_the_current_item_if_each_item_is_stored(
    app: TaskQ, redis_server: RedisServer, start_process: Callable[..., WorkerProcess], queue: QueueKeys
) -> None:
    handles = [  # so long that they do not end before the kill
        app.remote(kind).using(max_retry=5).delay(name=kind, count=40, pause_s=0.02, every=1, until="go")
        for kind in (PLAIN, COROUTINE)
    ]
    kills = 2
    for kill in range(kills):
        process = start_process(**LONG_LEASE)
        until_blocking(
            lambda kill=kill: all(len(items_of(redis_server, kind)) > 10 * (kill + 1) for kind in (PLAIN, COROUTINE))
        )
        process.signal(signal.SIGKILL)
        process.wait()
        lapse(redis_server, queue)
    redis_server.client.set("go", 1)
    start_process(**LONG_LEASE)
    for handle in handles:
        assert handle.result(timeout=60) == "done"

    for kind in (PLAIN, COROUTINE):
        items = items_of(redis_server, kind)
        assert set(items) == set(range(40))
        assert repeats(items) <= kills
        assert attempts_of(redis_server, kind) == {1, 2, 3}, "a kill must use an attempt"


@pytest.mark.redis
def test_a_kill_repeats_nothing_before_the_stored_cursor(
    app: TaskQ, redis_server: RedisServer, start_process: Callable[..., WorkerProcess], queue: QueueKeys
) -> None:
    """Without `every` the cursor is stored in the background, and items after it are repeated."""
    handles = {
        kind: app.remote(kind).delay(name=kind, count=200, pause_s=0.01, until="go") for kind in (PLAIN, COROUTINE)
    }
    process = start_process(**LONG_LEASE)
    until_blocking(lambda: all(cursor_of(redis_server, queue, handle.id) > 20 for handle in handles.values()))
    process.signal(signal.SIGKILL)
    process.wait()
    lapse(redis_server, queue)
    before = {kind: cursor_of(redis_server, queue, handle.id) for kind, handle in handles.items()}
    first_runs = {kind: items_of(redis_server, kind) for kind in handles}
    redis_server.client.set("go", 1)
    start_process(**LONG_LEASE)
    for kind, handle in handles.items():
        assert handle.result(timeout=60) == "done"

        second_run = items_of(redis_server, kind)[len(first_runs[kind]) :]
        assert second_run == list(range(before[kind], 200))


@pytest.mark.redis
def test_a_worker_that_lost_its_lease_does_not_move_the_cursor(
    app: TaskQ, redis_server: RedisServer, start_process: Callable[..., WorkerProcess], queue: QueueKeys
) -> None:
    """A worker that was frozen for longer than its lease stores nothing when it continues."""
    handles = {
        name: app.remote(PLAIN).delay(name=name, count=200, pause_s=0.02, every=every, until="go")
        for name, every in (("background", None), ("each", 1))
    }
    zombie = start_process(**LONG_LEASE)
    until_blocking(lambda: all(cursor_of(redis_server, queue, handle.id) > 5 for handle in handles.values()))
    zombie.signal(signal.SIGSTOP)
    zombie.wait_until_stopped()
    lapse(redis_server, queue)
    left_at = {name: len(marks(redis_server, name)) for name in handles}
    start_process(**LONG_LEASE)
    until_blocking(lambda: all(2 in attempts_of(redis_server, name) for name in handles), "they are taken over")

    zombie.signal(signal.SIGCONT)
    cursors_of: dict[str, list[int]] = {name: [] for name in handles}

    def have_ended() -> bool:
        for name, handle in handles.items():
            cursor = cursor_of(redis_server, queue, handle.id)
            if cursor:
                cursors_of[name].append(cursor)
        if all(len(cursors) > 1 for cursors in cursors_of.values()):
            redis_server.client.set("go", 1)
        return not any(state_of(redis_server, queue, handle.id) == "active" for handle in handles.values())

    until_blocking(have_ended)

    for name, handle in handles.items():
        assert handle.result(timeout=60) == "done"
        assert cursors_of[name] == sorted(cursors_of[name]), "the cursor moved back"
        of_other = [int(mark.split()[1]) for mark in marks(redis_server, name) if mark.startswith("2 ")]
        assert of_other == list(range(of_other[0], 200)), "the run of the other worker was disturbed"
        assert of_other[0] > 5
    late = [mark for mark in marks(redis_server, "each")[left_at["each"] :] if mark.startswith("1 ")]
    assert len(late) <= 1, "its next write was not refused"


@pytest.mark.redis
async def test_progress_does_not_wait_while_redis_is_unavailable(start: Runner) -> None:
    """The function ends before Redis responds to any client."""
    reported = threading.Event()
    may_go, has_begun = threading.Event(), threading.Event()

    with RedisServer() as server:
        app = TaskQ(server.url, defaults={"retention": 600}, enqueue_timeout=60)

        @app.task(name="go")
        def go(context: TaskContext) -> str:
            has_begun.set()
            may_go.wait(60)
            for number in range(1_000):
                context.progress(number)
            reported.set()
            return "done"

        handle = await go.adelay()
        worker = await start(app=app, lease=180)
        await until(has_begun.is_set)
        server.pause()
        try:
            may_go.set()
            await until(reported.is_set)
        finally:
            server.resume()

        assert await handle.aresult(timeout=60) == "done"
        progress = (await handle.arefresh()).progress
        await start.stop(worker)
        await app.aclose()

    assert progress is not None
    assert progress.done == 999


PLAIN = "iterate"

COROUTINE = "iterate_coroutine"

BOTH = pytest.mark.parametrize("kind", [PLAIN, COROUTINE])


@pytest.mark.redis
@pytest.mark.parametrize("every", [None, 1])
@BOTH
async def test_a_short_outage_of_redis_repeats_no_item(
    app: TaskQ, start: Runner, redis_server: RedisServer, kind: str, every: int | None
) -> None:
    items: list[int] = []

    @app.task(name=PLAIN)
    def plain(context: TaskContext) -> str:
        for number in context.iterate(range(60), every=every):
            items.append(number)
            time.sleep(0.02)
        return "done"

    @app.task(name=COROUTINE)
    async def coroutine(context: TaskContext) -> str:
        async for number in context.iterate(range(60), every=every):
            items.append(number)
            await asyncio.sleep(0.02)
        return "done"

    handle = await (plain if kind == PLAIN else coroutine).adelay()
    await start(lease=10)
    await until(lambda: len(items) > 5)
    redis_server.client.execute_command("CLIENT", "PAUSE", "1200", "ALL")

    assert await handle.aresult(timeout=30) == "done"
    assert items == list(range(60))


@pytest.mark.redis
async def test_a_run_that_begins_in_an_outage_waits_for_its_cursor(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """It does not start from the beginning when the position is unknown."""
    items: list[int] = []
    may_go, has_begun = threading.Event(), threading.Event()

    @app.task(name="go", retry_delay=0)
    def go(context: TaskContext) -> str:
        if context.attempt == 2:
            has_begun.set()
            may_go.wait(60)
        for number in context.iterate(range(6)):
            items.append(number)
            if items == [0, 1, 2]:
                raise ValueError
        return "done"

    handle = await go.adelay()
    await start(lease=10)
    await until(has_begun.is_set)
    redis_server.client.execute_command("CLIENT", "PAUSE", "800", "ALL")
    may_go.set()

    assert await handle.aresult(timeout=30) == "done"
    assert items == [0, 1, 2, 2, 3, 4, 5]
