"""Test error handlers: the errors that they get, their order, and their isolation from other tasks."""

import asyncio
import functools
import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import (
    Discard,
    LeaseLostError,
    RawTask,
    ResultValueError,
    Retry,
    SkipRetry,
    Snooze,
    TaskCancelledError,
    TaskContext,
    TaskQ,
    UnknownTaskError,
    current_task,
)
from taskq_core.wire import QueueKeys
from taskq_core.worker import reporter
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, receives_cancels, state_of, until, until_released


class ReportedErrors:
    """A plain or coroutine error handler that records its calls."""

    def __init__(self, app: TaskQ, kind: str) -> None:
        self.errors: list[BaseException] = []
        self.contexts: list[tuple[str, int, str | None]] = []
        self.threads: list[threading.Thread] = []
        if kind == "coroutine":

            @app.on_error
            async def tell_async(error: BaseException, context: TaskContext) -> None:
                await asyncio.sleep(0)
                self.note(error, context)

        else:

            @app.on_error
            def tell(error: BaseException, context: TaskContext) -> None:
                self.note(error, context)

    def note(self, error: BaseException, context: TaskContext) -> None:
        assert current_task() is context
        self.threads.append(threading.current_thread())
        self.contexts.append((context.id, context.attempt, context.outcome))
        self.errors.append(error)


