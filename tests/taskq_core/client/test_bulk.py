"""Bulk enqueue by both clients: streaming, refusals, failures, transactions, memory."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskq_core import (
    BulkEnqueueError,
    BulkResult,
    ConfigurationError,
    DuplicateTaskError,
    Signature,
    TaskArgumentsError,
    TaskIdConflictError,
    TaskNotSentError,
    TaskQ,
)
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.operation import BATCH_MAX, Operation
from taskq_core.client.sender import IN_FLIGHT_MAX
from taskq_core.wire import decode_message
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.rows import rows
from tests.taskq_core.worker.conftest import until


class Application:
    """A `TaskQ` whose `enqueue_many` goes through one of the two clients."""

    def __init__(self, taskq: TaskQ, *, is_async: bool) -> None:
        self.taskq = taskq
        self.is_async = is_async

    async def send(self, calls: Iterable[Signature[Any]]) -> BulkResult:
        if self.is_async:
            return await self.taskq.async_client.enqueue_many(calls)
        return await asyncio.to_thread(self.taskq.client.enqueue_many, calls)


@pytest.fixture(params=["Client", "AsyncClient"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "AsyncClient")


@pytest.fixture
async def app(redis_server: RedisServer, is_async: bool) -> AsyncIterator[Application]:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    yield Application(taskq, is_async=is_async)
    await taskq.aclose()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans that ended in this test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def pending(server: RedisServer, queue: str = "default") -> list[str]:
    """Ids of the pending tasks, oldest first."""
    return [each.decode() for each in server.client.lrange(f"asynq:{{{queue}}}:pending", 0, -1)][::-1]


class TestStreaming:
    async def test_all_calls_are_enqueued_in_order_in_batches(
        self, app: Application, redis_server: RedisServer
    ) -> None:
        """Each task has its own arguments, id and handle. Each batch takes one script call."""
        task = app.taskq.remote("t")
        await app.send([task.s()])
        redis_server.flushall()
        redis_server.client.config_resetstat()

        result = await app.send(task.s(n=n) for n in range(1050))

        calls = redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
        ids = pending(redis_server)
        assert calls <= 1050 // BATCH_MAX + 2
        assert len(result) == 1050
        assert list(result.ids) == ids
        assert [handle.id for handle in result] == ids
        assert (result[7].id, result[-1].id, [each.id for each in result[2:4]]) == (ids[7], ids[-1], ids[2:4])
        assert (result.errors, repr(result)) == ([], "<1050 tasks enqueued, 0 refused>")
        for n in (0, 199, 200, 1049):
            stored = redis_server.client.hget(f"asynq:{{default}}:t:{ids[n]}", "msg")
            assert decode_message(stored).payload == b'{"n":%d}' % n
        with pytest.raises(IndexError):
            result[1050]

    async def test_an_empty_iterable_enqueues_nothing(self, app: Application, redis_server: RedisServer) -> None:
        result = await app.send([])

        assert (len(result), result.errors) == (0, [])
        assert redis_server.client.keys() == []

    async def test_calls_with_several_queues_and_options_are_enqueued(
        self, app: Application, redis_server: RedisServer
    ) -> None:
        a, b = app.taskq.remote("a", queue="qa", headers={"x": "y"}), app.taskq.remote("b", queue="qb", retention=60)
        calls = [each.s(n=n) for n in range(3) for each in (a, b, a.using(run_after=60))]

        result = await app.send(calls)

        assert len(result) == 9
        assert [len(pending(redis_server, "qa")), len(pending(redis_server, "qb"))] == [3, 3]
        assert redis_server.client.zcard("asynq:{qa}:scheduled") == 3
        assert {(handle.queue, handle.name, handle.is_kept) for handle in result} == {
            ("qa", "a", False),
            ("qb", "b", True),
        }
        stored = redis_server.client.hget(f"asynq:{{qa}}:t:{pending(redis_server, 'qa')[0]}", "msg")
        assert dict(decode_message(stored).headers) == {"x": "y"}
        assert redis_server.client.smembers("asynq:queues") == {b"qa", b"qb"}

    async def test_a_batch_is_bounded_by_bytes(self, app: Application, redis_server: RedisServer) -> None:
        task = app.taskq.remote("t")
        await app.send([task.s()])
        redis_server.client.config_resetstat()

        await app.send(task.s(b"x" * 600_000) for _ in range(6))

        assert redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3

    async def test_each_batch_and_each_of_its_tasks_has_a_span(
        self, app: Application, redis_server: RedisServer, spans: InMemorySpanExporter
    ) -> None:
        """There is a full batch and a rest. An SDK keeps 128 links a span, so a batch has at most as many tasks."""
        task = app.taskq.remote("t")

        result = await app.send(task.s(n=n) for n in range(BATCH_MAX + 50))

        ended = [span for span in spans.get_finished_spans() if span.context]
        created = {format(span.context.span_id, "016x"): span for span in ended if span.name == "create default"}
        sends = [span for span in ended if span.name == "send default"]
        for task_id in result.ids:
            stored = redis_server.client.hget(f"asynq:{{default}}:t:{task_id}", "msg")
            span = created.pop(decode_message(stored).headers["traceparent"].split("-")[2])
            assert dict(span.attributes or {})["messaging.message.id"] == task_id
        assert not created
        told = [dict(span.attributes or {})["messaging.batch.message_count"] for span in sends]
        assert told == [128, BATCH_MAX + 50 - 128]
        assert [(len(span.links), span.dropped_links) for span in sends] == [(count, 0) for count in told]

    async def test_without_task_spans_a_batch_keeps_its_full_size(
        self, redis_server: RedisServer, is_async: bool, spans: InMemorySpanExporter
    ) -> None:
        taskq = TaskQ(redis_server.url, enqueue_timeout=30, trace={"CREATE_SPANS": False})
        task = taskq.remote("t")

        await Application(taskq, is_async=is_async).send(task.s(n=n) for n in range(BATCH_MAX + 50))
        await taskq.aclose()

        sends = spans.get_finished_spans()
        assert {span.name for span in sends} == {"send default"}
        assert [dict(span.attributes or {})["messaging.batch.message_count"] for span in sends] == [BATCH_MAX, 50]

    async def test_an_asynchronous_iterable_is_enqueued(self, redis_server: RedisServer) -> None:
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)

        async def calls() -> AsyncIterator[Signature[Any]]:
            for n in range(450):
                await asyncio.sleep(0)
                yield taskq.remote("t").s(n=n)

        result = await taskq.async_client.enqueue_many(calls())
        await taskq.aclose()

        assert list(result.ids) == pending(redis_server)
        assert len(result) == 450

    async def test_other_coroutines_run_between_batches(self, redis_server: RedisServer) -> None:
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        task = taskq.remote("t")
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.ensure_future(count())
        await taskq.async_client.enqueue_many(task.s(n=n) for n in range(10 * BATCH_MAX))
        counting.cancel()
        await taskq.aclose()

        assert turns >= 10

    async def test_payloads_are_released_after_they_are_sent(self, app: Application, redis_server: RedisServer) -> None:
        """Payloads (here 12 MB in all) are released once they were sent; ids (600 KB) are kept."""
        task = app.taskq.remote("t")
        payload = "x" * 2000

        def calls(count: int) -> Iterator[Signature[Any]]:
            for n in range(count):
                if n % 1000 == 999:
                    redis_server.flushall()  # the server need not hold them either
                yield task.s(n=n, text=payload + str(n))

        await app.send(calls(200))
        gc.collect()
        tracemalloc.start()
        result = await app.send(calls(6_000))
        size, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert len(result) == 6_000
        assert size < 900_000
        assert peak < 4_200_000
        assert result[-1].id == pending(redis_server)[-1]


class TestRefusals:
    async def test_a_bulk_result_lists_the_refused_and_the_enqueued_tasks(
        self, app: Application, redis_server: RedisServer
    ) -> None:
        task = app.taskq.remote("t")
        await app.send([task.using(task_id="x").s(), task.using(unique_for=60).s(n=1)])

        result = await app.send(
            [
                task.s(),
                task.using(task_id="x").s(),
                task.using(unique_for=60).s(n=1),
                task.using(task_id="y").s(),
                task.using(task_id="y").s(),
            ]
        )

        assert [type(error) for error in result.errors] == [
            TaskIdConflictError,
            DuplicateTaskError,
            TaskIdConflictError,
        ]
        assert [error.task_id for error in result.errors][::2] == ["x", "y"]
        assert list(result.ids) == pending(redis_server)[2:]
        assert repr(result) == "<2 tasks enqueued, 3 refused>"
        with pytest.raises(ExceptionGroup, match="3 tasks were not enqueued") as caught:
            result.raise_errors()
        assert caught.value.exceptions == tuple(result.errors)

    async def test_raise_errors_does_nothing_without_errors(self, app: Application) -> None:
        (await app.send([app.taskq.remote("t").s()])).raise_errors()

    async def test_an_invalid_call_raises_after_the_calls_before_it_are_sent(
        self, app: Application, redis_server: RedisServer
    ) -> None:
        """All full batches before the call are enqueued, and a note of the error counts their tasks."""

        @app.taskq.task(name="t")
        def task(n: int) -> None: ...

        def calls() -> Iterator[Signature[Any]]:
            for n in range(2 * BATCH_MAX + 10):
                yield task.s(n)
            yield task.s("canary")  # type: ignore[arg-type]  # the point of the test

        with pytest.raises(TaskArgumentsError, match="parameter 'n': expected int, got str") as caught:
            await app.send(calls())

        assert caught.value.__notes__ == ["400 tasks of this bulk enqueue were enqueued before"]
        assert len(pending(redis_server)) == 2 * BATCH_MAX
        await app.send([task.s(1)])

    async def test_an_exception_of_the_iterable_reaches_the_caller(
        self, app: Application, redis_server: RedisServer
    ) -> None:
        def calls() -> Iterator[Signature[Any]]:
            yield app.taskq.remote("t").s()
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await app.send(calls())

        assert pending(redis_server) == []

    async def test_headers_over_the_limit_are_refused(self, app: Application) -> None:
        with pytest.raises(ConfigurationError, match="headers of a task have"):
            await app.send([app.taskq.remote("t").using(headers={"a": "x" * 8000}).s()])


class TestFailures:
    async def test_an_unreachable_redis_raises_a_bulk_error_with_all_ids(self, is_async: bool) -> None:
        app = Application(TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01), is_async=is_async)
        task = app.taskq.remote("t")

        with pytest.raises(BulkEnqueueError) as caught:
            await app.send(task.using(task_id=f"id-{n}").s() for n in range(300))
        await app.taskq.aclose()

        assert (caught.value.enqueued, caught.value.may_have_happened) == (0, False)
        assert caught.value.task_ids == tuple(f"id-{n}" for n in range(BATCH_MAX))
        assert str(caught.value).startswith(
            "0 tasks were enqueued; the next 200 were not: cannot reach redis://127.0.0.1:1/0"
        )

    async def test_a_batch_with_a_lost_reply_is_sent_again_and_stored_once(
        self, redis_server: RedisServer, is_async: bool
    ) -> None:
        with Relay(redis_server.socket_path) as relay:
            app = Application(TaskQ(relay.url, enqueue_timeout=60), is_async=is_async)
            task = app.taskq.remote("t")
            await app.send([task.s()])
            relay.drop_reply_to(b"id-250")

            result = await app.send(task.using(task_id=f"id-{n}").s() for n in range(700))
            await app.taskq.aclose()

        assert relay.intercepted == 1
        assert (len(result), result.errors) == (700, [])
        assert pending(redis_server)[1:] == [f"id-{n}" for n in range(700)]

    async def test_batches_are_sent_before_earlier_ones_are_answered(
        self, redis_server: RedisServer, is_async: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without it, each batch would take a round trip. A coroutine sends all waiting batches in one write."""
        together: list[int] = []
        made = 0
        try_together = AsyncRunner.try_together

        async def noted(self: AsyncRunner, operations: Sequence[Operation[Any]]) -> list[Any]:
            together.append(len(operations))
            return await try_together(self, operations)

        def calls() -> Iterator[Signature[Any]]:
            nonlocal made
            for made in range(1, 20 * BATCH_MAX + 1):
                yield task.s(n=made)

        monkeypatch.setattr(AsyncRunner, "try_together", noted)
        with Relay(redis_server.socket_path) as relay:
            app = Application(TaskQ(relay.url, enqueue_timeout=60), is_async=is_async)
            task = app.taskq.remote("t")
            await app.send([task.s()])
            redis_server.flushall()
            relay.hold("replies")

            sending = asyncio.create_task(app.send(calls()))
            await until(lambda: made >= (IN_FLIGHT_MAX + 1) * BATCH_MAX)
            await until(lambda: len(pending(redis_server)) == (1 if is_async else IN_FLIGHT_MAX) * BATCH_MAX)
            relay.forward()
            result = await sending
            await app.taskq.aclose()

        assert list(result.ids) == pending(redis_server)
        assert len(result) == 20 * BATCH_MAX
        assert together[:1] == ([IN_FLIGHT_MAX] if is_async else [])

    async def test_a_bulk_error_names_the_tasks_of_batches_that_were_sent_after_the_failed_one(
        self, redis_server: RedisServer, is_async: bool
    ) -> None:
        """Redis has stored the third batch. It has refused the second one."""
        with Relay(redis_server.socket_path) as relay:
            app = Application(TaskQ(relay.url, enqueue_timeout=60), is_async=is_async)
            task, broken = app.taskq.remote("t"), app.taskq.remote("t", queue="broken")
            await app.send([task.s(), broken.s()])
            redis_server.flushall()
            redis_server.client.set("asynq:{broken}:pending", "no list")
            relay.hold("replies")
            calls = [
                each.using(task_id=f"{name}-{n}").s()
                for name, each in (("a", task), ("b", broken), ("c", task))
                for n in range(BATCH_MAX)
            ]

            sending = asyncio.create_task(app.send(calls))
            await until(lambda: len(pending(redis_server)) == (1 if is_async else 2) * BATCH_MAX)
            relay.forward()
            with pytest.raises(BulkEnqueueError, match="WRONGTYPE") as caught:
                await sending
            await app.taskq.aclose()

        assert (caught.value.enqueued, caught.value.may_have_happened) == (BATCH_MAX, True)
        assert caught.value.task_ids == tuple(f"{name}-{n}" for name in "bc" for n in range(BATCH_MAX))
        assert pending(redis_server) == [f"{name}-{n}" for name in "ac" for n in range(BATCH_MAX)]

    @rows("turns", [1, 2, 3, 5, 8, 13])
    async def test_a_cancelled_bulk_enqueue_stores_only_complete_batches(
        self, redis_server: RedisServer, turns: int
    ) -> None:
        """The batch in flight is sent completely, and the client keeps working."""
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        task = taskq.remote("t")
        await taskq.async_client.enqueue_many([task.s()])
        sending = asyncio.ensure_future(
            taskq.async_client.enqueue_many(task.using(task_id=f"id-{n}").s() for n in range(2000))
        )
        for _ in range(turns):
            await asyncio.sleep(0)

        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await taskq.async_client.enqueue_many([task.s()])
        await taskq.aclose()

        ids = [each for each in pending(redis_server) if each.startswith("id-")]
        assert len(ids) % BATCH_MAX == 0
        assert ids == [f"id-{n}" for n in range(len(ids))]


