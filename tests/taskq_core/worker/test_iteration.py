"""Test iterating tasks on workers that stop, are killed, are suspended, or lose Redis."""

import asyncio
import json
import threading
import time
from functools import partial
from typing import Any

import pytest

from taskq_core import TaskContext, TaskQ, TaskState
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.steps import POSITION
from taskq_core.execution.step_record import read_result
from taskq_core.wire import QueueKeys
from taskq_core.worker import Worker
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    PATIENCE_S,
    Runner,
    receives_cancels,
    state_of,
    stored,
    until,
    until_released,
)

PLAIN = "iterate"
COROUTINE = "iterate_coroutine"
BOTH = pytest.mark.parametrize("kind", [PLAIN, COROUTINE])


def cursor_of(server: RedisServer, queue: QueueKeys, task_id: str) -> int:
    """Return the stored cursor of a task's only loop, 0 without a cursor."""
    data: Any = server.client.hget(queue.steps_of(task_id), POSITION)
    return int(json.loads(read_result(data)[2])["/0"][0] or 0) if data else 0


def repeats(items: list[int]) -> int:
    return len(items) - len(set(items))


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.redis
async def test_an_item_longer_than_the_grace_is_repeated_after_each_stop(app: TaskQ, start: Runner) -> None:
    seen: dict[str, list[tuple[int, int]]] = {PLAIN: [], COROUTINE: []}
    release = threading.Event()

    @app.task(name=PLAIN)
    def plain(context: TaskContext) -> str:
        for number in context.iterate(range(4)):
            seen[PLAIN].append((context.attempt, number))
            until_released(release)
        return "done"

    @app.task(name=COROUTINE)
    async def coroutine(context: TaskContext) -> str:
        async for number in context.iterate(range(4)):
            seen[COROUTINE].append((context.attempt, number))
            await until(release.is_set)
        return "done"

    handles = [await plain.adelay(), await coroutine.adelay()]
    stops = 3
    for stop in range(stops):
        worker = await start(shutdown_grace=0, interrupt_grace=30)
        await until(lambda stop=stop: all(len(each) > stop for each in seen.values()))
        assert await start.stop(worker) == 0
    release.set()
    await start()
    for handle in handles:
        assert await handle.aresult(timeout=60) == "done"

    for begun in seen.values():
        items = [number for _, number in begun]
        assert set(items) == set(range(4))
        assert items == sorted(items)
        assert repeats(items) == stops
        assert {attempt for attempt, _ in begun} == {1}, "a stop uses no attempt"


# --- kills ------------------------------------------------------------------------------------------------------------


# --- Redis away -------------------------------------------------------------------------------------------------------


# --- interrupted runs -------------------------------------------------------------------------------------------------


@pytest.mark.redis
@BOTH
async def test_cancelling_ends_the_loop_and_keeps_the_cursor(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, kind: str
) -> None:
    seen: list[int] = []

    @app.task(name=PLAIN)
    def plain(context: TaskContext) -> None:
        for number in context.iterate(range(10_000)):
            seen.append(number)
            if number == 20:
                until_released()

    @app.task(name=COROUTINE)
    async def coroutine(context: TaskContext) -> None:
        async for number in context.iterate(range(10_000)):
            seen.append(number)
            if number == 20:
                await asyncio.Event().wait()

    handle = await (plain if kind == PLAIN else coroutine).adelay()
    await start()
    await until(lambda: len(seen) == 21 and receives_cancels(redis_server))
    assert await handle.acancel()
    await until(lambda: state_of(redis_server, queue, handle.id) == "archived")

    assert cursor_of(redis_server, queue, handle.id) == 20, "the item in hand was not gone through"


@pytest.mark.redis
async def test_a_run_after_a_timeout_continues_at_the_cursor(app: TaskQ, start: Runner, clock: Clock) -> None:
    seen: list[int] = []

    @app.task(name="go", timeout=30, retry_delay=0, max_retry=20)
    async def go(context: TaskContext) -> str:
        async for number in context.iterate(range(6)):
            seen.append(number)
            if number == 2 * context.attempt:
                await asyncio.Event().wait()
        return "done"

    handle = await go.adelay()
    await start()
    for number in (2, 4):
        await until(lambda: seen[-1:] == [number])  # noqa: B023 - awaited in the loop
        await clock.advance(31)

    assert await handle.aresult(timeout=PATIENCE_S) == "done"
    assert (await handle.arefresh()).retried == 2
    assert seen == [0, 1, 2, 2, 3, 4, 4, 5], "the item in hand is repeated, once a timeout"


