"""Test limits of pending tasks from the caller's side. Tests run for both clients if the clients may differ."""

import asyncio
import contextlib
import pickle
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import pytest

from taskq_core import (
    BulkResult,
    DuplicateTaskError,
    EnqueueError,
    QueueFullError,
    Signature,
    TaskHandle,
    TaskIdConflictError,
    TaskNotSentError,
    TaskQ,
)
from taskq_core.broker.operations.operation import BATCH_MAX
from taskq_core.worker import Worker, WorkerConfig
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import until

pytestmark = pytest.mark.redis
PENDING = "asynq:{default}:pending"
T = TypeVar("T")


@pytest.fixture(params=["Client", "AsyncClient"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "AsyncClient")


class Application:
    """A `TaskQ` with limits, whose enqueues go through one of the two clients."""

    def __init__(self, url: str, limit: Any, *, is_async: bool, **settings: Any) -> None:
        self.taskq = TaskQ(url, limits={"default": limit}, **{"enqueue_timeout": 30, **settings})
        self.is_async = is_async

    def call(self, **options: Any) -> Signature[Any]:
        return self.taskq.remote("t", **options).s()

    async def send(self, **options: Any) -> TaskHandle[Any]:
        if self.is_async:
            return await self.taskq.async_client.enqueue(self.call(**options))
        return await asyncio.to_thread(self.taskq.client.enqueue, self.call(**options))

    async def send_many(self, calls: Iterable[Signature[Any]]) -> BulkResult:
        if self.is_async:
            return await self.taskq.async_client.enqueue_many(calls)
        return await asyncio.to_thread(self.taskq.client.enqueue_many, calls)


def rejects(most: int) -> int:
    return most


def blocks(most: int, timeout_s: float) -> dict[str, object]:
    return {"MAX_PENDING": most, "WHEN_FULL": "block", "BLOCK_TIMEOUT": timeout_s}


@pytest.fixture
async def open_app(redis_server: RedisServer, is_async: bool) -> AsyncIterator[Any]:
    opened: list[Application] = []

    def start(limit: Any, **settings: Any) -> Application:
        opened.append(Application(redis_server.url, limit, is_async=is_async, **settings))
        return opened[-1]

    yield start
    for app in opened:
        await app.taskq.aclose()


def pending(server: RedisServer) -> int:
    return int(server.client.llen(PENDING))  # type: ignore[arg-type]  # the blocking client


def script_calls(server: RedisServer) -> int:
    return int(server.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


async def started(send: Coroutine[Any, Any, T], server: RedisServer) -> "asyncio.Task[T]":
    """Start an enqueue, and return after its first attempt."""
    calls = script_calls(server)
    sending = asyncio.create_task(send)
    await until(lambda: script_calls(server) > calls, "it was tried")
    return sending


class Drain:
    """Take tasks off the pending list, as workers do, after a few enqueues were refused."""

    def __init__(self, server: RedisServer, count: int) -> None:
        self._server = server
        self._count = count

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._drain())

    async def __aexit__(self, *exc: object) -> None:
        await self._task

    async def _drain(self) -> None:
        calls = script_calls(self._server)
        await until(lambda: script_calls(self._server) >= calls + 3, "whoever waits has tried and was refused")
        self._server.client.ltrim(PENDING, 0, -1 - self._count)


class TestReject:
    async def test_the_queue_full_error_has_the_size_and_the_limit(
        self, open_app: Any, redis_server: RedisServer
    ) -> None:
        app = open_app(rejects(2))
        await app.send()
        await app.send()

        with pytest.raises(QueueFullError) as caught:
            await app.send(task_id="id-3", unique_for=60)

        error = caught.value
        assert (error.task, error.queue, error.task_id, error.size, error.limit) == ("t", "default", "id-3", 2, 2)
        assert str(error) == (
            "task 't' was not enqueued: queue 'default' is full; 2 tasks are pending, and the limit is 2"
        )
        assert isinstance(error, EnqueueError)
        assert (str(pickle.loads(pickle.dumps(error))), pickle.loads(pickle.dumps(error)).size) == (str(error), 2)
        assert not redis_server.client.exists("asynq:{default}:t:id-3")
        assert not list(redis_server.client.scan_iter("asynq:{default}:unique:*"))

    async def test_a_refused_task_is_accepted_once_the_queue_has_room(
        self, open_app: Any, redis_server: RedisServer
    ) -> None:
        """The refused attempt did not take the unique lock."""
        app = open_app(rejects(1))
        await app.send()
        with pytest.raises(QueueFullError):
            await app.send(unique_for=60)
        redis_server.client.rpop(PENDING)

        handle = await app.send(unique_for=60)

        assert handle.is_sent
        with pytest.raises(DuplicateTaskError):
            await app.send(unique_for=60)

    async def test_other_queues_and_scheduled_and_grouped_tasks_are_accepted(self, open_app: Any) -> None:
        app = open_app(rejects(1))
        await app.send()

        for options in ({"queue": "other"}, {"run_after": 60}, {"aggregate": "g"}):
            assert (await app.send(**options)).is_sent

    async def test_a_bulk_enqueue_reports_each_refused_task(self, open_app: Any, redis_server: RedisServer) -> None:
        app = open_app(rejects(BATCH_MAX + 50))
        ids = [f"id-{number}" for number in range(BATCH_MAX * 2)]

        result = await app.send_many(app.call(task_id=each) for each in ids)

        assert list(result.ids) == ids[: BATCH_MAX + 50]
        assert [error.task_id for error in result.errors] == ids[BATCH_MAX + 50 :]
        assert {(type(error), error.size, error.limit) for error in result.errors} == {(QueueFullError, 250, 250)}
        assert pending(redis_server) == 250

    async def test_an_enqueue_with_a_lost_reply_is_accepted_although_the_queue_is_full(
        self, redis_server: RedisServer, is_async: bool
    ) -> None:
        """The repeat finds the queue full, partly because of its first attempt, and gets its reply from the receipt."""
        with Relay(redis_server.socket_path) as relay:
            app = Application(relay.url, rejects(2), is_async=is_async, enqueue_timeout=60)
            await app.send()
            relay.drop_reply_to(b"id-1", times=2)

            handle = await app.send(task_id="id-1")
            await app.taskq.aclose()

        assert relay.intercepted == 2
        assert handle.is_sent
        assert pending(redis_server) == 2

    async def test_a_used_id_is_reported_although_the_queue_is_full(self, open_app: Any) -> None:
        """A caller does this after an unknown outcome. A queue that is full by now does not change the answer."""
        app = open_app(rejects(1))
        await app.send(task_id="id-1")

        with pytest.raises(TaskIdConflictError):
            await app.send(task_id="id-1")


class TestBlock:
    async def test_an_enqueue_waits_until_the_queue_has_room(self, open_app: Any, redis_server: RedisServer) -> None:
        app = open_app(blocks(1, 60))
        await app.send()

        async with Drain(redis_server, 1):
            handle = await app.send()

        assert handle.is_sent
        assert redis_server.client.lrange(PENDING, 0, -1) == [handle.id.encode()]

    async def test_an_enqueue_fails_after_the_block_timeout(
        self, open_app: Any, redis_server: RedisServer, clock: Clock
    ) -> None:
        app = open_app(blocks(1, 60))
        await app.send()

        sending = await started(app.send(unique_for=60), redis_server)
        await clock.advance(50)
        assert not sending.done()
        await clock.advance(15)
        with pytest.raises(QueueFullError) as caught:
            await sending

        assert (caught.value.size, caught.value.limit) == (1, 1)
        assert pending(redis_server) == 1
        assert not list(redis_server.client.scan_iter("asynq:{default}:unique:*"))

    async def test_without_a_block_timeout_an_enqueue_waits_for_the_enqueue_timeout(
        self, open_app: Any, redis_server: RedisServer, clock: Clock
    ) -> None:
        await open_app(rejects(1)).send()
        app = open_app({"MAX_PENDING": 1, "WHEN_FULL": "block"}, enqueue_timeout=30)

        sending = await started(app.send(), redis_server)
        await clock.advance(25)
        assert not sending.done()
        await clock.advance(10)
        with pytest.raises(QueueFullError):
            await sending

    async def test_a_bulk_enqueue_continues_when_the_queue_gets_room(
        self, open_app: Any, redis_server: RedisServer
    ) -> None:
        """Each task is stored once and in order, and the pending tasks never exceed the limit."""
        app = open_app(blocks(BATCH_MAX + 10, 60))
        ids = [f"id-{number}" for number in range(BATCH_MAX * 3)]
        most, taken = 0, []

        sending = asyncio.ensure_future(app.send_many(app.call(task_id=each) for each in ids))
        while not sending.done():
            most = max(most, pending(redis_server))
            taken += redis_server.client.rpop(PENDING, 30) or []  # type: ignore[operator]  # the blocking client
            await asyncio.sleep(0)
        result = await sending
        taken += redis_server.client.rpop(PENDING, len(ids)) or []  # type: ignore[operator]  # the blocking client

        assert [each.decode() for each in taken] == ids
        assert list(result.ids) == ids
        assert result.errors == []
        assert 0 < most <= BATCH_MAX + 10

    async def test_a_bulk_enqueue_times_out_only_once(
        self, open_app: Any, redis_server: RedisServer, clock: Clock
    ) -> None:
        """After the timeout, each task without room is refused at once."""
        app = open_app(blocks(10, 1))
        redis_server.client.config_resetstat()

        sending = await started(app.send_many(app.call() for _ in range(BATCH_MAX * 10)), redis_server)
        await clock.advance(2)
        result = await sending
        calls = script_calls(redis_server)

        assert (len(result), len(result.errors)) == (10, BATCH_MAX * 10 - 10)
        assert {type(error) for error in result.errors} == {QueueFullError}
        assert calls < 10 + 9  # the first batch tried a few times, all others once

    async def test_an_enqueue_cancelled_while_it_waits_stores_nothing(self, redis_server: RedisServer) -> None:
        app = Application(redis_server.url, blocks(1, 60), is_async=True)
        await app.send()
        waiting = asyncio.create_task(app.send(task_id="id-2"))
        async with Drain(redis_server, 0):
            pass

        waiting.cancel()
        await asyncio.wait((waiting,))
        redis_server.client.rpop(PENDING)
        await app.send(task_id="id-3")
        await app.taskq.aclose()

        assert waiting.cancelled()
        assert redis_server.client.lrange(PENDING, 0, -1) == [b"id-3"]

    async def test_all_waiting_callers_enqueue_their_tasks_in_the_end(
        self, open_app: Any, redis_server: RedisServer
    ) -> None:
        app = open_app(blocks(2, 60))

        @app.taskq.task(name="t")
        def work() -> None: ...

        worker = Worker(app.taskq, WorkerConfig())
        running = asyncio.create_task(asyncio.to_thread(worker.run))
        handles = await asyncio.gather(*[app.send() for _ in range(40)])
        await until(lambda: not pending(redis_server))
        worker.stop()
        await running

        assert len({handle.id for handle in handles}) == 40
        assert all(handle.is_sent for handle in handles)


class Hook:
    """A transaction hook that stores the deferred sends. The test calls them to commit."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def defer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        self.waiting.append(send)
        return True

    async def adefer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        return self.defer(send, dropped)


class TestTransactions:
    """An enqueue deferred to the commit is refused at the commit, as it would be without a transaction."""

    @pytest.fixture
    def hook(self) -> Hook:
        return Hook()

    async def test_a_task_is_refused_when_the_queue_is_full_at_the_commit(
        self, open_app: Any, redis_server: RedisServer, hook: Hook
    ) -> None:
        app = open_app(rejects(1))
        app.taskq.configure(app.taskq.settings, transaction=hook)
        first, second = await app.send(), await app.send()

        await asyncio.to_thread(hook.waiting[0])
        with pytest.raises(QueueFullError):
            await asyncio.to_thread(hook.waiting[1])

        assert (first.is_sent, second.is_sent) == (True, False)
        with pytest.raises(TaskNotSentError, match="queue 'default' is full"):
            second.refresh()
        assert pending(redis_server) == 1

    async def test_a_commit_times_out_on_a_full_queue_only_once(
        self, open_app: Any, redis_server: RedisServer, hook: Hook, clock: Clock
    ) -> None:
        """`ENQUEUE_TIMEOUT` bounds the wait even if `BLOCK_TIMEOUT` is longer. The other tasks are tried once each."""
        app = open_app(blocks(1, 3600), enqueue_timeout=30)
        await app.send()
        await app.taskq.aclose()  # on an event loop, `configure` does not close the replaced connections
        app.taskq.configure(app.taskq.settings, transaction=hook)
        for _ in range(5):
            await app.send()
        await app.send_many(app.call() for _ in range(5))

        def commit() -> list[int]:
            tries = []
            for send in hook.waiting:
                redis_server.client.config_resetstat()
                with contextlib.suppress(QueueFullError):
                    send()
                tries.append(script_calls(redis_server))
            return tries

        committing = asyncio.ensure_future(asyncio.to_thread(commit))
        await clock.advance(35)
        first, *rest = await committing

        assert first > 1
        assert rest == [1] * 5


class TestReturningTasks:
    async def test_a_full_queue_accepts_retries_and_due_tasks(self, open_app: Any) -> None:
        """A worker runs all tasks of a full queue, including those that return to it."""
        app = open_app(rejects(3))
        runs: list[str] = []

        @app.taskq.task(name="fails once", max_retry=2, retry_delay=0)
        async def fails_once(name: str) -> None:
            runs.append(name)
            if runs.count(name) == 1:
                raise ValueError(name)

        for name in ("a", "b", "c"):
            await asyncio.to_thread(app.taskq.client.enqueue, fails_once.s(name))
        worker = Worker(app.taskq, WorkerConfig())
        running = asyncio.create_task(worker.arun())
        await until(lambda: len(runs) == 6)
        worker.stop()
        await running

        assert sorted(runs) == ["a", "a", "b", "b", "c", "c"]
