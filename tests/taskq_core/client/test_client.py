"""Test what an enqueue writes and refuses, and the errors of failures. Each test runs for both clients."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import (
    BrokerUnavailableError,
    DuplicateTaskError,
    EnqueueError,
    EnqueueUnknownError,
    PayloadSizeWarning,
    PayloadTooLargeError,
    Signature,
    TaskHandle,
    TaskIdConflictError,
    TaskNotSentError,
    TaskQ,
)
from taskq_core.client.sync import AFTER_FAILURE_S
from taskq_core.errors import BrokerFullError
from taskq_core.tasks.observer import Observer
from taskq_core.wire import TaskMessage, decode_message
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.rows import rows

Send = Callable[[Signature[Any]], Any]


@pytest.fixture(params=["Client", "AsyncClient"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "AsyncClient")


class Application:
    """A `TaskQ` whose enqueue goes through one of the two clients."""

    def __init__(self, taskq: TaskQ, *, is_async: bool) -> None:
        self.taskq = taskq
        self.is_async = is_async

    async def send(self, call: Signature[Any]) -> TaskHandle[Any]:
        if self.is_async:
            return await self.taskq.async_client.enqueue(call)
        return await asyncio.to_thread(self.taskq.client.enqueue, call)


@pytest.fixture
async def app(redis_server: RedisServer, is_async: bool) -> AsyncIterator[Application]:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    yield Application(taskq, is_async=is_async)
    await taskq.aclose()


def message(server: RedisServer, handle: TaskHandle[Any]) -> TaskMessage:
    return decode_message(server.client.hget(f"asynq:{{{handle.queue}}}:t:{handle.id}", "msg"))


def field(server: RedisServer, handle: TaskHandle[Any], name: str) -> bytes | None:
    return server.client.hget(f"asynq:{{{handle.queue}}}:t:{handle.id}", name)  # type: ignore[return-value] # blocking


class TestStoredTasks:
    async def test_a_task_is_stored_as_asynq_stores_it(self, app: Application, redis_server: RedisServer) -> None:
        """Message, state, list and the set of queues are the same as those of Asynq."""
        task = app.taskq.remote("email:deliver", queue="critical", max_retry=5, timeout=30, retention=60)

        handle = await app.send(task.s(to="a@b.c"))

        stored = message(redis_server, handle)
        assert (stored.type, stored.queue, stored.id) == ("email:deliver", "critical", handle.id)
        assert (stored.retry, stored.timeout, stored.deadline, stored.retention) == (5, 30, 0, 60)
        assert stored.payload == b'{"to":"a@b.c"}'
        assert field(redis_server, handle, "state") == b"pending"
        assert redis_server.client.lrange("asynq:{critical}:pending", 0, -1) == [handle.id.encode()]
        assert redis_server.client.smembers("asynq:queues") == {b"critical"}
        assert (handle.name, handle.queue, handle.is_sent) == ("email:deliver", "critical", True)

    async def test_headers_and_deadline_are_stored(self, app: Application, redis_server: RedisServer) -> None:
        deadline = datetime(2040, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
        task = app.taskq.remote("t", headers={"tenant": "blue"}, deadline=deadline)

        handle = await app.send(task.s())

        stored = message(redis_server, handle)
        assert dict(stored.headers) == {"tenant": "blue"}
        assert (stored.deadline, stored.timeout) == (2_208_988_800, 0)

    async def test_run_after_a_delay_is_rounded_up_to_the_second(
        self, app: Application, redis_server: RedisServer
    ) -> None:
        """The delay counts from Redis's clock, and the second is rounded up: never early."""
        before = redis_server.client.time()
        handle = await app.send(app.taskq.remote("t").using(run_after=timedelta(seconds=90)).s())

        after = redis_server.client.time()
        score = redis_server.client.zscore("asynq:{default}:scheduled", handle.id)
        assert field(redis_server, handle, "state") == b"scheduled"
        assert score == int(score)
        assert before[0] + before[1] / 1e6 + 90 <= score <= after[0] + 1 + 90

    async def test_run_after_a_datetime_is_rounded_up_to_the_second(
        self, app: Application, redis_server: RedisServer
    ) -> None:
        moment = datetime(2040, 1, 1, 0, 0, 0, 1, tzinfo=UTC)

        handle = await app.send(app.taskq.remote("t").using(run_after=moment).s())

        assert redis_server.client.zscore("asynq:{default}:scheduled", handle.id) == math.ceil(moment.timestamp())

    @rows("when", [-5, 0, datetime(1990, 1, 1, tzinfo=UTC), timedelta(days=-3)])
    async def test_a_task_with_a_start_in_the_past_is_pending(
        self, app: Application, redis_server: RedisServer, when: Any
    ) -> None:
        handle = await app.send(app.taskq.remote("t").using(run_after=when).s())

        assert field(redis_server, handle, "state") == b"pending"

    async def test_all_keys_begin_with_the_prefix(self, redis_server: RedisServer, is_async: bool) -> None:
        app = Application(TaskQ(redis_server.url, prefix="shop", enqueue_timeout=30), is_async=is_async)

        handle = await app.send(app.taskq.remote("t").s())
        await app.taskq.aclose()

        assert redis_server.client.lrange("shop:{default}:pending", 0, -1) == [handle.id.encode()]
        assert not redis_server.client.keys("asynq*")

    async def test_a_removed_queue_is_registered_again(self, app: Application, redis_server: RedisServer) -> None:
        """Another process may remove an empty queue. Clients register it again after `REGISTER_EVERY_S`."""
        task = app.taskq.remote("t")
        await app.send(task.s())
        redis_server.client.srem("asynq:queues", "default")
        await app.send(task.s())
        assert redis_server.client.smembers("asynq:queues") == set()

        app.taskq.runtime.preparer.registered_until["default"] = time.monotonic()
        await app.send(task.s())

        assert redis_server.client.smembers("asynq:queues") == {b"default"}