@pytest.fixture(params=["coroutine", "plain"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reported(app: TaskQ, request: pytest.FixtureRequest) -> ReportedErrors:
    """A handler of the kind that the test asks for, a coroutine if it does not ask."""
    return ReportedErrors(app, request.getfixturevalue("kind") if "kind" in request.fixturenames else "coroutine")


async def test_error_handlers_receive_every_failure(
    app: TaskQ, start: Runner, reported: ReportedErrors, kind: str
) -> None:
    """Handlers get the error and the outcome of the run."""

    @app.task(max_retry=1, retry_delay=0)
    async def coroutine() -> None:
        raise ValueError("async")

    @app.task(max_retry=1, retry_delay=0)
    def plain() -> None:
        raise KeyError("plain")

    await start()
    handles = [await coroutine.adelay(), await plain.adelay()]
    await until(lambda: len(reported.errors) == 4)

    expected = {(handle.id, attempt, end) for handle in handles for attempt, end in ((1, "retried"), (2, "archived"))}
    assert set(reported.contexts) == expected
    assert sorted(repr(error) for error in reported.errors) == ["KeyError('plain')"] * 2 + ["ValueError('async')"] * 2
    assert all((each is threading.current_thread()) is (kind == "coroutine") for each in reported.threads)


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [(SkipRetry("obsolete"), "archived"), (Retry(after=60), "retried"), (SystemExit(3), "retried")],
    ids=repr,
)
async def test_error_handlers_receive_control_exceptions_that_fail_the_run(
    app: TaskQ, start: Runner, reported: ReportedErrors, raised: BaseException, outcome: str
) -> None:
    @app.task
    async def task() -> None:
        raise raised

    await start()
    handle = await task.adelay()
    await until(lambda: reported.errors)

    assert reported.errors == [raised]
    assert reported.contexts == [(handle.id, 1, outcome)]


async def test_error_handlers_do_not_receive_successes_and_snoozes(
    app: TaskQ, start: Runner, reported: ReportedErrors
) -> None:
    """A task that raises `Snooze` or `Discard` has not failed."""

    @app.task
    async def snooze() -> None:
        raise Snooze(after=60)

    @app.task
    async def discard() -> None:
        raise Discard

    @app.task
    async def fine() -> None: ...

    @app.task
    async def fail() -> None:
        raise ValueError

    ends = Ends()
    await start(listener=ends, concurrency=1)
    for task in (snooze, discard, fine, fail):
        await task.adelay()
    await until(lambda: reported.errors)

    assert [type(error) for error in reported.errors] == [ValueError]
    assert [outcome for _, outcome in ends.ends] == ["snoozed", "discarded", "completed", "retried"]


async def test_error_handlers_receive_errors_that_do_not_count_as_failures(
    app: TaskQ, start: Runner, reported: ReportedErrors, caplog: pytest.LogCaptureFixture
) -> None:
    """Such errors are logged too, unlike a snooze."""

    @app.task(is_failure=lambda error: False)
    async def task() -> None:
        raise ConnectionError

    await start()
    handle = await task.adelay()
    await until(lambda: reported.errors)

    assert reported.contexts == [(handle.id, 1, "snoozed")]
    (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert re.fullmatch(
        r"task failed, without using an attempt: name=.* attempt=1/4 error=ConnectionError .* next_retry=.*s",
        record.getMessage(),
    )


async def test_error_handlers_receive_timeouts(
    app: TaskQ, start: Runner, reported: ReportedErrors, clock: Clock
) -> None:
    """Handlers get a `TimeoutError` from plain functions and coroutines."""

    @app.task(timeout=30, max_retry=0)
    async def coroutine() -> None:
        await asyncio.Event().wait()

    @app.task(timeout=30, max_retry=0)
    def plain() -> None:
        until_released()

    worker = await start()
    handles = [await coroutine.adelay(), await plain.adelay()]
    await until(lambda: worker.running_count == 2)
    await clock.advance(31)
    await until(lambda: len(reported.errors) == 2)

    assert [type(error) for error in reported.errors] == [TimeoutError, TimeoutError]
    assert {each[::2] for each in reported.contexts} == {(handle.id, "archived") for handle in handles}


async def test_error_handlers_receive_cancellations(
    app: TaskQ, start: Runner, reported: ReportedErrors, redis_server: RedisServer
) -> None:
    """The exception of the function is the cause of the cancellation."""

    @app.task
    async def task() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("cleaned up") from None

    worker = await start()
    handle = await task.adelay()
    await until(lambda: worker.running_count == 1)
    await until(lambda: receives_cancels(redis_server))
    await handle.acancel()
    await until(lambda: reported.errors)

    (error,) = reported.errors
    assert isinstance(error, TaskCancelledError)
    assert (error.queue, error.task_id) == ("default", handle.id)
    assert repr(error.__cause__) == "RuntimeError('cleaned up')"
    assert reported.contexts == [(handle.id, 1, "archived")]


@pytest.mark.parametrize("end", ["raised", "swallowed"])
async def test_error_handlers_receive_lost_leases(
    app: TaskQ,
    start: Runner,
    reported: ReportedErrors,
    redis_server: RedisServer,
    queue: QueueKeys,
    clock: Clock,
    end: str,
) -> None:
    """This holds however the function reacted to the interrupt."""

    @app.task
    async def task() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if end == "raised":
                raise
        return "done"

    worker = await start()
    handle = await task.adelay()
    await until(lambda: worker.running_count == 1)
    redis_server.client.hset(queue.task(handle.id), "taskq_owner", "another:1")
    await clock.advance(worker.config.span("heartbeat") + 1)
    await until(lambda: reported.errors)

    (error,) = reported.errors
    assert isinstance(error, LeaseLostError)
    assert (error.queue, error.task_id) == ("default", handle.id)
    assert reported.contexts == [(handle.id, 1, "lost")]
    await until(lambda: worker._fetcher.free == 10)


async def test_error_handlers_receive_refused_settlements(
    app: TaskQ, start: Runner, reported: ReportedErrors, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The lease was lost, and the worker had not noticed it before the function ended."""

    @app.task
    async def task(fails: bool) -> None:
        redis_server.client.hset(queue.task(current_task().id), "taskq_owner", "another:1")
        if fails:
            raise ValueError

    worker = await start()
    fine = await task.adelay(False)
    failing = await task.adelay(True)
    await until(lambda: len(reported.errors) == 2)
    await until(lambda: worker._fetcher.free == 10)

    outcomes = {task_id: outcome for task_id, _, outcome in reported.contexts}
    assert outcomes == {fine.id: "lost", failing.id: "retried"}
    assert {type(error) for error in reported.errors} == {LeaseLostError, ValueError}


async def test_error_handlers_receive_failures_before_and_after_the_run(
    app: TaskQ, start: Runner, reported: ReportedErrors
) -> None:
    """Handlers get unknown types, payloads that do not fit, and results without JSON form."""

    @app.task(name="typed")
    def typed(number: int) -> Any:
        return object()

    await start(unknown_task_timeout=0)
    await app.remote("unknown").adelay()
    await app.remote("typed").adelay(number="text")
    await app.remote("typed", retention=60).adelay(number=1)
    await until(lambda: len(reported.errors) == 3)

    assert {type(error) for error in reported.errors} >= {UnknownTaskError, ResultValueError}
    assert {outcome for _, _, outcome in reported.contexts} == {"archived"}


async def test_error_handlers_do_not_receive_requeued_tasks(
    app: TaskQ, start: Runner, reported: ReportedErrors, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A stopping worker does not make its tasks fail."""

    @app.task
    async def task() -> None:
        await asyncio.Event().wait()

    worker = await start(shutdown_grace=0)
    handle = await task.adelay()
    await until(lambda: worker.running_count == 1)
    await start.stop(worker)

    assert state_of(redis_server, queue, handle.id) == "pending"
    assert reported.errors == []


async def test_error_handlers_run_in_order_and_may_fail(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler may even raise `SystemExit`."""
    notes: list[str] = []

    def broken(name: str, error: BaseException) -> Callable[..., None]:
        def handle(_: BaseException, context: TaskContext) -> None:
            notes.append(name)
            raise error

        return handle

    app.on_error(broken("first", RuntimeError("broken handler")))

    @app.on_error
    async def second(error: BaseException, context: TaskContext) -> None:
        notes.append("second")
        raise SystemExit(4)

    app.on_error(broken("third", StopIteration()))

    @app.on_error
    async def fourth(error: BaseException, context: TaskContext) -> None:
        notes.append("fourth")
        raise asyncio.CancelledError

    app.on_error(lambda error, context: notes.append("last"))

    @app.task(max_retry=0)
    def fail() -> None:
        raise ValueError("x")

    @app.task
    def fine() -> str:
        return "fine"

    worker = await start(concurrency=1)
    handle = await fail.adelay()
    with caplog.at_level(logging.ERROR):
        await until(lambda: notes[-1:] == ["last"])

    assert notes == ["first", "second", "third", "fourth", "last"]
    records = [each for each in caplog.records if "error handler" in each.getMessage()]
    assert [vars(each)["task_id"] for each in records] == [handle.id] * 4
    assert "broken handler" in caplog.text
    assert await (await fine.adelay()).aresult(PATIENCE_S) == "fine"
    await until(lambda: worker._fetcher.free == 1)


async def test_a_slow_error_handler_delays_the_slot_but_not_the_settlement(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, kind: str
) -> None:
    """A worker never has more failures to report than slots, and no task waits for a handler."""
    release = threading.Event()
    begun: list[str] = []

    def hold(error: BaseException, context: TaskContext) -> None:
        begun.append(context.id)
        release.wait(PATIENCE_S)

    async def hold_async(error: BaseException, context: TaskContext) -> None:
        begun.append(context.id)
        await until(release.is_set)

    app.on_error(hold_async if kind == "coroutine" else hold)

    @app.task(max_retry=0)
    async def fail() -> None:
        raise ValueError

    worker = await start(concurrency=2)
    handles = [await fail.adelay() for _ in range(3)]
    await until(lambda: redis_server.client.zcard(queue.archived) == 2)
    await until(lambda: len(begun) == 2)

    assert worker._fetcher.free == 0
    assert state_of(redis_server, queue, handles[2].id) == "pending"
    release.set()
    await until(lambda: redis_server.client.zcard(queue.archived) == 3)
    await until(lambda: worker._fetcher.free == 2)
    assert sorted(begun) == sorted(each.id for each in handles)


async def test_a_stopping_worker_waits_for_its_error_handlers(app: TaskQ, start: Runner, kind: str) -> None:
    """The worker waits at most for the grace."""
    ended: list[int] = []
    begun, release = threading.Event(), threading.Event()

    def slow(error: BaseException, context: TaskContext) -> None:
        begun.set()
        release.wait(PATIENCE_S)
        ended.append(1)

    async def slow_async(error: BaseException, context: TaskContext) -> None:
        begun.set()
        await until(release.is_set)
        ended.append(1)

    app.on_error(slow_async if kind == "coroutine" else slow)

    @app.task
    async def fail() -> None:
        raise ValueError

    worker = await start()
    await fail.adelay()
    await until(begun.is_set)
    worker.stop()
    await until(lambda: worker.status == "stopped")
    release.set()

    assert await start.ending(worker) == 0
    assert ended == [1]


async def test_a_hanging_error_handler_does_not_block_the_shutdown(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock, kind: str
) -> None:
    """The outcome of its task has long been stored."""
    release = threading.Event()
    begun = threading.Event()

    def hang(error: BaseException, context: TaskContext) -> None:
        begun.set()
        release.wait(60)

    async def hang_async(error: BaseException, context: TaskContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    app.on_error(hang_async if kind == "coroutine" else hang)

    @app.task(max_retry=0)
    async def fail() -> None:
        raise ValueError

    worker = await start(shutdown_grace=0, interrupt_grace=0)
    handle = await fail.adelay()
    await until(begun.is_set)
    worker.stop()
    await clock.advance(10)

    assert await start.ending(worker) == 0
    assert state_of(redis_server, queue, handle.id) == "archived"
    release.set()


async def test_a_hanging_error_handler_is_interrupted(
    app: TaskQ, start: Runner, kind: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise it would occupy slot after slot until the worker runs no more tasks."""
    begun: list[str] = []
    reported: list[str] = []

    def hang(error: BaseException, context: TaskContext) -> None:
        begun.append(context.id)
        until_released()

    async def hang_async(error: BaseException, context: TaskContext) -> None:
        begun.append(context.id)
        await asyncio.Event().wait()

    def note(error: BaseException, context: TaskContext) -> None:
        reported.append(context.id)

    app.on_error(hang_async if kind == "coroutine" else hang)
    app.on_error(note)

    @app.task(max_retry=0)
    async def fail() -> None:
        raise ValueError

    worker = await start(concurrency=1)
    handles = [await fail.adelay() for _ in range(2)]
    for number in (1, 2):
        await until(lambda: len(begun) >= number)  # noqa: B023 - awaited in the loop
        await clock.advance(reporter.LONGEST_S + 1)
        await until(lambda: len(reported) >= number)  # noqa: B023
    await until(lambda: worker._fetcher.free == 1)

    assert reported == [each.id for each in handles]
    messages = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert sum("hang" in each and each.startswith("error handler ") for each in messages) == 2
    assert "an error handler did not end within 30 s" in caplog.text


async def test_a_callable_object_with_an_async_call_is_awaited(app: TaskQ, start: Runner) -> None:
    """This holds for a handler, a task and an error handler. Without `await` they would seem to succeed."""
    seen: list[str] = []

    class Failing:
        async def __call__(self, message: RawTask) -> None:
            seen.append("handler")
            raise ValueError

    class Telling:
        async def __call__(self, error: BaseException, context: TaskContext) -> None:
            seen.append("error handler")

    class Adding:
        async def __call__(self, number: int) -> int:
            return number + 1

    app.handler("email:")(Failing())
    app.on_error(functools.partial(Telling()))
    add = app.task(name="add")(Adding())
    await start()
    await app.remote("email:welcome").adelay()

    await until(lambda: seen == ["handler", "error handler"])
    assert await (await add.adelay(1)).aresult(PATIENCE_S) == 2


async def test_an_error_handler_registered_later_receives_errors(app: TaskQ, start: Runner) -> None:
    """The worker is already running."""

    @app.task
    async def fail() -> None:
        raise ValueError

    await start()
    reported = ReportedErrors(app, "coroutine")
    await fail.adelay()

    await until(lambda: reported.errors)
