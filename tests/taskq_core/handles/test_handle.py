"""Test result, refresh and cancel of handles. The tests call a worker's operations directly."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import (
    ConfigurationError,
    ResultError,
    ResultNotKeptError,
    ResultTimeoutError,
    TaskFailedError,
    TaskHandle,
    TaskNotFoundError,
    TaskQ,
    TaskState,
)
from taskq_core.broker.operations import runs
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.errors import ResultValueError
from taskq_core.handles import subscription
from taskq_core.wire import archived_message, completed_message, decode_message
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.worker.conftest import until


@dataclass
class Point:
    x: int


class Application:
    """A `TaskQ` with a worker's operations, and with the blocking or the asyncio methods of a handle."""

    def __init__(self, taskq: TaskQ, server: RedisServer, *, is_async: bool) -> None:
        self.taskq = taskq
        self.server = server
        self.is_async = is_async
        self.keys = taskq.runtime.keys.queue("default")
        self.task = taskq.remote("t", retention=60)
        self.runs: dict[str, int] = {}  # the run of each task that was handed out

    async def result(self, handle: TaskHandle[Any], timeout: Any = 60) -> Any:
        return await (handle.aresult(timeout) if self.is_async else asyncio.to_thread(handle.result, timeout))

    async def refresh(self, handle: TaskHandle[Any]) -> Any:
        return await (handle.arefresh() if self.is_async else asyncio.to_thread(handle.refresh))

    async def cancel(self, handle: TaskHandle[Any]) -> bool:
        return await (handle.acancel() if self.is_async else asyncio.to_thread(handle.cancel))

    def run(self, operation: Any) -> Any:
        return self.taskq.runtime.runner.run(operation, patience_s=30)

    def dequeue(self) -> dict[str, bytes]:
        call = time.monotonic_ns()
        found = self.run(runs.dequeue(self.keys, owner="w", call=call, limit=10, lease_s=30))
        self.runs.update((task_id, call) for task_id, _ in found.tasks)
        return dict(found.tasks)

    def settle(self, task_id: str, outcome: Outcome, message: bytes = b"", **facts: Any) -> None:
        settlement = Settlement(task_id, outcome, self.runs[task_id], message, **facts)
        assert self.run(runs.settle(self.keys, [settlement], owner="w")) == "1"

    def finish(self, result: bytes = b"5") -> None:
        """Take all pending tasks and complete them, as our worker does."""
        for task_id, message in self.dequeue().items():
            done = completed_message(decode_message(message), completed_at_s=1)
            self.settle(task_id, Outcome.COMPLETE, done, seconds=60, result=result)

    def archive(self, text: str = "it broke") -> None:
        for task_id, message in self.dequeue().items():
            failed = archived_message(decode_message(message), error=text, failed_at_s=1)
            self.settle(task_id, Outcome.ARCHIVE, failed)

    async def waiting(self, count: int = 1) -> None:
        """Return when this many callers have subscribed."""

        def are_waiting() -> bool:
            keys = self.server.client.keys("asynq:{default}:t:*")
            asked = sum(self.server.client.hexists(key, "taskq_wait") for key in keys)
            return bool(asked >= count and self.server.client.pubsub_numsub(self.keys.done)[0][1])

        await until(are_waiting)