@pytest.mark.redis
async def test_values_emitted_for_an_item_are_stored_before_the_position_after_it(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    found: list[Any] = []

    @app.task(name="go")
    async def go(context: TaskContext) -> None:
        async for number in context.iterate(range(4), every=1):
            found.append((cursor_of(redis_server, queue, context.id), redis_server.client.xlen(stream)))
            await context.aemit(number)

    handle = await go.adelay()
    stream = queue.stream_of(handle.id)
    await start()
    await handle.aresult(timeout=PATIENCE_S)

    assert found == [(0, 0), (1, 1), (2, 2), (3, 3)]


@pytest.mark.redis
async def test_an_iterating_task_releases_its_slot_for_other_tasks(app: TaskQ, start: Runner, clock: Clock) -> None:
    order: list[Any] = []

    @app.task(name="long")
    async def long(context: TaskContext) -> str:
        async for number in context.iterate(range(4), for_at_most=1000):
            order.append(number)
            clock.skip(600)
        return "done"

    @app.task(name="other")
    async def other() -> None:
        order.append("other")

    handle = await long.adelay()
    await other.adelay()
    await start(concurrency=1, lease=3600, heartbeat=1000)

    assert await handle.aresult(timeout=36_000) == "done"
    assert [each for each in order if each != "other"] == list(range(4))
    assert order.index("other") == 2
    assert (await handle.arefresh()).retried == 0


@pytest.mark.redis
async def test_is_stopping_is_true_inside_an_item_of_a_stopping_worker(app: TaskQ, start: Runner) -> None:
    """`is_stopping` lets a task stop by itself."""
    is_stopping_values: list[bool] = []
    going_on = threading.Event()

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        is_stopping_values.append(context.is_stopping)
        going_on.wait(60)
        is_stopping_values.append(context.is_stopping)

    await go.adelay()
    worker = await start()
    await until(lambda: is_stopping_values)
    worker.stop()
    await until(lambda: worker.status == "stopped")
    going_on.set()
    assert await start.ending(worker) == 0

    assert is_stopping_values == [False, True]


# --- progress ---------------------------------------------------------------------------------------------------------


def noted(worker: Worker) -> list[Operation[Any]]:
    """Notes that a worker sends from now on."""
    sent: list[Operation[Any]] = []
    run = worker._context.runner.run

    async def watched(operation: Operation[Any], **options: Any) -> Any:
        if operation.name == "write_fields":
            sent.append(operation)
        return await run(operation, **options)

    worker._context.runner.run = watched  # type: ignore[method-assign]  # what is sent is counted
    return sent


@pytest.mark.redis
async def test_progress_is_throttled_and_its_last_value_stored(app: TaskQ, start: Runner) -> None:
    begun = 0.0

    @app.task(name="go")
    def go(context: TaskContext) -> str:
        nonlocal begun
        begun = time.monotonic()
        for number in range(5_000):
            context.progress(number, 5_000, f"at {number}")
        return "done"

    worker = await start()
    sent = noted(worker)
    handle = await go.adelay()

    assert await handle.aresult(timeout=60) == "done"
    assert 1 <= len(sent) <= 3 + (time.monotonic() - begun)
    progress = (await handle.arefresh()).progress
    assert progress is not None
    assert (progress.done, progress.total, progress.message) == (4_999, 5_000, "at 4999")
    assert (await handle.arefresh()).result == b'"done"', "it is no result"


@pytest.mark.redis
async def test_the_last_progress_before_a_long_silence_is_stored(app: TaskQ, start: Runner) -> None:
    """This includes a second value within the interval of throttled writes."""
    silent = asyncio.Event()

    @app.task(name="go")
    async def go(context: TaskContext) -> None:
        context.progress(1)
        await until(partial(is_told, 1))
        context.progress(2)
        await silent.wait()

    handle = await go.adelay()

    async def is_told(done: int) -> bool:
        progress = (await handle.arefresh()).progress
        return progress is not None and progress.done == done

    await start()
    await until(partial(is_told, 2))
    assert (await handle.arefresh()).state is TaskState.ACTIVE
    silent.set()
    await handle.aresult(timeout=PATIENCE_S)


@pytest.mark.redis
async def test_progress_of_a_worker_that_lost_the_task_is_refused(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    begun, may_go = threading.Event(), threading.Event()

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        context.cursor()
        begun.set()
        may_go.wait(60)
        context.progress(1)
        context.checkpoint("stolen")

    handle = await go.adelay()
    worker = await start(heartbeat=60, lease=180)  # nothing but the fence notices
    sent = noted(worker)
    await until(begun.is_set)
    redis_server.client.hset(queue.task(handle.id), "taskq_owner", "another:1")
    may_go.set()
    await until(lambda: sent)
    await until(lambda: not worker.running_count)

    fields: Any = redis_server.client.hgetall(queue.task(handle.id))
    assert fields[b"taskq_owner"] == b"another:1"
    assert b"taskq_progress" not in fields
    assert cursor_of(redis_server, queue, handle.id) == 0
    assert stored(redis_server, queue, handle.id).retried == 0
