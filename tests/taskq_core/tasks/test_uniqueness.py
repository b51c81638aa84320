"""`Unique`: what counts, what a second enqueue does, and what its caller gets; through every way to enqueue."""

import asyncio
import hashlib
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import (
    ConfigurationError,
    DuplicateTaskError,
    OnConflict,
    Signature,
    TaskHandle,
    TaskQ,
    TaskState,
    Unique,
    UniqueStates,
)
from taskq_core.inspector import Inspector
from taskq_core.testing import capture
from taskq_core.wire import decode_message
from tests.redis_server import RedisServer
from tests.rows import rows


class Shop:
    """An application with a task that has two arguments, and the client that enqueues it."""

    def __init__(self, taskq: TaskQ, *, is_async: bool) -> None:
        self.taskq = taskq
        self.is_async = is_async

        @taskq.task(name="index", retention=600)
        def index(page: int, text: str = "") -> None: ...

        self.index = index

    async def send(self, call: Signature[Any]) -> TaskHandle[Any]:
        if self.is_async:
            return await self.taskq.async_client.enqueue(call)
        return await asyncio.to_thread(self.taskq.client.enqueue, call)

    async def send_many(self, calls: list[Signature[Any]]) -> Any:
        if self.is_async:
            return await self.taskq.async_client.enqueue_many(calls)
        return await asyncio.to_thread(self.taskq.client.enqueue_many, calls)


