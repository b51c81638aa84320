"""Test the context of a function that a worker runs, and the outcome of payloads that do not fit."""

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from taskq_core import TaskContext, TaskFailedError, TaskQ, TaskState, current_task
from taskq_core.errors import UnknownTaskError
from taskq_core.inspector import AsyncInspector
from taskq_core.tasks.middleware import Middleware
from taskq_core.wire import QueueKeys, build_message
from taskq_core.worker import threads
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, push_raw, state_of, stored, until

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_coroutine_runs_on_the_workers_loop(app: TaskQ, start: Runner) -> None:
    """The result is the returned value."""
    threads = []

    @app.task
    async def double(number: int) -> int:
        threads.append(threading.current_thread())
        await asyncio.sleep(0)
        return 2 * number

    await start()
    handle = await double.adelay(21)

    assert await handle.aresult(PATIENCE_S) == 42
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize("kind", ["plain", "coroutine", "context"])
async def test_variadic_parameters_receive_the_arguments_of_the_call(app: TaskQ, start: Runner, kind: str) -> None:
    """This holds for a workflow step too, which gets the previous result as an argument."""

    @app.task(name="plain", retention=60)
    def plain(first: object, *rest: object, by: str = "", **extra: object) -> object:
        return [first, rest, by, extra]

    @app.task(name="coroutine", retention=60)
    async def coroutine(first: object, *rest: object, by: str = "", **extra: object) -> object:
        return [first, rest, by, extra]

    @app.task(name="context", retention=60)
    def context(run: TaskContext, *rest: object, **extra: object) -> object:
        first, *others = rest
        return [first, others, extra.pop("by"), extra] if run.name == "context" else []

    task: Any = {"plain": plain, "coroutine": coroutine, "context": context}[kind]
    await start()

    alone = await task.adelay(1, 2, 3, by="me", x={"y": [4]})
    step = await (coroutine.s(1) | task.s(2, 3, by="me", x=1)).adelay()
    changed = await task.s(1, 2, by="me").with_arguments(x=3).adelay()

    assert await alone.aresult(timeout=60) == [1, [2, 3], "me", {"x": {"y": [4]}}]
    assert await step.aresult(timeout=60) == [[1, [], "", {}], [2, 3], "me", {"x": 1}]
    assert await changed.aresult(timeout=60) == [1, [2], "me", {"x": 3}]


async def test_a_plain_function_runs_in_a_thread(app: TaskQ, start: Runner) -> None:
    """The function does not block the loop."""
    threads = []

    @app.task
    def double(number: int) -> int:
        threads.append(threading.current_thread())
        return 2 * number

    await start()
    handle = await double.adelay(21)

    assert await handle.aresult(PATIENCE_S) == 42
    assert threads != [threading.current_thread()]


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_task_can_read_the_context_of_its_run(app: TaskQ, start: Runner, kind: str) -> None:
    """The context parameter and `current_task()` are one object with id, attempt, deadline and headers."""
    seen: list[TaskContext] = []

    def look(context: TaskContext) -> None:
        assert current_task() is context
        seen.append(context)

    if kind == "coroutine":

        @app.task(name="look", timeout=60, headers={"tenant": "a"}, max_retry=7)
        async def look_async(context: TaskContext, word: str) -> str:
            await asyncio.sleep(0)
            look(context)
            return word

        call = look_async.s(word="x")
    else:

        @app.task(name="look", timeout=60, headers={"tenant": "a"}, max_retry=7)
        def look_plain(context: TaskContext, word: str) -> str:
            look(context)
            return word

        call = look_plain.s(word="x")
    await start()
    handle = await call.adelay()
    await handle.aresult(PATIENCE_S)

    (context,) = seen
    assert (context.id, context.name, context.queue) == (handle.id, "look", "default")
    assert (context.retried, context.attempt, context.max_retry, context.local) == (0, 1, 7, False)
    assert context.headers["tenant"] == "a"
    assert context.deadline is not None
    assert timedelta(seconds=30) < context.deadline - datetime.now(UTC) <= timedelta(seconds=60)