@pytest.fixture(params=["blocking", "coroutine"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "coroutine")


@pytest.fixture
async def app(redis_server: RedisServer, is_async: bool) -> AsyncIterator[Application]:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    yield Application(taskq, redis_server, is_async=is_async)
    await taskq.aclose()


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waiting callers read again only after a notification."""
    monkeypatch.setattr(subscription, "FIRST_PAUSE_S", 1000.0)
    monkeypatch.setattr(subscription, "LONGEST_PAUSE_S", 1000.0)


class TestOutcomes:
    async def test_the_result_of_an_ended_task_is_returned(self, app: Application) -> None:
        handle = await app.task.adelay()
        app.finish(b'{"a":[1]}')

        assert await app.result(handle) == {"a": [1]}
        assert app.server.client.hget(app.keys.task(handle.id), "taskq_wait") is None

    @pytest.mark.usefixtures("no_polling")
    async def test_completion_wakes_the_waiting_caller(self, app: Application) -> None:
        """The caller gets the result without polling."""
        handle = await app.task.adelay()
        waiting = asyncio.ensure_future(app.result(handle, None))
        await app.waiting()

        app.finish()

        assert await waiting == 5

    @pytest.mark.usefixtures("no_polling")
    async def test_archiving_wakes_the_waiting_caller(self, app: Application) -> None:
        handle = await app.task.adelay()
        waiting = asyncio.ensure_future(app.result(handle, None))
        await app.waiting()

        app.archive("it broke")

        with pytest.raises(TaskFailedError, match="the task failed and was archived: it broke") as caught:
            await waiting
        assert (caught.value.queue, caught.value.task_id) == ("default", handle.id)

    @pytest.mark.usefixtures("no_polling")
    async def test_deletion_wakes_the_waiting_caller(self, app: Application) -> None:
        handle = await app.task.adelay()
        waiting = asyncio.ensure_future(app.result(handle, None))
        await app.waiting()

        assert await app.cancel(handle) is True

        with pytest.raises(TaskNotFoundError):
            await waiting

    async def test_the_result_has_the_type_of_the_annotation(self, app: Application) -> None:
        @app.taskq.task(name="p", retention=60)
        def point() -> Point:
            return Point(1)

        handle = await point.adelay()
        app.finish(b'{"x":3}')

        assert await app.result(handle) == Point(3)

    async def test_a_result_of_another_type_is_refused(self, app: Application) -> None:
        @app.taskq.task(name="p", retention=60)
        def number() -> int:
            return 1

        handle = await number.adelay()
        app.finish(b'"canary"')

        with pytest.raises(ResultValueError) as caught:
            await app.result(handle)
        assert "canary" not in str(caught.value)

    async def test_a_task_without_a_result_returns_none(self, app: Application) -> None:
        handle = await app.task.adelay()
        app.finish(b"")

        assert await app.result(handle) is None

    async def test_polling_finds_a_task_that_go_completed(self, app: Application) -> None:
        """Workers in Go publish nothing on taskq's channel, so the caller must poll."""
        handle = await app.task.adelay()
        waiting = asyncio.ensure_future(app.result(handle, 60))
        await app.waiting()
        redis, key = app.server.client, app.keys.task(handle.id)
        message = redis.hget(key, "msg")

        with redis.pipeline() as pipe:  # what Go's markAsComplete leaves
            pipe.lrem(app.keys.pending, 0, handle.id)
            pipe.zadd(app.keys.completed, {handle.id: int(redis.time()[0]) + 60})
            pipe.hset(key, mapping={"msg": message, "state": "completed", "result": b'"from Go"'})
            pipe.execute()

        assert await waiting == "from Go"

    async def test_polling_finds_a_task_that_go_archived(self, app: Application) -> None:
        handle = await app.task.adelay()
        waiting = asyncio.ensure_future(app.result(handle, 60))
        await app.waiting()
        redis, key = app.server.client, app.keys.task(handle.id)
        message = archived_message(decode_message(redis.hget(key, "msg")), error="go broke", failed_at_s=1)

        with redis.pipeline() as pipe:
            pipe.lrem(app.keys.pending, 0, handle.id)
            pipe.zadd(app.keys.archived, {handle.id: int(redis.time()[0])})
            pipe.hset(key, mapping={"msg": message, "state": "archived"})
            pipe.execute()

        with pytest.raises(TaskFailedError, match="go broke"):
            await waiting


class TestMissingOutcomes:
    async def test_result_without_retention_raises_an_error_that_names_the_setting(self, app: Application) -> None:
        handle = await app.taskq.remote("t").adelay()

        with pytest.raises(ResultNotKeptError) as caught:
            await app.result(handle, None)

        assert str(caught.value) == (
            f"task {handle.id!r} in queue 'default': the result is not stored, because the task's retention is 0; "
            "set retention=, for example @task(retention=3600), or set DEFAULTS['retention']"
        )

    async def test_a_default_retention_keeps_results(self, redis_server: RedisServer, is_async: bool) -> None:
        app = Application(
            TaskQ(redis_server.url, defaults={"retention": 60}, enqueue_timeout=30), redis_server, is_async=is_async
        )
        handle = await app.taskq.remote("t").adelay()
        app.finish()

        assert await app.result(handle) == 5
        await app.taskq.aclose()

    @pytest.mark.parametrize(
        ("timeout", "text"), [(0, "0 s"), (60, "60 s"), (timedelta(milliseconds=90_500), "90.5 s")]
    )
    async def test_result_raises_when_the_task_does_not_end_in_time(
        self, app: Application, clock: Clock, timeout: Any, text: str
    ) -> None:
        """A specific error is raised, which is also a `TimeoutError`. The task is not affected."""
        handle = await app.task.adelay()
        waiting = asyncio.ensure_future(app.result(handle, timeout))
        if timeout:
            await app.waiting()
            await clock.advance(59)
            assert not waiting.done()
            await clock.advance(32)

        reason = f"the task did not end within {text}; it is pending, because no worker has taken it yet$"
        with pytest.raises(ResultTimeoutError, match=reason) as caught:
            await waiting

        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, ResultError)
        assert (await app.refresh(handle)).state is TaskState.PENDING

    @rows("timeout", [-1, float("nan"), "5"])
    async def test_an_invalid_timeout_is_refused(self, app: Application, timeout: Any) -> None:
        handle = await app.task.adelay()

        with pytest.raises(ConfigurationError, match="timeout must be"):
            await app.result(handle, timeout)

    async def test_a_deleted_task_is_reported_as_not_found(self, app: Application) -> None:
        handle = await app.task.adelay()
        app.server.client.delete(app.keys.task(handle.id))

        for ask in (app.result, app.refresh):
            with pytest.raises(TaskNotFoundError) as caught:
                await ask(handle)
            assert str(caught.value) == (
                f"no task {handle.id!r} in queue 'default'; a task that has succeeded is stored only if it has a "
                "retention"
            )

    async def test_a_lost_subscription_only_delays_the_result(self, app: Application) -> None:
        handle = await app.task.adelay()
        waiting = asyncio.ensure_future(app.result(handle, 60))
        await app.waiting()

        app.server.client.client_kill_filter(_type="pubsub")
        app.finish()

        assert await waiting == 5


