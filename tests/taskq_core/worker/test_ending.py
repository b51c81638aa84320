"""Test functions that must end early: timeouts, deadlines, cancellation, and functions that ignore it."""

import asyncio
import contextlib
import gc
import logging
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import TaskFailedError, TaskQ
from taskq_core.clock import utc_datetime
from taskq_core.errors import TaskInterrupted
from taskq_core.wire import QueueKeys, build_message
from taskq_core.worker import Worker, WorkerConfig, executor, threads
from taskq_core.worker.run import Ending, Run
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    PATIENCE_S,
    Ends,
    Runner,
    push_raw,
    receives_cancels,
    state_of,
    stored,
    until,
    until_blocking,
    until_released,
)


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
@pytest.mark.parametrize("limit", ["timeout", "deadline"])
async def test_a_run_is_interrupted_at_its_timeout(
    app: TaskQ, start: Runner, clock: Clock, kind: str, limit: str
) -> None:
    """The function is interrupted and can clean up. The stored error has the same text as in Go."""
    cleaned: list[str] = []

    @app.task(name="slow", max_retry=0)
    async def coroutine() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cleaned.append("coroutine")
            raise

    @app.task(name="slow2", max_retry=0)
    def plain() -> None:
        try:
            until_released()
        except TaskInterrupted:
            cleaned.append("plain")
            raise

    worker = await start()
    options: dict[str, Any] = (
        {"timeout": 60} if limit == "timeout" else {"deadline": datetime.now(UTC) + timedelta(seconds=60)}
    )
    handle = await (coroutine if kind == "coroutine" else plain).using(**options).adelay()
    await until(lambda: worker.running_count == 1)
    await clock.advance(30)
    assert cleaned == []
    await clock.advance(31)

    with pytest.raises(TaskFailedError, match="context deadline exceeded"):
        await handle.aresult(PATIENCE_S)
    assert cleaned == [kind]


