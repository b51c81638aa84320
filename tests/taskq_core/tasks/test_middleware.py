"""Test middleware: its changes to a call before the enqueue, its order, and refused changes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from taskq_core import ConfigurationError, Signature, TaskArgumentsError, TaskHandle, TaskQ, group
from taskq_core.tasks.middleware import Middleware
from taskq_core.wire import TaskMessage, decode_message


@pytest.fixture(params=["Client", "AsyncClient"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "AsyncClient")


class Application:
    """A `TaskQ` whose calls go through one of the two clients."""

    def __init__(self, redis: Any, *, is_async: bool) -> None:
        self.taskq = TaskQ(redis)
        self.redis = redis
        self.is_async = is_async

    async def send(self, call: Signature[Any]) -> TaskHandle[Any]:
        return await call.adelay() if self.is_async else await asyncio.to_thread(call.delay)

    async def send_many(self, calls: Iterable[Signature[Any]]) -> list[str]:
        if self.is_async:
            return list((await self.taskq.async_client.enqueue_many(calls)).ids)
        return list((await asyncio.to_thread(self.taskq.client.enqueue_many, calls)).ids)

    def stored(self, task_id: str, queue: str = "default") -> TaskMessage:
        return decode_message(self.redis.hget(f"asynq:{{{queue}}}:t:{task_id}", "msg"))


@pytest.fixture
async def app(fake_redis: Any, is_async: bool) -> AsyncIterator[Application]:
    application = Application(fake_redis, is_async=is_async)
    yield application
    await application.taskq.aclose()


class Labelling(Middleware):
    """Adds its label to a header, so that the order shows."""

    def __init__(self, label: str) -> None:
        self.label = label

    def enqueue(self, call: Signature[Any]) -> Signature[Any]:
        seen = call.task.options.headers.get("seen", "")
        return call.with_headers({"seen": seen + self.label})


class Refusing(Middleware):
    def enqueue(self, call: Signature[Any]) -> Signature[Any]:
        raise PermissionError("not for this tenant")


class TestCalls:
    async def test_both_clients_call_middleware(self, app: Application) -> None:
        """One method serves blocking code and coroutines."""
        app.taskq.use(Labelling("a"))

        handle = await app.send(app.taskq.remote("t", headers={"tenant": "blue"}).s(a=1))

        message = app.stored(handle.id)
        assert dict(message.headers) == {"tenant": "blue", "seen": "a"}
        assert message.payload == b'{"a":1}'

    async def test_the_asynchronous_client_calls_abefore_enqueue(self, app: Application) -> None:
        class Awaiting(Labelling):
            async def aenqueue(self, call: Signature[Any]) -> Signature[Any]:
                await asyncio.sleep(0)
                return call.with_headers({"seen": "awaited"})

        app.taskq.use(Awaiting("blocking"))

        handle = await app.send(app.taskq.remote("t").s())
        ids = await app.send_many([app.taskq.remote("t").s()])

        expected = "awaited" if app.is_async else "blocking"
        assert [app.stored(each).headers["seen"] for each in (handle.id, *ids)] == [expected, expected]

    async def test_middleware_sees_every_call_of_a_workflow(self, app: Application) -> None:
        """Members of small groups, and of groups that come after a step, are calls as well."""
        app.taskq.use(Labelling("a"))
        call = app.taskq.remote("t").si()
        workflow = group([call, call]) | call | group(call for _ in range(2))

        handle = await workflow.adelay() if app.is_async else await asyncio.to_thread(workflow.delay)

        key = f"taskq:{{default}}:wf:{handle.id}"
        waiting = [app.redis.hget(key, "m1"), *app.redis.hvals(f"{key}:h2")]
        assert len(waiting) == 3
        assert all(b"seen" in each for each in waiting)
        assert app.stored(f"{handle.id}.t-group.1").headers["seen"] == "a"

    async def test_middleware_runs_in_the_order_application_queue_task(self, app: Application) -> None:
        """Within each kind, middleware runs in the order of registration."""
        taskq = app.taskq
        task = taskq.remote("email:send", queue="mail")
        taskq.use(Labelling("5"), task=task)
        taskq.use(Labelling("3"), queue="mail")
        taskq.use(Labelling("1"))
        taskq.use(Labelling("6"), task="email:send")
        taskq.use(Labelling("4"), queue="mail")
        taskq.use(Labelling("2"))
        taskq.use(Labelling("x"), queue="default")
        taskq.use(Labelling("y"), task="email:")
        taskq.use(Labelling("0"), outermost=True)

        handle = await app.send(task.s())
        ids = await app.send_many([task.s(), taskq.remote("other").s()])

        assert app.stored(handle.id, "mail").headers["seen"] == "0123456"
        assert app.stored(ids[0], "mail").headers["seen"] == "0123456"
        assert app.stored(ids[1]).headers["seen"] == "012x"

    async def test_middleware_can_change_options(self, app: Application) -> None:
        """The middleware of the queue is that of the queue the application's chose."""

        class Moving(Middleware):
            def enqueue(self, call: Signature[Any]) -> Signature[Any]:
                return call.using(queue="slow", max_retry=1)

        app.taskq.use(Moving())
        app.taskq.use(Labelling("slow"), queue="slow")
        app.taskq.use(Labelling("default"), queue="default")

        handle = await app.send(app.taskq.remote("t").s())

        assert (handle.queue, app.stored(handle.id, "slow").retry) == ("slow", 1)
        assert app.stored(handle.id, "slow").headers["seen"] == "slow"

    async def test_middleware_can_change_arguments(self, app: Application) -> None:
        """It changes arguments by name, however the caller passed them. Invalid ones are refused as usual."""
        taskq = app.taskq

        @taskq.task(name="t")
        def task(a: int, b: str = "b") -> None: ...

        class Doubling(Middleware):
            def enqueue(self, call: Signature[Any]) -> Signature[Any]:
                a: Any = call.arguments["a"]
                return call.with_arguments(a=2 * a)

        taskq.use(Doubling())

        ids = await app.send_many([task.s(1), task.s(a=2, b="x"), task.s(3, "y")])

        assert [app.stored(each).payload for each in ids] == [b'{"a":2}', b'{"a":4,"b":"x"}', b'{"a":6,"b":"y"}']
        for wrong in (task.s("x"), task.s(1, "b", 3), task.s()):  # type: ignore[arg-type,call-arg]  # the point
            with pytest.raises(TaskArgumentsError):
                await app.send(wrong)

    async def test_middleware_can_refuse_a_call(self, app: Application) -> None:
        """Its error goes to the caller, and nothing is sent."""
        app.taskq.use(Refusing(), task="secret")

        with pytest.raises(PermissionError, match="not for this tenant"):
            await app.send(app.taskq.remote("secret").s())
        with pytest.raises(PermissionError):
            await app.send_many([app.taskq.remote("free").s(), app.taskq.remote("secret").s()])
        await app.send(app.taskq.remote("free").s())

        assert app.redis.llen("asynq:{default}:pending") == 1

    async def test_a_middleware_that_returns_no_call_is_an_error(self, app: Application) -> None:
        class Forgetting(Middleware):
            def enqueue(self, call: Signature[Any]) -> Any:
                call.with_headers({"a": "b"})

        app.taskq.use(Forgetting())

        with pytest.raises(TypeError, match=r"Forgetting\.enqueue must return the call to enqueue, got NoneType"):
            await app.send(app.taskq.remote("t").s())

    async def test_middleware_does_not_change_the_task_of_the_caller(self, app: Application) -> None:
        task = app.taskq.remote("t", headers={"a": "1"})
        app.taskq.use(Labelling("x"))

        await app.send(task.s())

        assert dict(task.options.headers) == {"a": "1"}

    async def test_middleware_added_later_applies_to_the_next_call(self, app: Application) -> None:
        """This includes clients that were used before."""
        task = app.taskq.remote("t")
        before = await app.send(task.s())
        app.taskq.use(Labelling("x"))
        after = await app.send(task.s())

        assert [dict(app.stored(each.id).headers) for each in (before, after)] == [{}, {"seen": "x"}]

    async def test_middleware_sees_calls_of_an_asynchronous_iterable(self, fake_redis: Any) -> None:
        application = Application(fake_redis, is_async=True)
        application.taskq.use(Labelling("x"))

        async def calls() -> AsyncIterator[Signature[Any]]:
            for number in range(3):
                yield application.taskq.remote("t").s(n=number)

        result = await application.taskq.async_client.enqueue_many(calls())

        assert [application.stored(each).headers["seen"] for each in result.ids] == ["x"] * 3
        assert [application.stored(each).payload for each in result.ids] == [b'{"n":%d}' % n for n in range(3)]
        await application.taskq.aclose()