class TestRefresh:
    async def test_refresh_reads_the_task_and_stores_its_info_in_the_handle(self, app: Application) -> None:
        handle = await app.task.using(max_retry=3, headers={"a": "b"}).adelay(n=1)
        before = handle.info

        info = await app.refresh(handle)

        assert before is None
        assert handle.info is info
        assert (info.id, info.name, info.queue, info.state) == (handle.id, "t", "default", TaskState.PENDING)
        assert (info.payload, info.headers, info.max_retry) == (b'{"n":1}', {"a": "b"}, 3)

    async def test_refresh_reads_tasks_in_each_state(self, app: Application) -> None:
        states = []
        handle = await app.task.using(run_after=3600).adelay()
        states.append((await app.refresh(handle)).state)
        handle = await app.task.adelay()
        states.append((await app.refresh(handle)).state)
        (message,) = app.dequeue().values()
        states.append((await app.refresh(handle)).state)
        app.settle(handle.id, Outcome.RETRY, message, delay_ms=60_000)
        states.append((await app.refresh(handle)).state)
        handle = await app.task.adelay()
        app.archive()
        states.append((await app.refresh(handle)).state)
        handle = await app.task.adelay()
        app.finish()
        states.append((await app.refresh(handle)).state)

        assert states == ["scheduled", "pending", "active", "retry", "archived", "completed"]


