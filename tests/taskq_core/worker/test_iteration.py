"""Tasks that iterate, in workers that stop, are killed, are stopped for long, or lose Redis: each item is counted."""

import asyncio
import json
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskContext, TaskQ, TaskState
from taskq_core.broker.operations import Operation
from taskq_core.wire import QueueKeys
from taskq_core.worker import Worker
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    LONG_LEASE,
    Runner,
    WorkerProcess,
    hears_cancels,
    lapse,
    marks,
    state_of,
    stored,
    until,
    until_blocking,
)

PLAIN = "iterate"
COROUTINE = "iterate_coroutine"
BOTH = pytest.mark.parametrize("kind", [PLAIN, COROUTINE])


def cursor_of(server: RedisServer, queue: QueueKeys, task_id: str) -> int:
    """The cursor that is stored for the only loop of a task, 0 for none."""
    data: Any = server.client.hget(queue.task(task_id), "taskq_cursor")
    return int(json.loads(data)["/0"][0] or 0) if data else 0


def items_of(server: RedisServer, name: str) -> list[int]:
    """Numbers of the items that a task has begun, in order."""
    return [int(mark.split()[1]) for mark in marks(server, name)]


def attempts_of(server: RedisServer, name: str) -> set[int]:
    return {int(mark.split()[0]) for mark in marks(server, name)}


def repeats(items: list[int]) -> int:
    return len(items) - len(set(items))


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.redis
def test_five_deploys_under_load_repeat_no_item(
    app: TaskQ, redis_server: RedisServer, start_process: Callable[..., WorkerProcess], queue: QueueKeys
) -> None:
    """Items are shorter than the grace, so a stop comes between two of them."""
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
        assert process.wait() == 0, process.said
        process = following
        load += [app.remote("quick").delay(name="load") for _ in range(200)]
    for handle in handles:
        assert handle.result(timeout=60) == "done"
    until_blocking(lambda: len(marks(redis_server, "load")) == len(load))

    for name in names:
        assert items_of(redis_server, name) == list(range(120)), "each item once, in order"
        assert attempts_of(redis_server, name) == {1}, "a stop uses no attempt"
    for handle in handles:
        assert cursor_of(redis_server, queue, handle.id) == 0, "cleared at the end"