class TestNothingIsAsked:
    def test_middleware_that_only_wraps_runs_costs_no_enqueue(self) -> None:
        """Enqueueing costs one look while no middleware wants to see calls."""

        class Wrapping(Middleware):
            def around(self, context: Any, call: Callable[[], object]) -> object:
                return call()

        class AsyncWrapping(Middleware):
            async def aaround(self, context: Any, call: Callable[[], Awaitable[object]]) -> object:
                return await call()

        taskq = TaskQ()
        assert (taskq.middleware.sees_calls, taskq.middleware.wraps_runs) == (False, False)
        taskq.use(Middleware())
        assert (taskq.middleware.sees_calls, taskq.middleware.wraps_runs) == (False, False)
        taskq.use(Wrapping(), queue="a")
        assert (taskq.middleware.sees_calls, taskq.middleware.wraps_runs) == (False, True)
        taskq.use(AsyncWrapping(), task="b")
        assert taskq.middleware.of_run("default", "b", "b")[0].__class__ is AsyncWrapping
        taskq.use(Labelling("x"), task="a")
        assert (taskq.middleware.sees_calls, taskq.middleware.wraps_runs) == (True, True)

    def test_equal_headers_reuse_the_prepared_message(self) -> None:
        """Calls that follow each other with equal headers share what was prepared for the first."""
        task = TaskQ().remote("t", headers={"a": "1"})

        one, two, other = (task.s(n=1).with_headers({"b": each}).task for each in "223")

        assert one is two
        assert other is not one
        assert [dict(each.options.headers)["b"] for each in (one, other)] == ["2", "3"]


class TestUse:
    def test_an_invalid_middleware_is_refused(self) -> None:
        """The refusal leaves the application's middleware unchanged."""
        taskq = TaskQ()
        wrong: Any
        for wrong in (Labelling, object(), lambda call: call):
            with pytest.raises(ConfigurationError, match=r"middleware must be a taskq_core\.Middleware"):
                taskq.use(wrong)
        with pytest.raises(ConfigurationError, match="pass an instance"):
            taskq.use(Labelling, queue="a")  # type: ignore[arg-type]  # the point of the test

        assert not taskq.middleware.sees_calls

    def test_an_invalid_scope_is_refused(self) -> None:
        taskq = TaskQ()

        with pytest.raises(ConfigurationError, match="give queue= or task=, not both"):
            taskq.use(Labelling("a"), queue="a", task="b")
        with pytest.raises(ConfigurationError, match="queue name must not be blank"):
            taskq.use(Labelling("a"), queue="")
        with pytest.raises(ConfigurationError, match="task type must not be blank"):
            taskq.use(Labelling("a"), task=" ")

        assert not taskq.middleware.sees_calls