async def test_a_context_ends_with_its_task(app: TaskQ, start: Runner) -> None:
    """A context variable that one task sets is not seen by the next on the same thread or loop."""
    variable = ContextVar("variable", default="clean")

    @app.task
    def plain() -> str:
        seen = variable.get()
        variable.set("dirty")
        return seen

    @app.task
    async def coroutine() -> str:
        seen = variable.get()
        variable.set("dirty")
        return seen

    await start(concurrency=1)

    for task in (plain, plain, coroutine, coroutine, plain):
        assert await (await task.adelay()).aresult(PATIENCE_S) == "clean"


async def test_a_result_is_kept_for_the_retention(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A completed task gets its end plus the retention as score. Without retention, it is deleted."""

    @app.task(retention=100)
    def kept() -> dict[str, int]:
        return {"a": 1}

    @app.task(retention=0)
    def dropped() -> int:
        return 1

    ends = Ends()
    await start(listener=ends)
    handle = await kept.adelay()
    gone = await dropped.adelay()

    assert await handle.aresult(PATIENCE_S) == {"a": 1}
    await until(lambda: ends.of(gone.id))
    await until(lambda: not redis_server.client.exists(queue.task(gone.id)))
    info = await handle.arefresh()
    assert info.completed_at is not None
    assert info.expires_at is not None
    # Its end is noted by the worker and its expiry by Redis, which may be in another second.
    assert timedelta(seconds=100) <= info.expires_at - info.completed_at < timedelta(seconds=160)
    assert ends.of(handle.id) == ends.of(gone.id) == ["completed"]


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_written_result_is_kept_when_nothing_is_returned(app: TaskQ, start: Runner, kind: str) -> None:
    """The last written bytes are stored even if the function ends at once."""

    @app.task
    async def write_async(number: int) -> Any:
        current_task().write_result(b'"early"')
        current_task().write_result(json.dumps(number).encode())

    @app.task
    def write_plain(number: int) -> Any:
        current_task().write_result(b'"early"')
        current_task().write_result(json.dumps(number).encode())

    task: Any = write_async if kind == "coroutine" else write_plain
    await start()
    handles = [await task.adelay(number) for number in range(50)]

    for number, handle in enumerate(handles):
        await handle.aresult(PATIENCE_S)
        assert (await handle.arefresh()).result == str(number).encode()


async def test_a_returned_value_replaces_a_written_result(app: TaskQ, start: Runner) -> None:
    """The returned value wins, even if the write was still in flight."""

    @app.task
    def write() -> str:
        current_task().write_result(b'"written"')
        return "returned"

    await start()
    handles = [await write.adelay() for _ in range(50)]

    for handle in handles:
        assert await handle.aresult(PATIENCE_S) == "returned"
        assert (await handle.arefresh()).result == b'"returned"'


async def test_a_written_result_is_readable_during_the_run_and_after_a_failure(app: TaskQ, start: Runner) -> None:
    """Other programs may read it as progress."""
    release = threading.Event()

    @app.task(max_retry=0)
    def write() -> None:
        current_task().write_result(b"half")
        release.wait(PATIENCE_S)
        current_task().write_result(b"more")
        raise ValueError("x")

    await start()
    handle = await write.adelay()

    async def result() -> bytes:
        return (await handle.arefresh()).result

    async def is_half() -> bool:
        return await result() == b"half"

    await until(is_half)
    release.set()
    with pytest.raises(TaskFailedError):
        await handle.aresult(PATIENCE_S)
    assert await result() == b"more"


async def test_write_result_refuses_a_value_that_is_not_bytes(app: TaskQ, start: Runner) -> None:
    """`write_result` raises in the task, at the line that is wrong."""

    @app.task(max_retry=0)
    def write() -> None:
        current_task().write_result("text")  # type: ignore[arg-type]  # what is tested

    await start()

    with pytest.raises(TaskFailedError, match=r"TypeError: .*bytes"):
        await (await write.adelay()).aresult(PATIENCE_S)


async def test_unknown_payload_fields_are_ignored_and_counted(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer producer must not archive a fleet. The worker counts the fields, and so does a metric."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setitem(metrics.get_meter_provider.__globals__, "_METER_PROVIDER", provider)

    @app.task(name="add")
    def add(a: int, b: int = 2) -> int:
        return a + b

    worker = await start()
    message = build_message(
        type="add", payload=b'{"a": 1, "new": 1, "newer": {}}', id="x", queue="default", retry=0, retention=60
    )
    push_raw(redis_server, queue, "x", message.SerializeToString())
    await until(lambda: state_of(redis_server, queue, "x") == "completed")

    assert redis_server.client.hget(queue.task("x"), "result") == b"3"
    assert worker.ignored_fields == 2
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = [
        each for each in data.resource_metrics[0].scope_metrics[0].metrics if each.name == "asynq.tasks.ignored_fields"
    ]
    (point,) = metric.data.data_points
    labels = {"messaging.destination.name": "default", "messaging.asynq.task.type": "add"}
    assert (dict(point.attributes or {}), point.value) == (labels, 2)  # type: ignore[union-attr]  # of a counter


async def test_a_strict_task_archives_unknown_fields(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """With `strict=True` the error names the field but not its value."""

    @app.task(name="add", strict=True, max_retry=5)
    def add(a: int) -> int:
        return a

    await start()
    message = build_message(type="add", payload=b'{"a": 1, "new": "secret"}', id="x", queue="default", retry=5)
    push_raw(redis_server, queue, "x", message.SerializeToString())
    await until(lambda: state_of(redis_server, queue, "x") == "archived")

    text = stored(redis_server, queue, "x").error_msg
    assert "new" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b'{"b": 1}', ["'a'", "add"]),
        (b'{"a": "secret"}', ["'a'", "int", "str"]),
        (b'{"a": 1, "b": ["secret"]}', ["'b'", "int", "array"]),
        (b'["secret"]', ["add"]),
        (b"", ["add"]),
        (b"\xff\xfesecret", ["add"]),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ["add"]),
    ],
    ids=["missing", "wrong type", "wrong type of optional", "no object", "empty", "no text", "deep"],
)
async def test_a_task_with_an_invalid_payload_is_archived_at_once(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, payload: bytes, words: list[str]
) -> None:
    """The text names task, parameter and type, never the value, and no retry is tried."""

    @app.task(name="add")
    def add(a: int, b: int = 2) -> int:
        return a + b

    await start()
    push_raw(
        redis_server,
        queue,
        "x",
        build_message(type="add", payload=payload, id="x", queue="default", retry=5).SerializeToString(),
    )
    await until(lambda: state_of(redis_server, queue, "x") == "archived")

    message = stored(redis_server, queue, "x")
    assert message.retried == 0
    assert all(word in message.error_msg for word in words), message.error_msg
    assert "secret" not in message.error_msg
    assert bytes(message.payload) == payload


async def test_a_task_of_an_unknown_type_is_requeued_for_other_workers(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """A rolling deploy loses no task: the old worker uses no attempt, and logs each type once."""
    old = await start()
    handles = [await app.remote("new:task", max_retry=0).adelay() for _ in range(3)]
    await until(lambda: redis_server.client.zcard(queue.retry) == 3)

    info = await AsyncInspector(app).task("default", handles[0].id)
    assert info.last_error.startswith('handler not found for task "new:task": no worker that took it has this task')
    assert [(each.number, each.worker, each.error) for each in info.attempts] == [
        (1, old.token, "taskq_core.errors.UnknownTaskError")
    ]
    warned = [each for each in caplog.records if "new:task" in each.getMessage()]
    assert [each.levelname for each in warned] == ["WARNING"]

    await start.stop(old)
    new = TaskQ(redis_server.url, defaults={"retention": 600}, enqueue_timeout=PATIENCE_S)
    new.task(name="new:task")(lambda: current_task().attempt)
    await start(app=new)
    for handle in handles:
        redis_server.client.zadd(queue.retry, {handle.id: 1})
    assert [await handle.aresult(PATIENCE_S) for handle in handles] == [1, 1, 1]
    await new.aclose()


async def test_a_task_of_an_unknown_type_is_archived_after_the_timeout(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Attempts that are left change nothing; the error says what is missing."""
    ends = Ends()
    await start(listener=ends, unknown_task_timeout=0)
    handle = await app.remote("nobody:knows", max_retry=5).adelay()

    with pytest.raises(TaskFailedError, match='handler not found for task "nobody:knows"'):
        await handle.aresult(PATIENCE_S)
    assert stored(redis_server, queue, handle.id).retried == 0
    assert [type(error) for error in ends.errors] == [UnknownTaskError]


async def test_an_unreadable_message_is_quarantined_and_the_next_task_runs(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Its bytes are kept, its slot is released, and no id stays in the active list."""

    @app.task
    def fine() -> str:
        return "fine"

    for number in range(5):
        push_raw(redis_server, queue, f"bad{number}", b"\xff\xff\xffno message")
    worker = await start(concurrency=2)
    handle = await fine.adelay()

    assert await handle.aresult(PATIENCE_S) == "fine"
    await until(lambda: redis_server.client.zcard(queue.quarantine) == 5)
    assert redis_server.client.hget(queue.quarantined("bad0"), "msg") == b"\xff\xff\xffno message"
    assert redis_server.client.llen(queue.active) == 0
    assert redis_server.client.zcard(queue.lease) == 0
    await until(lambda: worker._fetcher.free == 2)


async def test_ids_without_a_task_are_dropped(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The ids neither stop the worker nor occupy a slot."""

    @app.task
    def fine() -> str:
        return "fine"

    redis_server.client.lpush(queue.pending, *[f"ghost{number}" for number in range(30)])
    worker = await start(concurrency=2)

    assert await (await fine.adelay()).aresult(PATIENCE_S) == "fine"
    assert redis_server.client.llen(queue.active) == 0
    assert worker._fetcher.dropped == 30


async def test_a_task_with_64_bit_limits_runs(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """Numbers that a peer may write, up to 64 bits, stop neither the task nor the worker's presence."""
    release = asyncio.Event()

    @app.task(name="hold")
    async def hold() -> str:
        deadline = current_task().deadline
        assert deadline is None or deadline.year == 9999
        await release.wait()
        return "done"

    worker = await start()
    message = build_message(
        type="hold",
        payload=b"{}",
        id="x",
        queue="default",
        retry=0,
        retention=60,
        timeout=2**63 - 1,
        deadline=2**63 - 1,
    )
    push_raw(redis_server, queue, "x", message.SerializeToString())
    await until(lambda: worker.running_count == 1)

    def is_shown() -> bool:
        keys = redis_server.client.keys("asynq:workers:*")
        return bool(keys) and redis_server.client.hexists(keys[0], "x")

    await clock.advance(6)
    await until(is_shown)
    release.set()
    await until(lambda: state_of(redis_server, queue, "x") == "completed")


class Noting(Middleware):
    """Notes when it enters and leaves."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        self.notes.append(f"{self.name} in")
        try:
            return call()
        finally:
            self.notes.append(f"{self.name} out")

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        self.notes.append(f"{self.name} in")
        try:
            return await call()
        finally:
            self.notes.append(f"{self.name} out")


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_the_first_middleware_is_the_outermost(app: TaskQ, start: Runner, kind: str) -> None:
    """Each middleware wraps the following ones, and its return value is the result."""
    notes: list[str] = []

    class Changing(Middleware):
        def around(self, context: TaskContext, call: Callable[[], object]) -> object:
            return f"{call()} changed"

        async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
            return f"{await call()} changed"

    for each in (Noting("first", notes), Changing(), Noting("second", notes)):
        app.use(each)

    @app.task
    async def coroutine() -> str:
        notes.append("run")
        return "value"

    @app.task
    def plain() -> str:
        notes.append("run")
        return "value"

    await start()
    handle = await (coroutine if kind == "coroutine" else plain).adelay()

    assert await handle.aresult(PATIENCE_S) == "value changed"
    assert notes == ["first in", "second in", "run", "second out", "first out"]


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_an_error_raised_by_a_middleware_fails_the_task(app: TaskQ, start: Runner, kind: str) -> None:
    """The task fails with it, and its policy decides on it."""

    class Refusing(Middleware):
        def around(self, context: TaskContext, call: Callable[[], object]) -> object:
            raise PermissionError("not today")

        async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
            raise PermissionError("not today")

    app.use(Refusing())

    @app.task(no_retry_on=PermissionError)
    async def coroutine() -> None: ...

    @app.task(no_retry_on=PermissionError)
    def plain() -> None: ...

    await start()
    handle = await (coroutine if kind == "coroutine" else plain).adelay()

    with pytest.raises(TaskFailedError, match="PermissionError: not today"):
        await handle.aresult(PATIENCE_S)


async def test_a_listener_receives_the_start_and_the_end_of_each_task(app: TaskQ, start: Runner) -> None:
    """The end includes the error."""

    @app.task(max_retry=0)
    def fail() -> None:
        raise ValueError("x")

    ends = Ends()
    worker = await start(listener=ends)
    handle = await fail.adelay()
    await until(lambda: ends.of(handle.id))

    assert ends.workers == [worker]
    assert ends.started_ids == [handle.id]
    assert ends.of(handle.id) == ["archived"]
    assert isinstance(ends.errors[0], ValueError)


async def test_an_error_in_a_listener_does_not_affect_the_task(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of the listener is logged, and the task ends as usual."""

    class Broken(Ends):
        def task_started(self, context: TaskContext) -> None:
            raise RuntimeError("broken start")

        def task_ended(self, *received: Any) -> None:
            raise RuntimeError("broken end")

    @app.task
    def plain() -> str:
        return "done"

    @app.task
    async def coroutine() -> str:
        return "done"

    worker = await start(listener=Broken(), concurrency=1)
    with caplog.at_level(logging.ERROR):
        for task in (plain, coroutine, plain):
            assert await (await task.adelay()).aresult(PATIENCE_S) == "done"

    assert "broken" in caplog.text
    await until(lambda: worker._fetcher.free == 1)


async def test_sys_exit_in_a_task_fails_only_the_task(app: TaskQ, start: Runner) -> None:
    """`sys.exit()` in a task does not end the worker."""

    @app.task(max_retry=0)
    def plain() -> None:
        raise SystemExit(3)

    @app.task(max_retry=0)
    async def coroutine() -> None:
        raise SystemExit(3)

    @app.task
    def fine() -> str:
        return "fine"

    await start()
    for task in (plain, coroutine):
        with pytest.raises(TaskFailedError, match="SystemExit: 3"):
            await (await task.adelay()).aresult(PATIENCE_S)

    assert await (await fine.adelay()).aresult(PATIENCE_S) == "fine"


async def test_payloads_are_not_logged(app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """Neither arguments nor results are logged, unless an exception quotes them."""

    @app.task(max_retry=0)
    def fail(word: str) -> None:
        raise ValueError("no such word")

    @app.task
    def fine(word: str) -> str:
        return word

    await start()
    with caplog.at_level(logging.DEBUG, logger="taskq"):
        for task in (fail, fine):
            handle = await task.adelay("canary")
            with pytest.raises(TaskFailedError) if task is fail else nullcontext():
                await handle.aresult(PATIENCE_S)

    assert any(record.levelno == logging.ERROR for record in caplog.records)
    assert "canary" not in caplog.text
    assert all("canary" not in str(vars(record)) for record in caplog.records if record.name.startswith("taskq"))


async def test_a_task_is_active_during_its_run_and_completed_afterwards(app: TaskQ, start: Runner) -> None:
    """A running task has a lease."""
    release = asyncio.Event()

    @app.task
    async def hold() -> None:
        await release.wait()

    worker = await start()
    handle = await hold.adelay()
    await until(lambda: worker.running_count == 1)
    info = await handle.arefresh()
    release.set()
    await handle.aresult(PATIENCE_S)

    assert info.state is TaskState.ACTIVE
    assert info.lease_expires_at is not None
    assert (await handle.arefresh()).state is TaskState.COMPLETED


@pytest.mark.parametrize("refusals", [1, 4])
async def test_plain_functions_wait_while_no_thread_can_be_started(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusals: int
) -> None:
    """The system is out of threads or memory, from the first one on or later: each runs in the end, none is lost."""
    start_thread = threads._TaskThread.start
    left = refusals

    def refused(thread: threads._TaskThread) -> None:
        nonlocal left
        if left:
            left -= 1
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    monkeypatch.setattr(threads._TaskThread, "start", refused)
    monkeypatch.setattr(threads, "START_AGAIN_S", 0.01)
    meeting = threading.Barrier(3)

    @app.task
    def meet() -> str:
        meeting.wait(PATIENCE_S)  # ends only when three of them run at the same time
        return "ran"

    await start(concurrency=3)
    handles = [await meet.adelay() for _ in range(3)]

    assert [await handle.aresult(PATIENCE_S) for handle in handles] == ["ran"] * 3
    assert "the system starts no further thread: can't start new thread" in caplog.text