class TestRefusals:
    async def test_a_second_task_with_the_same_id_is_refused(self, app: Application, redis_server: RedisServer) -> None:
        task = app.taskq.remote("t").using(task_id="welcome-7")
        first = await app.send(task.s(a=1))

        with pytest.raises(TaskIdConflictError) as caught:
            await app.send(task.s(a=2))

        assert (caught.value.task, caught.value.queue, caught.value.task_id) == ("t", "default", "welcome-7")
        assert message(redis_server, first).payload == b'{"a":1}'
        assert redis_server.client.llen("asynq:{default}:pending") == 1

    async def test_a_task_is_refused_when_another_task_holds_its_unique_lock(
        self, app: Application, redis_server: RedisServer
    ) -> None:
        """The lock covers queue, name and arguments. A task that differs in one of them is accepted."""
        task = app.taskq.remote("t").using(unique_for=3600)
        first = await app.send(task.s(a=1))

        with pytest.raises(DuplicateTaskError) as caught:
            await app.send(task.s(a=1))
        await app.send(task.s(a=2))
        await app.send(task.using(queue="other").s(a=1))

        assert caught.value.task_id != first.id
        locks = redis_server.client.keys("asynq:{default}:unique:t:*")
        assert len(locks) == 2
        assert all(3590 <= redis_server.client.ttl(lock) <= 3600 for lock in locks)

    async def test_a_task_with_a_used_id_takes_no_unique_lock(
        self, app: Application, redis_server: RedisServer
    ) -> None:
        task = app.taskq.remote("t")
        await app.send(task.using(task_id="x").s(a=1))

        with pytest.raises(TaskIdConflictError):
            await app.send(task.using(task_id="x", unique_for=60).s(a=2))

        assert redis_server.client.keys("asynq:{default}:unique:*") == []

    async def test_a_large_payload_warns(self, app: Application, redis_server: RedisServer) -> None:
        """The warning names the task and starts at 1 MiB. A warning for a smaller payload would fail the test."""
        task = app.taskq.remote("t")
        await app.send(task.s(b"x" * ((1 << 20) - 1)))

        with pytest.warns(PayloadSizeWarning, match="the payload of task 't' is 1048576 bytes, which Redis keeps"):
            handle = await app.send(task.s(b"x" * (1 << 20)))

        assert len(message(redis_server, handle).payload) == 1 << 20

    def test_the_payload_warning_points_at_the_callers_line(self, redis_server: RedisServer) -> None:
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        call = taskq.remote("t").s(b"x" * (1 << 20))

        for send in (call.delay, lambda: taskq.client.enqueue(call), lambda: taskq.client.enqueue_many([call])):
            with pytest.warns(PayloadSizeWarning) as caught:
                send()
            assert [each.filename for each in caught] == [__file__]
        taskq.close()

    async def test_a_payload_over_the_limit_is_refused_before_anything_is_sent(self, is_async: bool) -> None:
        """The error is about the size, although no Redis listens at this address."""
        app = Application(TaskQ("redis://127.0.0.1:1/0"), is_async=is_async)

        with pytest.raises(PayloadTooLargeError, match="is 16777217 bytes, the limit is 16777216; store the data"):
            await app.send(app.taskq.remote("t").s(b"x" * ((16 << 20) + 1)))

    async def test_a_full_redis_refuses_new_tasks(self, is_async: bool) -> None:
        with RedisServer(options={"maxmemory": "1", "maxmemory-policy": "noeviction"}) as server:
            app = Application(TaskQ(server.url, enqueue_timeout=30), is_async=is_async)

            with pytest.raises(EnqueueError, match="over its memory limit") as caught:
                await app.send(app.taskq.remote("t").s())
            await app.taskq.aclose()

        assert isinstance(caught.value.__cause__, BrokerFullError)
        assert not isinstance(caught.value, EnqueueUnknownError)