async def test_a_task_past_its_deadline_is_not_started(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The task fails with the error of its deadline."""
    runs = []

    @app.task(name="late")
    async def late() -> None:
        runs.append(1)

    await start()
    message = build_message(type="late", payload=b"{}", id="x", queue="default", retry=0, deadline=int(time.time()) - 5)
    push_raw(redis_server, queue, "x", message.SerializeToString())
    await until(lambda: state_of(redis_server, queue, "x") == "archived")

    assert stored(redis_server, queue, "x").error_msg == "context deadline exceeded"
    assert runs == []


def test_a_task_past_its_deadline_is_never_reported_as_stuck(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds for any order of the task's end and the check of deadlines on the worker's loop."""

    @app.task(name="late")
    async def late() -> None: ...

    for number in range(20):
        task_id = f"id-{number}"
        message = build_message(type="late", payload=b"{}", id=task_id, queue="default", retry=0, deadline=1)
        push_raw(redis_server, queue, task_id, message.SerializeToString())

    assert Worker(app, WorkerConfig(burst=True)).run() == 0

    assert redis_server.client.zcard(queue.archived) == 20
    assert "still runs" not in caplog.text


async def test_the_earlier_of_timeout_and_deadline_ends_a_run(app: TaskQ, start: Runner, clock: Clock) -> None:

    @app.task(name="slow", max_retry=0)
    async def slow() -> None:
        await asyncio.Event().wait()

    worker = await start()
    for timeout, until_s in ((30, 3600), (3600, 30)):
        deadline = utc_datetime(clock.time() + until_s)
        handle = await slow.using(timeout=timeout, deadline=deadline).adelay()
        await until(lambda: worker.running_count == 1)
        await clock.advance(31)

        with pytest.raises(TaskFailedError, match="context deadline exceeded"):
            await handle.aresult(PATIENCE_S)


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_cancelled_run_is_archived_and_not_retried(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, kind: str
) -> None:
    """A cancelled task is not retried without the user's knowledge."""

    @app.task(max_retry=5)
    async def coroutine() -> None:
        await asyncio.Event().wait()

    @app.task(max_retry=5)
    def plain() -> None:
        until_released()

    worker = await start()
    handle = await (coroutine if kind == "coroutine" else plain).adelay()
    await until(lambda: worker.running_count == 1)
    await until(lambda: receives_cancels(redis_server))

    assert await handle.acancel()

    with pytest.raises(TaskFailedError, match="context canceled"):
        await handle.aresult(PATIENCE_S)
    assert stored(redis_server, queue, handle.id).retried == 0
    assert redis_server.client.zcard(queue.retry) == 0


async def test_a_waiting_task_is_cancelled_without_a_worker(app: TaskQ, redis_server: RedisServer) -> None:
    """A waiting task is deleted. A task that has ended cannot be cancelled."""

    @app.task
    def never() -> None: ...

    handle = await never.adelay()

    assert await handle.acancel()
    assert not await handle.acancel()
    await app.aclose()


async def test_forged_cancel_messages_are_ignored(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """A hundred thousand messages that name nothing, or nothing sensible, harm no running task."""
    release = asyncio.Event()

    @app.task
    async def hold() -> str:
        await release.wait()
        return "done"

    ends = Ends()
    worker = await start(listener=ends)
    handle = await hold.adelay()
    await until(lambda: worker.running_count == 1)
    await until(lambda: receives_cancels(redis_server))
    forged = [b"forged", b"\xff\xfe", b"", b"*", handle.id[:-1].encode()]
    received: list[int] = []
    for _ in range(10):
        pipeline = redis_server.client.pipeline(transaction=False)
        for number in range(10_000):
            pipeline.publish("asynq:cancel", forged[number % 5])
        received += await asyncio.to_thread(pipeline.execute)
    # Messages arrive in order: once a real cancel has ended a second task, all forged messages have arrived.
    other = await hold.adelay()
    await until(lambda: worker.running_count == 2)
    await other.acancel()
    await until(lambda: ends.of(other.id))
    release.set()

    assert set(received) == {1}
    assert await handle.aresult(PATIENCE_S) == "done"
    assert ends.of(handle.id) == ["completed"]
    assert ends.of(other.id) == ["archived"]


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_function_that_ignores_its_timeout_releases_its_slot(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """Its run fails, the next task runs at the same time, and its later return value is ignored."""
    stuck: list[tuple[str, str]] = []
    closed: list[threading.Thread] = []
    monkeypatch.setattr(app.bridge, "close_thread", lambda: closed.append(threading.current_thread()))
    releases, ended = (asyncio.Event(), threading.Event()), threading.Event()

    @app.task(timeout=30, max_retry=0)
    async def coroutine() -> str:
        while not releases[0].is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await releases[0].wait()
        ended.set()
        return "late"

    @app.task(timeout=30, max_retry=0)
    def plain() -> str:
        with contextlib.suppress(TaskInterrupted):
            releases[1].wait(60)  # one call into C
        ended.set()
        return "late"

    @app.task
    def other() -> str:
        return "ran"

    worker = await start(concurrency=1)
    monkeypatch.setattr(worker._context.metrics, "stuck", lambda *labels: stuck.append(labels))
    deaf = coroutine if kind == "coroutine" else plain
    handle = await deaf.adelay()
    await until(lambda: worker.running_count == 1)
    waiting = await other.adelay()
    await clock.advance(30 + executor.STUCK_S / 2)
    assert state_of(redis_server, queue, handle.id) == "active"
    assert state_of(redis_server, queue, waiting.id) == "pending"
    await clock.advance(executor.STUCK_S / 2 + 1)

    assert await waiting.aresult(PATIENCE_S) == "ran"
    with pytest.raises(TaskFailedError, match="context deadline exceeded"):
        await handle.aresult(PATIENCE_S)
    assert not ended.is_set()
    assert stuck == [("default", deaf.name)]
    assert f"task {deaf.name} still runs 10 s after it was interrupted (context deadline exceeded)" in caplog.text
    (record,) = [each for each in caplog.records if "still runs" in each.getMessage()]
    assert "\n" not in record.getMessage()
    assert kind == "coroutine" or "releases[1].wait(60)" in str(record.stack_info), "the log says where it is"
    for release in releases:
        release.set()
    await until(lambda: worker._executor.abandoned == 0)
    assert len(closed) == (kind == "plain"), "database connections of its thread do not outlive it"
    assert stored(redis_server, queue, handle.id).error_msg == "context deadline exceeded"
    assert worker._fetcher.free == 1


async def test_a_worker_asks_for_its_replacement_when_all_slots_have_abandoned_functions(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """Such a task keeps its slot. The worker stops on request, without waiting for these tasks."""
    asked: list[int] = []
    release = threading.Event()

    @app.task(timeout=30, max_retry=0)
    def deaf() -> None:
        release.wait(60)

    worker = await start(concurrency=2)
    worker.on_exhausted = lambda problem: asked.append(worker._executor.abandoned)
    handles = [await deaf.adelay() for _ in range(3)]
    await until(lambda: worker.running_count == 2)
    await clock.advance(2 * (31 + executor.STUCK_S))
    await until(lambda: worker.running_count == 1)

    assert asked[0] == 2
    assert [state_of(redis_server, queue, handle.id) for handle in handles].count("archived") == 2
    worker.retire()
    await clock.advance(5)
    assert await start.ending(worker) == 0
    assert worker.has_retired
    assert [state_of(redis_server, queue, handle.id) for handle in handles].count("archived") == 3
    release.set()


async def test_a_run_that_ignores_its_cancellation_is_reported_before_its_timeout(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck: list[tuple[str, str]] = []
    release = asyncio.Event()

    @app.task(timeout=3600)
    async def deaf() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    worker = await start(concurrency=1)
    monkeypatch.setattr(worker._context.metrics, "stuck", lambda *labels: stuck.append(labels))
    handle = await deaf.adelay()
    await until(lambda: worker.running_count == 1)
    await until(lambda: receives_cancels(redis_server))
    await handle.acancel()
    await until(lambda: worker.runs[0].ending)

    await clock.advance(executor.STUCK_S + 1)
    assert stuck == [("default", deaf.name)]
    release.set()
    with pytest.raises(TaskFailedError, match="context canceled"):
        await handle.aresult(PATIENCE_S)


async def test_a_plain_function_that_swallows_an_interrupt_is_interrupted_again(
    app: TaskQ, start: Runner, clock: Clock
) -> None:
    swallowed: list[int] = []

    @app.task(timeout=30, max_retry=0, retention=600)
    def stubborn() -> None:
        for number in range(2):
            try:
                until_released()
            except TaskInterrupted:
                swallowed.append(number)

    worker = await start(concurrency=1)
    handle = await stubborn.adelay()
    await until(lambda: worker.running_count == 1)
    await clock.advance(31)
    await until(lambda: swallowed)
    await clock.advance(executor.STUCK_S + 1)

    with pytest.raises(TaskFailedError, match="context deadline exceeded"):
        await handle.aresult(PATIENCE_S)
    assert swallowed == [0, 1]


async def test_a_coroutine_cancelled_before_its_first_step_releases_its_slot(app: TaskQ, start: Runner) -> None:
    """Even a coroutine cancelled at once is reported, so its slot is released."""

    @app.task(max_retry=0)
    async def hold() -> None:
        await asyncio.Event().wait()

    worker = await start(concurrency=1)
    started = worker._executor.start

    def start_and_end(run: Any, now: float) -> None:
        started(run, now)
        worker._executor.end(run, Ending.CANCELLED)

    worker._starts._start_now = start_and_end
    handle = await hold.adelay()

    with pytest.raises(TaskFailedError, match="context canceled"):
        await handle.aresult(PATIENCE_S)
    await until(lambda: worker._fetcher.free == 1)


async def test_a_plain_function_cancelled_before_its_thread_starts_does_not_run(app: TaskQ, start: Runner) -> None:
    """A run that waits for a thread cannot be interrupted yet; it ends as soon as it gets one."""
    runs: list[int] = []

    @app.task(max_retry=0)
    def work() -> None:
        runs.append(1)
        until_released()

    worker = await start(concurrency=1)
    submit = worker._executor._threads.submit

    def end_and_submit(run: Run) -> None:
        worker._executor.end(run, Ending.CANCELLED)
        submit(run)

    worker._executor._threads.submit = end_and_submit  # type: ignore[method-assign]  # makes the race certain
    handle = await work.adelay()

    with pytest.raises(TaskFailedError, match="context canceled"):
        await handle.aresult(PATIENCE_S)
    assert runs == []


@pytest.mark.slow
async def test_many_timeouts_interrupt_only_their_own_tasks(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    """Interrupts that race the ends of short functions never reach the next task on the thread.

    A function that was not interrupted never sees an interrupt, and every function ends.
    """
    count = 600
    stray: list[str] = []
    ran: list[int] = []

    @app.task(max_retry=0, retention=0)
    def victim(number: int) -> None:
        for _ in range(number % 10):
            time.sleep(0)  # gives way to the thread that interrupts

    @app.task(max_retry=0, retention=0)
    def bystander(number: int) -> None:
        try:
            for _ in range(200):
                pass
            ran.append(number)
        except BaseException as error:
            stray.append(type(error).__name__)
            raise

    ends = Ends()
    worker = await start(concurrency=4, listener=ends, lease=30, heartbeat=10)  # the storm starves the keepalive too
    pool = worker._executor._threads
    # A separate thread sends the interrupts, so that they hit the functions and the gaps between them.
    done = threading.Event()
    interrupts = 0

    def interrupt() -> None:
        nonlocal interrupts
        while not done.is_set():
            for run in list(worker._context.running.values()):
                if run.thread is not None and run.name.endswith("victim") and run.ending is None:
                    run.ending = Ending.TIMEOUT
                    interrupts += pool.interrupt(run)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places all the time, so that every moment is met
    gc.disable()  # callbacks of the garbage collector, such as hypothesis's, swallow an interrupt that hits them
    try:
        calls = (task.s(number) for number in range(count) for task in (victim, bystander))
        await app.async_client.enqueue_many(calls)
        await until(lambda: len(ends.ends) == 2 * count)
    finally:
        gc.enable()
        sys.setswitchinterval(interval_s)
        done.set()
        interrupter.join()

    assert stray == []
    assert sorted(ran) == list(range(count))
    assert interrupts > 0
    assert {outcome for _, outcome in ends.ends} <= {"completed", "archived"}
    await until(lambda: worker.running_count == 0)
    unexpected = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert [text for text in unexpected if not text.endswith(" state=archived")] == []


@pytest.mark.parametrize("returns", [True, False], ids=["returns", "raises"])
async def test_a_late_interrupt_does_not_reach_the_next_task(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    """A function that ends while it is being interrupted keeps its thread busy until that is over.

    The next task on the thread starts afterwards and sees nothing of it.
    """
    begun, may_end, next_started = (threading.Event() for _ in range(3))
    overtaken: list[bool] = []
    raise_in_thread = threads.raise_in_thread

    places: list[tuple[str, int]] = []

    def is_held() -> bool:
        """Return whether the first function's thread was seen twenty times at the same place after the function."""
        frame = sys._current_frames()[thread.ident]
        places.append((frame.f_code.co_name, frame.f_lasti))
        return places[-20:] == [("_perform", frame.f_lasti)] * 20

    def late(ident: int, error: Any) -> int:
        may_end.set()
        until_blocking(lambda: next_started.is_set() or is_held(), "the function has ended")
        overtaken.append(next_started.is_set())
        raised: int = raise_in_thread(ident, error)
        return raised

    monkeypatch.setattr(threads, "raise_in_thread", late)

    @app.task(max_retry=0)
    def first() -> str:
        begun.set()
        may_end.wait(60)
        if returns:
            return "done"
        raise ValueError("done")

    @app.task
    def second() -> str:
        next_started.set()
        for _ in range(1000):
            pass
        return "unharmed"

    ends = Ends()
    worker = await start(concurrency=1, listener=ends)
    interrupted = await first.adelay()
    await until(begun.is_set)
    (run,) = worker._context.running.values()
    thread: Any = run.thread
    following = await second.adelay()
    run.ending = Ending.TIMEOUT
    was_interrupted = await asyncio.to_thread(worker._executor._threads.interrupt, run)

    assert was_interrupted
    assert await following.aresult(PATIENCE_S) == "unharmed"
    assert overtaken == [False]
    assert ends.of(interrupted.id) == ["archived"]


async def test_an_interrupt_while_an_error_is_handled_keeps_the_thread_usable(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends, and the thread runs the next task."""
    is_noted, is_interrupted = threading.Event(), threading.Event()

    def clear_frames(traceback: Any) -> None:
        is_noted.set()
        is_interrupted.wait(60)
        for _ in range(1000):  # until it is raised
            pass

    monkeypatch.setattr(threads.traceback, "clear_frames", clear_frames)

    @app.task(max_retry=0)
    def first() -> None:
        raise MemoryError

    @app.task
    def second() -> str:
        return "unharmed"

    ends = Ends()
    worker = await start(concurrency=1, listener=ends)
    interrupted = await first.adelay()
    await until(is_noted.is_set)
    (run,) = worker._context.running.values()
    worker._executor.end(run, Ending.TIMEOUT)
    is_interrupted.set()

    assert await (await second.adelay()).aresult(PATIENCE_S) == "unharmed"
    assert ends.of(interrupted.id) == ["archived"]


async def test_a_new_run_of_a_lost_task_is_not_settled_by_the_old_run(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The task was recovered from this worker, which fetched it again. Its old run cannot settle it."""
    releases = [threading.Event(), threading.Event()]
    runs: list[int] = []

    @app.task
    def hold() -> str:
        number = len(runs)
        runs.append(number)
        releases[number].wait(60)
        return f"run {number}"

    ends = Ends()
    worker = await start(concurrency=2, listener=ends)
    handle = await hold.adelay()
    await until(lambda: len(runs) == 1)
    # As recovery leaves it: off active and lease, pending again.
    pipeline = redis_server.client.pipeline(transaction=True)
    pipeline.lrem(queue.active, 0, handle.id)
    pipeline.zrem(queue.lease, handle.id)
    pipeline.hset(queue.task(handle.id), "state", "pending")
    pipeline.hdel(queue.task(handle.id), "taskq_owner")
    pipeline.lpush(queue.pending, handle.id)
    pipeline.lpush(queue.wake, "1")
    pipeline.execute()
    await until(lambda: len(runs) == 2)
    releases[0].set()
    await until(lambda: ends.of(handle.id) == ["lost"])

    assert state_of(redis_server, queue, handle.id) == "active"
    assert worker.running_count == 1
    releases[1].set()
    assert await handle.aresult(PATIENCE_S) == "run 1"
    await until(lambda: worker._fetcher.free == 2)


async def test_a_worker_that_is_retired_before_its_start_fetches_no_task(app: TaskQ) -> None:
    worker = Worker(app, WorkerConfig(with_scheduler=False))

    worker.retire()

    assert await worker.arun() == 0
    assert worker.has_retired


async def test_a_worker_that_is_retired_again_waits_once(
    app: TaskQ, start: Runner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call without a free thread calls `retire`."""
    may_end = asyncio.Event()

    @app.task
    async def work() -> None:
        await may_end.wait()

    worker = await start()
    await work.adelay()
    await until(lambda: worker.running_count == 1)
    pauses: list[None] = []
    monkeypatch.setattr(worker, "pause", lambda: pauses.append(None))
    for _ in range(5):
        worker.retire()
    await clock.settle()

    assert len(pauses) == 1
    may_end.set()
    await clock.advance(1)
    assert worker.has_retired