class TestCancel:
    async def test_cancel_deletes_a_waiting_task(self, app: Application) -> None:
        """The task is pending, scheduled or between two attempts. Its unique lock is released."""
        pending = await app.task.using(unique_for=60).adelay(n=1)
        scheduled = await app.task.using(run_after=3600).adelay()
        retried = await app.task.using(queue="other").adelay()
        other = app.taskq.runtime.keys.queue("other")
        found = app.run(runs.dequeue(other, owner="w", call=1, limit=1, lease_s=30))
        settlement = Settlement(retried.id, Outcome.RETRY, 1, found.tasks[0][1], delay_ms=60_000)
        app.run(runs.settle(other, [settlement], owner="w"))

        answers = [await app.cancel(handle) for handle in (pending, scheduled, retried)]

        assert answers == [True, True, True]
        assert app.server.client.keys("asynq:*:t:*") == []
        assert (await app.task.using(unique_for=60).adelay(n=1)).is_sent

    async def test_cancel_notifies_the_worker_of_a_running_task(self, app: Application) -> None:
        handle = await app.task.adelay()
        app.dequeue()
        listener = app.server.client.pubsub()
        listener.subscribe("asynq:cancel")
        assert listener.get_message(timeout=60)["type"] == "subscribe"

        answer = await app.cancel(handle)

        assert answer is True
        assert listener.get_message(timeout=60)["data"] == handle.id.encode()
        assert (await app.refresh(handle)).state is TaskState.ACTIVE
        listener.close()

    async def test_cancel_leaves_an_ended_task_unchanged(self, app: Application) -> None:
        completed = await app.task.adelay()
        app.finish()
        archived = await app.task.adelay()
        app.archive()
        gone = await app.task.using(retention=0).adelay()
        app.server.client.delete(app.keys.task(gone.id))

        assert [await app.cancel(handle) for handle in (completed, archived, gone)] == [False, False, False]
        assert (await app.refresh(completed)).state is TaskState.COMPLETED
        assert (await app.refresh(archived)).state is TaskState.ARCHIVED


@pytest.mark.usefixtures("no_polling")
class TestSharing:
    async def test_many_coroutines_share_one_subscription(self, redis_server: RedisServer) -> None:
        """One connection serves all callers and is closed when the last caller has its result."""
        app = Application(TaskQ(redis_server.url, enqueue_timeout=30), redis_server, is_async=True)
        handles = await asyncio.gather(*[app.task.adelay(n=n) for n in range(100)])
        waiting = [asyncio.ensure_future(handle.aresult()) for handle in handles for _ in range(2)]
        await app.waiting(100)
        listeners = len(redis_server.client.client_list(_type="pubsub"))
        subscribers = redis_server.client.pubsub_numsub(app.keys.done)[0][1]

        while app.server.client.llen(app.keys.pending):
            app.finish()
        answers = await asyncio.gather(*waiting)
        await app.taskq.aclose()

        assert (listeners, subscribers) == (1, 1)
        assert answers == [5] * 200
        await until(lambda: not redis_server.client.client_list(_type="pubsub"), "the server has noticed")

    async def test_a_caller_that_joins_a_subscription_later_gets_its_result(self, redis_server: RedisServer) -> None:
        app = Application(TaskQ(redis_server.url, enqueue_timeout=30), redis_server, is_async=True)
        first, second = await app.task.adelay(n=1), await app.task.adelay(n=2)
        waiting = [asyncio.ensure_future(first.aresult())]
        await app.waiting(1)
        waiting.append(asyncio.ensure_future(second.aresult()))
        await app.waiting(2)

        app.finish()

        assert await asyncio.gather(*waiting) == [5, 5]
        await app.taskq.aclose()

    async def test_a_cancelled_caller_does_not_disturb_the_other_callers(self, redis_server: RedisServer) -> None:
        app = Application(TaskQ(redis_server.url, enqueue_timeout=30), redis_server, is_async=True)
        handle = await app.task.adelay()
        waiting = [asyncio.ensure_future(handle.aresult()) for _ in range(3)]
        await app.waiting()
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        with pytest.raises(ResultTimeoutError):
            await handle.aresult(0)

        app.finish()

        assert await asyncio.gather(*waiting[1:]) == [5, 5]
        await app.taskq.aclose()

    def test_each_thread_gets_the_result_of_its_own_task(self, redis_server: RedisServer) -> None:
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        app = Application(taskq, redis_server, is_async=False)
        handles = [app.task.delay(n=n) for n in range(5)]
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda h=handle: answers.append(h.result(60))) for handle in handles]
        for thread in threads:
            thread.start()
        asyncio.run(app.waiting(5))

        app.finish()
        for thread in threads:
            thread.join()
        taskq.close()

        assert answers == [5] * 5