class TestUnreachable:
    async def test_an_unreachable_redis_fails_the_enqueue_after_the_timeout(self, is_async: bool, clock: Clock) -> None:
        """The task was certainly not stored, so the error is not an `EnqueueUnknownError`. It has the task's id."""
        app = Application(TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=60), is_async=is_async)
        sending = asyncio.ensure_future(app.send(app.taskq.remote("t").using(task_id="id-1").s()))
        await clock.advance(50)
        assert not sending.done()
        await clock.advance(15)

        with pytest.raises(EnqueueError) as caught:
            await sending
        await app.taskq.aclose()

        assert type(caught.value) is EnqueueError
        assert caught.value.task_id == "id-1"
        assert "cannot reach redis://127.0.0.1:1/0" in str(caught.value)


class TestLostReplies:
    @pytest.mark.parametrize("times", [1, 3])
    async def test_an_enqueue_with_a_lost_reply_succeeds_and_stores_one_task(
        self, redis_server: RedisServer, is_async: bool, times: int
    ) -> None:
        with Relay(redis_server.socket_path) as relay:
            app = Application(TaskQ(relay.url, enqueue_timeout=60), is_async=is_async)
            await app.send(app.taskq.remote("t").s())
            relay.drop_reply_to(b"id-1", times=times)

            handle = await app.send(app.taskq.remote("t").using(task_id="id-1", unique_for=60).s())
            await app.taskq.aclose()

        assert handle.is_sent
        assert relay.intercepted == times
        assert redis_server.client.llen("asynq:{default}:pending") == 2

    async def test_a_repeated_enqueue_succeeds_although_its_task_has_finished(
        self, redis_server: RedisServer, is_async: bool
    ) -> None:
        """The receipt, not the task, shows the repeat that the first attempt succeeded."""
        with Relay(redis_server.socket_path) as relay:
            app = Application(TaskQ(relay.url, enqueue_timeout=60), is_async=is_async)
            await app.send(app.taskq.remote("t").s())
            relay.drop_reply_to(b"id-1", times=2)
            sending = asyncio.ensure_future(app.send(app.taskq.remote("t").using(task_id="id-1").s()))
            while not redis_server.client.delete("asynq:{default}:t:id-1"):  # noqa: ASYNC110 - Redis sets no event
                await asyncio.sleep(0)
            redis_server.client.lrem("asynq:{default}:pending", 0, "id-1")

            await sending
            await app.taskq.aclose()

        assert redis_server.client.llen("asynq:{default}:pending") == 1
        assert not redis_server.client.exists("asynq:{default}:t:id-1")

    @pytest.mark.parametrize(("word", "kind"), [(b"id-1", EnqueueUnknownError), (b"SADD", EnqueueError)])
    async def test_a_refused_repeat_leaves_the_enqueue_in_an_unknown_state(
        self, is_async: bool, word: bytes, kind: type[EnqueueError]
    ) -> None:
        """The user's password is revoked. The open connection keeps working until its reply is lost."""
        with RedisServer() as server, Relay(server.socket_path) as relay:
            server.command("ACL", "SETUSER", "app", "on", ">old", "~*", "&*", "+@all")
            app = Application(TaskQ(relay.url.replace("//", "//app:old@"), enqueue_timeout=60), is_async=is_async)
            await app.send(app.taskq.remote("t").s())
            server.command("ACL", "SETUSER", "app", "<old", ">new")
            relay.drop_reply_to(word)
            queue = "mail" if word == b"SADD" else "default"

            with pytest.raises(EnqueueError) as refused:
                await app.send(app.taskq.remote("t").using(task_id="id-1", queue=queue).s())
            await app.taskq.aclose()

            assert type(refused.value) is kind
            assert bool(server.client.exists(f"asynq:{{{queue}}}:t:id-1")) == (kind is EnqueueUnknownError)