@pytest.mark.redis
async def test_an_item_longer_than_the_grace_is_repeated_once_a_stop(app: TaskQ, start: Runner) -> None:
    seen: dict[str, list[tuple[int, int]]] = {PLAIN: [], COROUTINE: []}

    @app.task(name=PLAIN)
    def plain(context: TaskContext) -> str:
        for number in context.iterate(range(4)):
            seen[PLAIN].append((context.attempt, number))
            time.sleep(0.4)
        return "done"

    @app.task(name=COROUTINE)
    async def coroutine(context: TaskContext) -> str:
        async for number in context.iterate(range(4)):
            seen[COROUTINE].append((context.attempt, number))
            await asyncio.sleep(0.4)
        return "done"

    handles = [await plain.adelay(), await coroutine.adelay()]
    stops = 3
    for stop in range(stops):
        worker = await start(shutdown_grace=0.1, interrupt_grace=2)
        await until(lambda stop=stop: all(len(each) > stop for each in seen.values()))
        assert await start.stop(worker) == 0
    await start()
    for handle in handles:
        assert await handle.aresult(timeout=60) == "done"

    for begun in seen.values():
        items = [number for _, number in begun]
        assert set(items) == set(range(4))
        assert items == sorted(items)
        assert 1 <= repeats(items) <= stops
        assert {attempt for attempt, _ in begun} == {1}, "a stop uses no attempt"


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.redis
def test_a_kill_repeats_the_item_in_hand_where_each_is_stored(
    app: TaskQ, redis_server: RedisServer, start_process: Callable[..., WorkerProcess], queue: QueueKeys
) -> None:
    handles = [  # not done before they are killed, however late that is
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
        assert attempts_of(redis_server, kind) == {1, 2, 3}, "a kill uses an attempt, as for any task"


@pytest.mark.redis
def test_a_kill_repeats_nothing_before_the_stored_cursor(
    app: TaskQ, redis_server: RedisServer, start_process: Callable[..., WorkerProcess], queue: QueueKeys
) -> None:
    """Without `every` the cursor is stored in the background, and what came after it is repeated."""
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
def test_a_zombie_does_not_move_the_cursor(
    app: TaskQ, redis_server: RedisServer, start_process: Callable[..., WorkerProcess], queue: QueueKeys
) -> None:
    """A worker that was stopped for longer than its lease stores nothing when it goes on."""
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
    seen: dict[str, list[int]] = {name: [] for name in handles}

    def have_ended() -> bool:
        for name, handle in handles.items():
            cursor = cursor_of(redis_server, queue, handle.id)
            if cursor:
                seen[name].append(cursor)
        if all(len(cursors) > 1 for cursors in seen.values()):
            redis_server.client.set("go", 1)
        return not any(state_of(redis_server, queue, handle.id) == "active" for handle in handles.values())

    until_blocking(have_ended)

    for name, handle in handles.items():
        assert handle.result(timeout=60) == "done"
        assert seen[name] == sorted(seen[name]), "the cursor only moves forward"
        of_other = [int(mark.split()[1]) for mark in marks(redis_server, name) if mark.startswith("2 ")]
        assert of_other == list(range(of_other[0], 200)), "the other worker goes on undisturbed"
        assert of_other[0] > 5
    late = [mark for mark in marks(redis_server, "each")[left_at["each"] :] if mark.startswith("1 ")]
    assert len(late) <= 1, "its next store is refused"


# --- Redis away -------------------------------------------------------------------------------------------------------


@pytest.mark.redis
@pytest.mark.parametrize("every", [None, 1])
@BOTH
async def test_redis_away_for_a_moment_repeats_nothing(
    app: TaskQ, start: Runner, redis_server: RedisServer, kind: str, every: int | None
) -> None:
    seen: list[int] = []

    @app.task(name=PLAIN)
    def plain(context: TaskContext) -> str:
        for number in context.iterate(range(60), every=every):
            seen.append(number)
            time.sleep(0.02)
        return "done"

    @app.task(name=COROUTINE)
    async def coroutine(context: TaskContext) -> str:
        async for number in context.iterate(range(60), every=every):
            seen.append(number)
            await asyncio.sleep(0.02)
        return "done"

    handle = await (plain if kind == PLAIN else coroutine).adelay()
    await start(lease=10)
    await until(lambda: len(seen) > 5)
    redis_server.client.execute_command("CLIENT", "PAUSE", "1200", "ALL")

    assert await handle.aresult(timeout=30) == "done"
    assert seen == list(range(60))


@pytest.mark.redis
async def test_a_run_that_begins_while_redis_is_away_waits_for_its_cursor(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """It never begins anew because it does not know where it was."""
    seen: list[int] = []
    may_go, has_begun = threading.Event(), threading.Event()

    @app.task(name="go", retry_delay=0)
    def go(context: TaskContext) -> str:
        if context.attempt == 2:
            has_begun.set()
            may_go.wait(60)
        for number in context.iterate(range(6)):
            seen.append(number)
            if seen == [0, 1, 2]:
                raise ValueError
        return "done"

    handle = await go.adelay()
    await start(lease=10)
    await until(has_begun.is_set)
    redis_server.client.execute_command("CLIENT", "PAUSE", "800", "ALL")
    may_go.set()

    assert await handle.aresult(timeout=30) == "done"
    assert seen == [0, 1, 2, 2, 3, 4, 5]


# --- told to end ------------------------------------------------------------------------------------------------------


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
            time.sleep(0.005)

    @app.task(name=COROUTINE)
    async def coroutine(context: TaskContext) -> None:
        async for number in context.iterate(range(10_000)):
            seen.append(number)
            await asyncio.sleep(0.005)

    handle = await (plain if kind == PLAIN else coroutine).adelay()
    await start()
    await until(lambda: len(seen) > 20 and hears_cancels(redis_server))
    assert await handle.acancel()
    await until(lambda: state_of(redis_server, queue, handle.id) == "archived")

    # The item in hand was not gone through; there is none where it was cancelled on the way to the next one.
    assert cursor_of(redis_server, queue, handle.id) in (len(seen) - 1, len(seen))


@pytest.mark.redis
async def test_a_run_past_its_timeout_fails_and_the_next_goes_on(app: TaskQ, start: Runner) -> None:
    seen: list[int] = []

    @app.task(name="go", timeout=1, retry_delay=0, max_retry=20)
    async def go(context: TaskContext) -> str:
        async for number in context.iterate(range(6)):
            seen.append(number)
            await asyncio.sleep(0.3)
        return "done"

    handle = await go.adelay()
    await start()

    assert await handle.aresult(timeout=30) == "done"
    info = await handle.arefresh()
    assert info.retried >= 1
    assert repeats(seen) <= info.retried, "the item in hand, once a timeout; there is none between two items"
    assert sorted(set(seen)) == list(range(6))


@pytest.mark.redis
async def test_a_slot_is_given_back_in_time_for_others(app: TaskQ, start: Runner) -> None:
    order: list[Any] = []

    @app.task(name="long")
    async def long(context: TaskContext) -> str:
        async for number in context.iterate(range(4), for_at_most=0.1):
            order.append(number)
            await asyncio.sleep(0.06)
        return "done"

    @app.task(name="other")
    async def other() -> None:
        order.append("other")

    handle = await long.adelay()
    await other.adelay()
    await start(concurrency=1)

    assert await handle.aresult(timeout=30) == "done"
    assert [each for each in order if each != "other"] == list(range(4))
    assert 1 <= order.index("other") <= 2
    assert (await handle.arefresh()).retried == 0


@pytest.mark.redis
async def test_an_item_of_a_stopped_worker_is_what_is_seen_from_inside(app: TaskQ, start: Runner) -> None:
    """`is_stopping` tells a task that wants to stop by itself."""
    told: list[bool] = []
    going_on = threading.Event()

    @app.task(name="go")
    def go(context: TaskContext) -> None:
        told.append(context.is_stopping)
        going_on.wait(60)
        told.append(context.is_stopping)

    await go.adelay()
    worker = await start()
    await until(lambda: told)
    worker.stop()
    await until(lambda: worker.status == "stopped")
    going_on.set()
    assert await start.ending(worker) == 0

    assert told == [False, True]


# --- progress ---------------------------------------------------------------------------------------------------------


def noted(worker: Worker) -> list[Operation[Any]]:
    """Notes that a worker sends from now on."""
    sent: list[Operation[Any]] = []
    run = worker._runner.run

    async def watched(operation: Operation[Any], **options: Any) -> Any:
        if operation.name == "note":
            sent.append(operation)
        return await run(operation, **options)

    worker._runner.run = watched  # type: ignore[method-assign]  # what is sent is counted
    return sent


@pytest.mark.redis
async def test_progress_is_throttled_and_its_last_value_stored(app: TaskQ, start: Runner) -> None:
    begun = 0.0

    @app.task(name="go")
    def go(context: TaskContext) -> str:
        nonlocal begun
        begun = time.monotonic()
        for number in range(30_000):
            context.progress(number, 30_000, f"at {number}")
        return "done"

    worker = await start()
    sent = noted(worker)
    handle = await go.adelay()

    assert await handle.aresult(timeout=60) == "done"
    assert 1 <= len(sent) <= 3 + (time.monotonic() - begun)
    progress = (await handle.arefresh()).progress
    assert progress is not None
    assert (progress.done, progress.total, progress.message) == (29_999, 30_000, "at 29999")
    assert (await handle.arefresh()).result == b'"done"', "it is no result"


@pytest.mark.redis
async def test_the_last_progress_before_a_long_silence_is_stored(app: TaskQ, start: Runner) -> None:
    """Also the second value within the time of a throttled write."""
    silent = asyncio.Event()

    @app.task(name="go")
    async def go(context: TaskContext) -> None:
        context.progress(1)
        await asyncio.sleep(0.05)
        context.progress(2)
        await silent.wait()

    handle = await go.adelay()
    await start()

    async def is_told() -> bool:
        progress = (await handle.arefresh()).progress
        return progress is not None and progress.done == 2

    await until(is_told)
    assert (await handle.arefresh()).state is TaskState.ACTIVE
    silent.set()
    await handle.aresult(timeout=20)


@pytest.mark.redis
async def test_progress_waits_for_nothing_while_redis_is_away(start: Runner) -> None:
    """The function is through before Redis answers anybody."""
    told = threading.Event()
    may_go, has_begun = threading.Event(), threading.Event()

    with RedisServer() as server:
        app = TaskQ(server.url, defaults={"retention": 600}, enqueue_timeout=60)

        @app.task(name="go")
        def go(context: TaskContext) -> str:
            has_begun.set()
            may_go.wait(60)
            for number in range(1_000):
                context.progress(number)
            told.set()
            return "done"

        handle = await go.adelay()
        worker = await start(app=app, lease=180)
        await until(has_begun.is_set)
        server.pause()
        try:
            may_go.set()
            await until(told.is_set)
        finally:
            server.resume()

        assert await handle.aresult(timeout=60) == "done"
        progress = (await handle.arefresh()).progress
        await start.stop(worker)
        await app.aclose()

    assert progress is not None
    assert progress.done == 999


@pytest.mark.redis
async def test_notes_of_a_worker_that_lost_the_task_are_refused(
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
    assert b"taskq_cursor" not in fields
    assert stored(redis_server, queue, handle.id).retried == 0
