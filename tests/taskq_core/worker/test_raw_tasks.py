"""Handlers at work: raw messages of whatever producer, unknown types, and middleware by scope around all of them."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from taskq_core import (
    PayloadError,
    RawTask,
    SkipRetry,
    TaskContext,
    TaskFailedError,
    TaskQ,
    UnknownTaskError,
    current_task,
)
from taskq_core.tasks.middleware import Middleware
from taskq_core.wire import QueueKeys, build_message
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, push_raw, state_of, stored, until

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(params=["coroutine", "plain"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def either(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that does what the function does, as a coroutine function or as a plain one."""
    if kind == "plain":

        def plain(context: TaskContext, message: RawTask) -> Any:
            return function(context, message)

        return plain

    async def coroutine(context: TaskContext, message: RawTask) -> Any:
        await asyncio.sleep(0)
        return function(context, message)

    return coroutine


class TestHandlers:
    async def test_a_handler_receives_the_unchanged_message(
        self, app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, kind: str
    ) -> None:
        """The handler gets a payload that is not JSON, the headers, and the number of retries."""
        seen: list[RawTask] = []
        threads: list[threading.Thread] = []

        def note(context: TaskContext, message: RawTask) -> str:
            assert current_task() is context
            seen.append(message)
            threads.append(threading.current_thread())
            return message.type

        app.handler("email:")(either(kind, note))
        await start()
        message = build_message(
            type="email:welcome",
            payload=b"\x00\xff no JSON",
            id="x",
            queue="default",
            retry=7,
            retried=2,
            retention=60,
            headers={"tenant": "blue"},
        )
        push_raw(redis_server, queue, "x", message.SerializeToString())
        await until(lambda: state_of(redis_server, queue, "x") == "completed")

        assert seen == [
            RawTask(
                id="x",
                type="email:welcome",
                queue="default",
                payload=b"\x00\xff no JSON",
                headers={"tenant": "blue"},
                retried=2,
                max_retry=7,
            )
        ]
        assert redis_server.client.hget(queue.task("x"), "result") == b'"email:welcome"'
        assert (threads == [threading.current_thread()]) is (kind == "coroutine")

    async def test_a_registered_task_takes_precedence_over_handlers(self, app: TaskQ, start: Runner) -> None:
        """A handler of exactly the type comes next, and then the longest matching prefix."""

        @app.task(name="email:task")
        async def task(to: str) -> str:
            return f"task {to}"

        @app.handler("email:")
        async def beginning(message: RawTask) -> str:
            return "email:"

        @app.handler("email:welcome")
        def exact(message: RawTask) -> str:
            return "email:welcome"

        await start()
        results = [
            await (await app.remote(name).adelay(to="x")).aresult(PATIENCE_S)
            for name in ("email:task", "email:welcome", "email:welcome:vip", "email:other")
        ]

        assert results == ["task x", "email:welcome", "email:welcome", "email:"]

    async def test_the_options_of_a_handler_apply(
        self, app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, kind: str
    ) -> None:
        """Its exceptions are handled and retried like the exceptions of a task."""

        def fail(context: TaskContext, message: RawTask) -> str:
            if context.attempt == 1:
                raise ConnectionError("no line")
            raise ValueError("no number")

        app.handler("email:", retry_delay=0, no_retry_on=ValueError)(either(kind, fail))
        ends = Ends()
        await start(listener=ends)
        handle = await app.remote("email:welcome").adelay()

        with pytest.raises(TaskFailedError, match="ValueError: no number"):
            await handle.aresult(PATIENCE_S)
        assert ends.of(handle.id) == ["retried", "archived"]
        assert stored(redis_server, queue, handle.id).retried == 1

    async def test_a_handler_may_raise_skip_retry(self, app: TaskQ, start: Runner, kind: str) -> None:
        def skip(context: TaskContext, message: RawTask) -> None:
            raise SkipRetry("obsolete")

        app.handler("email:")(either(kind, skip))
        await start()
        handle = await app.remote("email:welcome").adelay()

        with pytest.raises(TaskFailedError, match="obsolete"):
            await handle.aresult(PATIENCE_S)

    async def test_an_invalid_payload_archives_the_task_of_a_handler(
        self, app: TaskQ, start: Runner, kind: str
    ) -> None:
        """As for a task, a retry would not help."""

        @dataclass
        class Mail:
            to: str

        def send(context: TaskContext, message: RawTask) -> str:
            return message.decode(Mail).to

        app.handler("email:")(either(kind, send))
        ends = Ends()
        await start(listener=ends)
        right = await app.remote("email:welcome").adelay(to="a@b.c")
        wrong = await app.remote("email:welcome").adelay(to=5)

        assert await right.aresult(PATIENCE_S) == "a@b.c"
        with pytest.raises(TaskFailedError, match="payload of task 'email:welcome': expected str"):
            await wrong.aresult(PATIENCE_S)
        assert ends.of(wrong.id) == ["archived"]
        assert isinstance(ends.errors[-1], PayloadError)

    async def test_many_task_types_do_not_fill_the_cache(self, app: TaskQ, start: Runner) -> None:
        """A type may contain an id, so data about a function is cached by its pattern."""

        @app.handler("order:")
        def handle(message: RawTask) -> None: ...

        ends = Ends()
        worker = await start(listener=ends)
        for number in range(300):
            await app.remote(f"order:{number}", retention=0).adelay()
        await until(lambda: len(ends.ends) == 300)

        assert list(worker._executor._threads._usual_s) == ["order:"]