@pytest.fixture(params=["Client", "AsyncClient"])
async def shop(redis_server: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    yield Shop(taskq, is_async=request.param == "AsyncClient")
    await taskq.aclose()


@pytest.fixture
def taskq(redis_server: RedisServer) -> Iterator[TaskQ]:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    yield taskq
    taskq.close()


class TestOption:
    def test_texts_are_accepted_for_enum_members(self) -> None:
        unique = Unique(args=["a", "a"], period=timedelta(minutes=1), states="while_exists", on_conflict="replace")

        assert (unique.args, unique.period_s) == (("a",), 60)
        assert (unique.states, unique.on_conflict) == (UniqueStates.WHILE_EXISTS, OnConflict.REPLACE)
        assert Unique() == Unique(args=None, period=None, states="until_finished", on_conflict="reject")

    @rows(
        ("given", "problem"),
        [
            ({"args": "page"}, "unique args must be a list of parameter names, got 'page'"),
            ({"args": [1]}, "unique args must be names of parameters, got 1"),
            ({"args": ["a,b"]}, "unique args must be names of parameters, got 'a,b'"),
            ({"args": [""]}, "unique args must be names of parameters, got ''"),
            ({"args": ["x" * 1001]}, "unique args must be at most 1000 characters together"),
            ({"period": 0}, "unique period must be"),
            ({"period": 0.5}, "unique period must be at least one second, got 0.5"),
            ({"period": -1}, "unique period must be"),
            ({"states": "running"}, "unique states must be 'until_started', 'until_finished' or 'while_exists', got"),
            ({"on_conflict": "drop"}, "unique on_conflict must be 'reject', 'replace', 'reschedule' or 'return_exist"),
        ],
    )
    def test_invalid_options_are_refused(self, given: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            Unique(**given)

        assert str(refused.value).startswith(problem)

    def test_a_task_refuses_options_that_do_not_match_it(self, fake_redis: Any) -> None:
        """The error is raised when the task is defined, also by `using` and defaults. It suggests a parameter."""
        taskq = TaskQ(fake_redis)

        def send(account: int, text: str) -> None: ...

        problem = "unknown parameter of task 'send' in unique args 'acount'; did you mean 'account'?"
        with pytest.raises(ConfigurationError) as refused:
            taskq.task(name="send", unique=Unique(args=["acount"]))(send)
        assert str(refused.value) == problem
        with pytest.raises(ConfigurationError, match="in unique args 'acount'"):
            taskq.task(name="send")(send).using(unique=Unique(args=["acount"]))
        with pytest.raises(ConfigurationError, match="in unique args 'acount'"):
            _ = TaskQ(fake_redis, defaults={"unique": Unique(args=["acount"])}).task(name="send")(send).options

    def test_the_short_form_and_the_long_one_exclude_each_other(self, fake_redis: Any) -> None:
        task = TaskQ(fake_redis).remote("t", unique_for=60)

        with pytest.raises(ConfigurationError, match="unique and unique_for cannot be combined"):
            task.using(unique=Unique())
        assert task.using(unique=Unique(), unique_for=0).options.unique == Unique()
        with pytest.raises(ConfigurationError, match=r"unique must be Unique\(...\) or None, got True"):
            task.using(unique=True, unique_for=0)  # type: ignore[arg-type]  # the point of the test

    def test_unique_arguments_are_refused_for_bytes(self, fake_redis: Any) -> None:
        task = TaskQ(fake_redis).remote("t", unique=Unique(args=["a"]))

        with pytest.raises(ConfigurationError, match="unique args need a payload that is a JSON object"):
            task.delay(b"\x00")

    def test_the_error_survives_pickling(self) -> None:
        error = pickle.loads(pickle.dumps(DuplicateTaskError("t", "q", "i", existing_id="other")))

        assert error.existing_id == "other"
        assert str(error) == (
            "task 't' was not enqueued to 'q': task 'other' with the same arguments holds the unique lock"
        )


@pytest.mark.redis
class TestWhatCounts:
    async def test_all_arguments_create_the_lock_of_asynq(self, shop: Shop, redis_server: RedisServer) -> None:
        """Producers in Go and Python exclude each other if they enqueue the same payload with this uniqueness."""
        handle = await shop.send(shop.index.using(unique=Unique()).s(page=1, text="a"))

        (lock,) = redis_server.client.scan_iter("asynq:{default}:unique:*")
        digest = hashlib.md5(b'{"page":1,"text":"a"}', usedforsecurity=False).hexdigest()
        assert lock == f"asynq:{{default}}:unique:index:{digest}".encode()
        message = redis_server.client.hget(f"asynq:{{default}}:t:{handle.id}", "msg")
        assert isinstance(message, bytes)
        assert decode_message(message).unique_key.encode() == lock
        with pytest.raises(DuplicateTaskError):
            await shop.send(shop.index.using(unique_for=60).s(page=1, text="a"))
        assert not (await shop.send(shop.index.using(unique=Unique()).s(page=1, text="b"))).existing

    async def test_chosen_arguments_determine_the_lock(self, shop: Shop, redis_server: RedisServer) -> None:
        """Their lock is Asynq's of a payload of these alone, in the order of the payload."""
        task = shop.index.using(unique=Unique(args=["page"]))
        first = await shop.send(task.s(page=1, text="a"))

        with pytest.raises(DuplicateTaskError) as refused:
            await shop.send(task.s(page=1, text="b"))

        assert refused.value.existing_id == first.id
        digest = hashlib.md5(b'{"page":1}', usedforsecurity=False).hexdigest()
        assert redis_server.client.get(f"asynq:{{default}}:unique:index:{digest}") == first.id.encode()
        await shop.send(task.s(page=2, text="b"))

    async def test_without_arguments_the_task_name_determines_the_lock(self, shop: Shop) -> None:
        """A queue holds one task of this name. Other names and other queues are not affected."""
        task = shop.index.using(unique=Unique(args=()))
        await shop.send(task.s(1))

        with pytest.raises(DuplicateTaskError):
            await shop.send(task.s(2))
        await shop.send(task.using(queue="low").s(2))
        await shop.send(shop.taskq.remote("other", unique=Unique(args=())).s())

    async def test_a_remote_task_can_be_unique(self, shop: Shop) -> None:
        task = shop.taskq.remote("go", unique=Unique(args=["id"]))
        await shop.send(task.s(id=1, at="x"))

        with pytest.raises(DuplicateTaskError):
            await shop.send(task.s(at="y", id=1))


@pytest.mark.redis
class TestConflicts:
    async def test_the_handle_of_the_existing_task_is_returned(self, shop: Shop) -> None:
        task = shop.index.using(unique=Unique(args=["page"], on_conflict="return_existing"))
        first = await shop.send(task.s(1, "a"))

        second = await shop.send(task.s(1, "b"))

        assert (first.existing, second.existing) == (False, True)
        assert second.id == first.id
        assert second.is_sent
        assert (await second.arefresh()).payload == b'{"page":1,"text":"a"}'
        assert await second.acancel()
        assert not (await shop.send(task.s(1, "b"))).existing

    async def test_replace_keeps_the_latest_arguments(self, shop: Shop) -> None:
        """With a start it is a debounce: each call puts the task off anew."""
        task = shop.index.using(unique=Unique(args=["page"], on_conflict="replace"), run_after=60)
        first = await shop.send(task.s(1, "a"))
        start = (await first.arefresh()).next_run_at
        assert start is not None

        second = await shop.send(task.using(run_after=120).s(1, "b"))

        assert second.id == first.id
        assert second.existing
        info = await second.arefresh()
        assert (info.id, info.payload, info.state) == (first.id, b'{"page":1,"text":"b"}', TaskState.SCHEDULED)
        assert info.next_run_at is not None
        assert timedelta(seconds=55) < info.next_run_at - start < timedelta(seconds=65)

    async def test_reschedule_changes_only_the_start(self, shop: Shop) -> None:
        task = shop.index.using(unique=Unique(args=["page"], on_conflict="reschedule"), run_after=600)
        first = await shop.send(task.s(1, "a"))
        start = (await first.arefresh()).next_run_at
        assert start is not None

        second = await shop.send(task.using(run_after=60).s(1, "b"))

        info = await second.arefresh()
        assert (second.id, info.payload) == (first.id, b'{"page":1,"text":"a"}')
        assert info.next_run_at is not None
        assert timedelta(seconds=535) < start - info.next_run_at < timedelta(seconds=545)

    async def test_a_bulk_enqueue_resolves_conflicts(self, shop: Shop) -> None:
        """Each call has its handle, in order. Existing tasks are marked, and refused calls are among the errors."""
        there = shop.index.using(unique=Unique(args=["page"], on_conflict="return_existing"))
        refused = shop.index.using(unique=Unique(args=["page"]))
        first = await shop.send(there.s(1))

        result = await shop.send_many([there.s(1), there.s(2), refused.s(1), there.s(2), shop.index.s(9)])

        assert [handle.existing for handle in result] == [True, False, True, False]
        assert result[0].id == first.id
        assert result[1].id == result[2].id
        assert [handle.name for handle in result] == ["index"] * 4
        (error,) = result.errors
        assert isinstance(error, DuplicateTaskError)
        assert error.existing_id == first.id
        assert len(result.existing) == 2

    async def test_a_full_queue_returns_the_existing_task(self, redis_server: RedisServer) -> None:
        taskq = TaskQ(redis_server.url, limits={"default": 1}, enqueue_timeout=30)
        task = taskq.remote("t", unique=Unique(on_conflict="return_existing"))

        first = await task.adelay(a=1)
        second = await task.adelay(a=1)

        assert (second.id, second.existing) == (first.id, True)
        await taskq.aclose()

    async def test_concurrent_producers_enqueue_one_task(self, redis_server: RedisServer) -> None:
        """Threads and coroutines of several clients: one task is stored, and all of them hold its handle."""
        clients = [TaskQ(redis_server.url, enqueue_timeout=30) for _ in range(4)]
        unique = Unique(on_conflict="return_existing")
        found: list[TaskHandle[Any]] = []

        def enqueue(taskq: TaskQ) -> None:
            found.extend(taskq.remote("t", unique=unique).delay(a=1) for _ in range(20))

        threads = [threading.Thread(target=enqueue, args=(taskq,)) for taskq in clients]
        for thread in threads:
            thread.start()
        found += await asyncio.gather(
            *(taskq.remote("t", unique=unique).adelay(a=1) for taskq in clients for _ in range(20))
        )
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])

        assert len(found) == 160
        assert len({handle.id for handle in found}) == 1
        assert [handle.existing for handle in found].count(False) == 1
        assert redis_server.client.llen("asynq:{default}:pending") == 1
        for taskq in clients:
            await taskq.aclose()