class TestTransactions:
    class Hook:
        """Holds what is sent until `commit`."""

        def __init__(self) -> None:
            self.waiting: list[Callable[[], None]] = []

        def defer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
            self.waiting.append(send)
            return True

        async def adefer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
            return self.defer(send, dropped)

        async def commit(self) -> None:
            for send in self.waiting:
                await asyncio.to_thread(send)

    @pytest.fixture
    def hook(self, app: Application) -> Hook:
        hook = self.Hook()
        app.taskq.configure(app.taskq.settings, transaction=hook)
        return hook

    async def test_all_tasks_are_sent_at_the_commit(
        self, app: Application, redis_server: RedisServer, hook: Hook
    ) -> None:
        """Handles and ids exist at once; the handles raise until the commit."""
        task = app.taskq.remote("t")

        result = await app.send(task.s(n=n) for n in range(450))
        early = result[449]
        before = (len(result), list(result.ids), redis_server.client.keys(), early.is_sent)
        with pytest.raises(TaskNotSentError, match="try again after the commit"):
            early.refresh()
        await hook.commit()

        assert before == (450, pending(redis_server), [], False)
        assert list(result.ids) == before[1]
        assert (early.is_sent, result[449].is_sent, result[449].id) == (True, True, early.id)

    async def test_a_rollback_sends_nothing(self, app: Application, redis_server: RedisServer, hook: Hook) -> None:
        result = await app.send(app.taskq.remote("t").s(n=n) for n in range(450))

        assert repr(result) == "<450 tasks to be enqueued, 0 refused>"
        assert redis_server.client.keys() == []

    async def test_one_invalid_call_prevents_the_whole_bulk_enqueue(
        self, app: Application, redis_server: RedisServer, hook: Hook
    ) -> None:
        @app.taskq.task(name="t")
        def task(n: int) -> None: ...

        with pytest.raises(TaskArgumentsError):
            await app.send([*[task.s(n) for n in range(450)], task.s("x")])  # type: ignore[arg-type]  # the point
        await hook.commit()

        assert redis_server.client.keys() == []

    async def test_handles_report_refused_tasks_after_the_commit(
        self, app: Application, redis_server: RedisServer, hook: Hook
    ) -> None:
        """After the commit the result contains only the enqueued tasks."""
        task = app.taskq.remote("t")
        result = await app.send([task.using(task_id=each).s() for each in ("a", "b", "c")])
        early = list(result)
        redis_server.client.hset("asynq:{default}:t:b", "msg", "x")

        await hook.commit()

        assert [handle.is_sent for handle in early] == [True, False, True]
        with pytest.raises(TaskNotSentError, match="id 'b' is taken"):
            early[1].refresh()
        assert list(result.ids) == ["a", "c"]
        assert [error.task_id for error in result.errors] == ["b"]

    async def test_handles_report_that_sending_failed_after_the_commit(self, is_async: bool) -> None:
        app = Application(TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01), is_async=is_async)
        hook = self.Hook()
        app.taskq.configure(app.taskq.settings, transaction=hook)
        result = await app.send([app.taskq.remote("t").s()])
        early = result[0]

        with pytest.raises(BulkEnqueueError):
            await hook.commit()
        await app.taskq.aclose()

        assert (early.is_sent, len(result)) == (False, 0)
        with pytest.raises(TaskNotSentError, match="the send after the commit failed: 0 tasks were enqueued"):
            early.refresh()