class TestTransactionHook:
    """A transaction hook that the test commits or rolls back."""

    class Hook:
        """Holds what is sent until `commit`."""

        def __init__(self) -> None:
            self.is_open = True
            self.waiting: list[Callable[[], None]] = []

        def defer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
            if self.is_open:
                self.waiting.append(send)
            return self.is_open

        async def adefer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
            return self.defer(send, dropped)

        async def commit(self) -> None:
            self.is_open = False
            for send in self.waiting:
                await asyncio.to_thread(send)
            self.waiting = []

    @pytest.fixture
    def hook(self, app: Application) -> Hook:
        hook = self.Hook()
        app.taskq.configure(app.taskq.settings, transaction=hook)
        return hook

    async def test_a_task_is_sent_at_the_commit(self, app: Application, redis_server: RedisServer, hook: Hook) -> None:
        handle = await app.send(app.taskq.remote("t").s(a=1))
        before = redis_server.client.keys()

        await hook.commit()

        assert before == []
        assert handle.is_sent
        assert redis_server.client.lrange("asynq:{default}:pending", 0, -1) == [handle.id.encode()]

    async def test_observers_receive_a_deferred_task_after_it_is_sent(self, app: Application, hook: Hook) -> None:
        seen: list[bool] = []

        class Seeing(Observer):
            def wants_enqueued(self) -> bool:
                return True

            def enqueued(self, handles: Sequence[TaskHandle[Any]]) -> None:
                seen.extend(each.is_sent for each in handles)

        app.taskq.observer = Seeing()
        await app.send(app.taskq.remote("t").s(a=1))
        before = list(seen)

        await hook.commit()

        assert (before, seen) == ([], [True])

    async def test_a_rollback_sends_nothing(self, app: Application, redis_server: RedisServer, hook: Hook) -> None:
        handle = await app.send(app.taskq.remote("t").s(a=1))

        hook.waiting.clear()

        assert not handle.is_sent
        assert redis_server.client.keys() == []

    async def test_arguments_are_bound_and_checked_at_the_call(
        self, app: Application, redis_server: RedisServer, hook: Hook
    ) -> None:
        """Later changes by the caller do not reach the task, and invalid calls raise at once."""
        names = ["a"]
        handle = await app.send(app.taskq.remote("t").s(names=names))
        names.append("b")
        with pytest.raises(PayloadTooLargeError):
            await app.send(app.taskq.remote("t").s(b"x" * ((16 << 20) + 1)))

        await hook.commit()

        assert message(redis_server, handle).payload == b'{"names":["a"]}'
        assert redis_server.client.llen("asynq:{default}:pending") == 1

    async def test_a_handle_raises_before_the_commit(self, app: Application, hook: Hook) -> None:
        handle = await app.send(app.taskq.remote("t", retention=60).s())

        for ask in (handle.aresult, handle.arefresh, handle.acancel):
            with pytest.raises(
                TaskNotSentError, match="it is sent when the surrounding transaction commits; try again after"
            ):
                await ask()
        for block in (handle.result, handle.refresh, handle.cancel):
            with pytest.raises(TaskNotSentError):
                block()

        await hook.commit()
        assert (await handle.arefresh()).id == handle.id

    async def test_a_task_is_sent_at_once_outside_a_transaction(
        self, app: Application, redis_server: RedisServer, hook: Hook
    ) -> None:
        hook.is_open = False

        handle = await app.send(app.taskq.remote("t").s())

        assert handle.is_sent
        assert redis_server.client.llen("asynq:{default}:pending") == 1

    async def test_a_handle_raises_the_error_of_a_send_after_the_commit(self, app: Application, hook: Hook) -> None:
        task = app.taskq.remote("t").using(task_id="x")
        first, second = await app.send(task.s(a=1)), await app.send(task.s(a=2))

        await asyncio.to_thread(hook.waiting[0])
        with pytest.raises(TaskIdConflictError):
            await asyncio.to_thread(hook.waiting[1])

        assert (first.is_sent, second.is_sent) == (True, False)
        with pytest.raises(TaskNotSentError, match=r"the send after the commit failed: .* id 'x' is taken"):
            second.refresh()

    async def test_a_commit_waits_only_once_for_an_unreachable_redis(
        self, app: Application, hook: Hook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first task is tried for the whole enqueue timeout, those after it for a moment only."""
        patience: list[float] = []

        def run(operation: object, *, patience_s: float) -> None:
            patience.append(patience_s)
            raise BrokerUnavailableError.unchanged("nobody there")

        handles = [await app.send(app.taskq.remote("t").s()) for _ in range(3)]
        monkeypatch.setattr(app.taskq.runtime.runner, "run", run)

        def commit() -> list[str]:
            failed = []
            for send in hook.waiting:
                try:
                    send()
                except EnqueueError as error:
                    failed.append(error.task_id)
            return failed

        assert await asyncio.to_thread(commit) == [handle.id for handle in handles]
        assert patience[0] > AFTER_FAILURE_S
        assert all(each <= AFTER_FAILURE_S for each in patience[1:])


class TestAsyncClient:
    async def test_concurrent_enqueues_are_merged_into_one_call_for_each_queue(self, redis_server: RedisServer) -> None:
        """50 concurrent calls of `adelay` for two queues take two script calls."""
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        tasks = [taskq.remote("t", queue="a"), taskq.remote("t", queue="b")]
        await asyncio.gather(*[task.adelay() for task in tasks])
        redis_server.client.config_resetstat()

        handles = await asyncio.gather(*[tasks[n % 2].adelay(n=n) for n in range(50)])
        await taskq.aclose()

        stats = redis_server.client.info("commandstats")
        assert stats["cmdstat_evalsha"]["calls"] == 2
        for queue, parity in (("a", 0), ("b", 1)):
            ids = [each.decode() for each in redis_server.client.lrange(f"asynq:{{{queue}}}:pending", 0, 24)]
            assert ids[::-1] == [handle.id for n, handle in enumerate(handles) if n % 2 == parity]

    async def test_many_concurrent_enqueues_are_split_into_a_few_calls(self, redis_server: RedisServer) -> None:
        """Redis then stores one part while the callers of another part continue. The number of calls stays small."""
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        task = taskq.remote("t")
        await task.adelay()
        calls = {}
        for count in (24, 49, 50, 1000):
            redis_server.client.config_resetstat()
            await asyncio.gather(*[task.adelay(n=n) for n in range(count)])
            calls[count] = redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
        await taskq.aclose()

        assert calls == {24: 1, 49: 1, 50: 2, 1000: 5}
        assert redis_server.client.llen("asynq:{default}:pending") == 1124

    async def test_each_caller_of_a_merged_call_gets_its_own_result(self, redis_server: RedisServer) -> None:
        """A refused call does not affect the other calls in its batch."""
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        task = taskq.remote("t")

        answers = await asyncio.gather(
            task.using(task_id="x").adelay(),
            task.using(task_id="x").adelay(),
            task.using(unique_for=60).adelay(),
            task.using(unique_for=60).adelay(),
            task.adelay(b"1"),
            return_exceptions=True,
        )
        await taskq.aclose()

        assert [type(answer) for answer in answers] == [
            TaskHandle,
            TaskIdConflictError,
            TaskHandle,
            DuplicateTaskError,
            TaskHandle,
        ]

    async def test_large_messages_are_split_into_several_calls(self, redis_server: RedisServer) -> None:
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        task = taskq.remote("t")
        await task.adelay()
        redis_server.client.config_resetstat()

        await asyncio.gather(*[task.adelay(b"x" * 600_000) for _ in range(6)])
        await taskq.aclose()

        assert redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3

    @rows("turns", range(6))
    async def test_a_cancelled_enqueue_neither_loses_nor_duplicates_a_task(
        self, redis_server: RedisServer, turns: int
    ) -> None:
        """Each accepted task is stored once, at whatever turn of the loop the caller is cancelled."""
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        task = taskq.remote("t")
        await task.adelay()
        calls = [asyncio.ensure_future(task.using(task_id=f"id-{n}").adelay()) for n in range(10)]
        for _ in range(turns):
            await asyncio.sleep(0)

        for call in calls[::2]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await task.adelay()
        await taskq.aclose()

        ids = redis_server.client.lrange("asynq:{default}:pending", 0, -1)
        assert len(ids) == len(set(ids))
        assert {answer.id.encode() for answer in answers if isinstance(answer, TaskHandle)} <= set(ids)
        if turns > 0:  # they had begun
            assert len(ids) == 12

    async def test_asyncio_reports_no_error_when_a_cancelled_enqueue_fails(self) -> None:
        """An abandoned call does not make asyncio report "exception was never retrieved"."""
        taskq = TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01)
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        call = asyncio.ensure_future(taskq.remote("t").adelay())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(EnqueueError):
            await taskq.remote("t").adelay()
        await taskq.aclose()

        assert complaints == []

    async def test_concurrent_calls_share_a_few_connections(self, redis_server: RedisServer) -> None:
        """Calls that cannot be merged wait for a free connection."""
        taskq = TaskQ(redis_server.url, enqueue_timeout=30)
        handle = await taskq.remote("t").adelay()
        before = redis_server.client.info("stats")["total_connections_received"]

        await asyncio.gather(*[handle.arefresh() for _ in range(300)])

        assert redis_server.client.info("stats")["total_connections_received"] - before <= 16
        await taskq.aclose()


async def _send(taskq: TaskQ) -> None:
    await taskq.remote("t").adelay()