@pytest.mark.redis
def test_the_lock_moves_with_a_changed_payload(taskq: TaskQ, redis_server: RedisServer) -> None:
    """The lock changes only if an argument changes that determines it."""
    task = taskq.remote("t", unique=Unique(args=["a"]))
    handle = task.delay(a=1, b=1)
    other = task.delay(a=2, b=1)

    Inspector(taskq).update_payload("default", handle.id, b'{"a":1,"b":2}')
    with pytest.raises(DuplicateTaskError):
        task.delay(a=1, b=3)
    Inspector(taskq).update_payload("default", handle.id, b'{"a":3,"b":2}')
    with pytest.raises(DuplicateTaskError):
        Inspector(taskq).update_payload("default", handle.id, b'{"a":2}')

    held = {redis_server.client.get(lock) for lock in redis_server.client.scan_iter("asynq:{default}:unique:*")}
    assert held == {handle.id.encode(), other.id.encode()}
    task.delay(a=1, b=3)
    with pytest.raises(DuplicateTaskError):
        task.delay(a=3)


class TestCaptured:
    """In tests the store is another one, and the rules are the same."""

    def test_inspectors_show_replaced_arguments(self, fake_redis: Any) -> None:
        taskq = TaskQ(fake_redis)
        task = taskq.remote("t", unique=Unique(args=["a"], on_conflict="replace"))

        with capture(taskq) as captured:
            first = task.delay(a=1, b=1)
            second = task.using(run_after=60).delay(a=1, b=2)

        (known,) = captured.enqueued
        assert (known.id, known.arguments, known.run_after) == (first.id, {"a": 1, "b": 2}, timedelta(minutes=1))
        assert second.id == first.id
        captured.assert_enqueued("t", a=1, b=2, count=1)

    def test_a_rescheduled_task_keeps_its_arguments(self, fake_redis: Any) -> None:
        taskq = TaskQ(fake_redis)
        task = taskq.remote("t", unique=Unique(args=["a"], on_conflict="reschedule"))

        with capture(taskq) as captured:
            task.delay(a=1, b=1)
            task.using(run_after=60).delay(a=1, b=2)

        (known,) = captured.enqueued
        assert (known.arguments, known.run_after) == ({"a": 1, "b": 1}, timedelta(minutes=1))

    async def test_the_blocking_client_returns_the_existing_task(self, fake_redis: Any) -> None:
        taskq = TaskQ(fake_redis)
        task = taskq.remote("t", unique=Unique(on_conflict="return_existing"))

        with capture(taskq) as captured:
            first = await task.adelay(a=1)
            second = await task.adelay(a=1)

        assert (second.id, second.existing, len(captured.enqueued)) == (first.id, True, 1)