class TestUnknownTypes:
    async def test_tasks_of_unknown_types_are_requeued_by_default(
        self, app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
    ) -> None:
        """The error starts with the text in Asynq's tools. Error handlers are called only for an archived task."""
        reported: list[BaseException] = []
        app.on_error(lambda error, context: reported.append(error))
        ends = Ends()
        await start(listener=ends)
        handle = await app.remote("nobody's", max_retry=1).adelay()
        await until(lambda: ends.of(handle.id) == ["snoozed"])
        await until(lambda: state_of(redis_server, queue, handle.id) == "retry")  # listeners run first

        message = stored(redis_server, queue, handle.id)
        assert message.error_msg.startswith('handler not found for task "nobody\'s"')
        assert isinstance(ends.errors[0], UnknownTaskError)
        assert ends.errors[0].name == "nobody's"
        assert reported == []

    async def test_a_not_found_function_runs_tasks_of_unknown_types(self, app: TaskQ, start: Runner, kind: str) -> None:
        app.not_found(either(kind, lambda context, message: f"{message.type} is not ours"))
        app.handler("email:")(either(kind, lambda context, message: "ours"))
        await start()

        assert await (await app.remote("report").adelay()).aresult(PATIENCE_S) == "report is not ours"
        assert await (await app.remote("email:x").adelay()).aresult(PATIENCE_S) == "ours"


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


def entered(notes: list[str]) -> list[str]:
    """Return who entered, having checked that they left in the opposite order, and forget it."""
    names = [note.removesuffix(" in") for note in notes if note.endswith(" in")]
    assert notes == [f"{name} in" for name in names] + [f"{name} out" for name in reversed(names)]
    notes.clear()
    return names


class TestMiddlewareByScope:
    async def test_middleware_runs_in_the_order_application_queue_task(
        self, app: TaskQ, start: Runner, kind: str
    ) -> None:
        """The application's middleware is the outermost. Middleware of other queues and tasks does not run."""
        notes: list[str] = []

        @app.task(name="coroutine")
        async def coroutine() -> None: ...

        @app.task(name="plain")
        def plain() -> None: ...

        task: Any = coroutine if kind == "coroutine" else plain
        app.use(Noting("task", notes), task=task)
        app.use(Noting("task by name", notes), task=kind)
        app.use(Noting("queue", notes), queue="default")
        app.use(Noting("app", notes))
        app.use(Noting("app 2", notes))
        app.use(Noting("other queue", notes), queue="other")
        app.use(Noting("other task", notes), task="other")
        await start(queues={"default": 1, "other": 1})

        await (await task.adelay()).aresult(PATIENCE_S)
        assert entered(notes) == ["app", "app 2", "queue", "task", "task by name"]
        await (await task.using(queue="other").adelay()).aresult(PATIENCE_S)
        assert entered(notes) == ["app", "app 2", "other queue", "task", "task by name"]

    async def test_middleware_wraps_handlers_by_pattern_and_by_type(self, app: TaskQ, start: Runner, kind: str) -> None:
        notes: list[str] = []
        app.handler("email:")(either(kind, lambda context, message: None))
        app.use(Noting("type", notes), task="email:welcome")
        app.use(Noting("pattern", notes), task="email:")
        app.use(Noting("app", notes))
        await start()

        await (await app.remote("email:welcome").adelay()).aresult(PATIENCE_S)
        assert entered(notes) == ["app", "pattern", "type"]
        await (await app.remote("email:other").adelay()).aresult(PATIENCE_S)
        assert entered(notes) == ["app", "pattern"]

    async def test_middleware_wraps_tasks_of_unknown_types(self, app: TaskQ, start: Runner, kind: str) -> None:
        """Without a not-found function, middleware sees the error."""
        notes: list[str] = []
        errors: list[Exception] = []

        class Catching(Middleware):
            async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
                try:
                    return await call()
                except Exception as error:
                    errors.append(error)
                    return "caught"

        app.use(Noting("app", notes))
        app.use(Catching())
        await start()

        assert await (await app.remote("unknown").adelay()).aresult(PATIENCE_S) == "caught"
        assert entered(notes) == ["app"]
        assert [type(each) for each in errors] == [UnknownTaskError]
        app.not_found(either(kind, lambda context, message: "found"))
        assert await (await app.remote("unknown").adelay()).aresult(PATIENCE_S) == "found"
        assert entered(notes) == ["app"]

    async def test_a_new_middleware_applies_from_the_next_run(self, app: TaskQ, start: Runner) -> None:
        """This holds for a running worker."""
        notes: list[str] = []

        @app.task
        async def task() -> None: ...

        await start()
        await (await task.adelay()).aresult(PATIENCE_S)
        app.use(Noting("late", notes), task=task)
        await (await task.adelay()).aresult(PATIENCE_S)

        assert entered(notes) == ["late"]
