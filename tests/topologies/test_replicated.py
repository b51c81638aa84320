"""Enqueues that replicas, or the append-only file, must confirm. Each test runs for both clients."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from taskq_core import (
    BulkEnqueueError,
    DuplicateTaskError,
    NotReplicatedError,
    Signature,
    TaskHandle,
    TaskIdConflictError,
    TaskQ,
)
from taskq_core.broker.operations import runs
from taskq_core.errors import BrokerReplicationError
from taskq_core.inspector import Inspector
from tests.conformance.stores import redis_programs
from tests.redis_server import RedisServer
from tests.relay import Relay

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def primary() -> Iterator[RedisServer]:
    with RedisServer(tcp=True, options={"repl-timeout": "600"}) as server:
        yield server


@pytest.fixture(scope="module")
def lag(primary: RedisServer) -> Iterator[Relay]:
    """A relay between the primary and its replica. If it drops data, the replica lags but stays connected."""
    with Relay(primary.socket_path) as relay:
        yield relay


@pytest.fixture(scope="module")
def replica(lag: Relay) -> Iterator[RedisServer]:
    with RedisServer(tcp=True, options={"replicaof": ("127.0.0.1", str(lag.port))}) as server:
        yield server


def wait_for_replicas(server: RedisServer, count: int) -> None:
    """Wait until `count` replicas are up to date."""
    deadline = time.monotonic() + 30
    while True:
        server.client.set("waited", "for")
        if server.client.wait(count, 500) >= count:
            return
        assert time.monotonic() < deadline, "the replica does not connect"


@pytest.fixture
def stored(primary: RedisServer, replica: RedisServer, lag: Relay) -> RedisServer:
    """An empty primary with a replica that is up to date."""
    lag.forward()
    wait_for_replicas(primary, 1)
    primary.flushall()
    primary.client.config_resetstat()
    return primary


class Application:
    """A `TaskQ` whose enqueue goes through one of the two clients."""

    def __init__(self, taskq: TaskQ, *, is_async: bool) -> None:
        self.taskq = taskq
        self.is_async = is_async

    async def send(self, call: Signature[Any]) -> TaskHandle[Any]:
        if self.is_async:
            return await self.taskq.async_client.enqueue(call)
        return await asyncio.to_thread(self.taskq.client.enqueue, call)

    async def send_many(self, calls: list[Signature[Any]]) -> Any:
        if self.is_async:
            return await self.taskq.async_client.enqueue_many(calls)
        return await asyncio.to_thread(self.taskq.client.enqueue_many, calls)


@pytest.fixture
def enqueue_timeout() -> float:
    """Timeout of enqueues that are not confirmed. Long enough to send the request on a busy machine."""
    return 3


@pytest.fixture(params=["Client", "AsyncClient"])
async def app(
    primary: RedisServer, enqueue_timeout: float, request: pytest.FixtureRequest
) -> AsyncIterator[Application]:
    taskq = TaskQ(primary.url, enqueue_timeout=enqueue_timeout)
    yield Application(taskq, is_async=request.param == "AsyncClient")
    await taskq.aclose()


def calls_of(server: RedisServer, command: str) -> int:
    """Return how often a command was called since the statistics were reset."""
    return int(server.client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def task_ids(server: RedisServer) -> list[bytes]:
    return sorted(server.client.lrange("asynq:{default}:pending", 0, -1))


def unconfirmed(server: RedisServer) -> list[bytes]:
    return sorted(server.client.keys("taskq:{default}:unconfirmed:*"))


class TestConfirmed:
    @pytest.fixture
    def enqueue_timeout(self) -> float:
        """A long timeout, which is not reached without an error."""
        return 30

    async def test_the_replica_has_it_when_the_enqueue_returns(
        self, app: Application, stored: RedisServer, replica: RedisServer
    ) -> None:
        handle = await app.send(app.taskq.remote("t", replicated=True).s())

        assert replica.client.exists(f"asynq:{{default}}:t:{handle.id}")
        assert unconfirmed(stored) == []

    async def test_an_enqueue_without_replicated_does_not_wait(
        self, app: Application, stored: RedisServer, lag: Relay
    ) -> None:
        lag.swallow("replies")

        await app.send(app.taskq.remote("t").s())
        await app.send_many([app.taskq.remote("t").s()])

        assert calls_of(stored, "wait") == 0

    async def test_a_batch_shares_one_wait(self, app: Application, stored: RedisServer) -> None:
        task = app.taskq.remote("t", replicated=True)

        result = await app.send_many([task.s(n=number) for number in range(450)])

        assert (len(result), result.errors) == (450, [])
        assert 3 <= calls_of(stored, "wait") <= 6, "batches of 200; again for those that found no script in Redis"
        assert unconfirmed(stored) == []

    async def test_one_tick_of_an_event_loop_shares_its_waits(self, primary: RedisServer, stored: RedisServer) -> None:
        taskq = TaskQ(primary.url, enqueue_timeout=30)
        task = taskq.remote("t", replicated=True)

        await asyncio.gather(*[task.adelay(n=number) for number in range(100)])
        await taskq.aclose()

        assert calls_of(stored, "wait") == 4, "number of requests for the enqueues of one tick"

    async def test_one_tick_separates_tasks_without_replicated(
        self, primary: RedisServer, stored: RedisServer, lag: Relay
    ) -> None:
        taskq = TaskQ(primary.url, enqueue_timeout=2)
        lag.swallow("replies")

        outcomes = await asyncio.gather(
            taskq.remote("t").adelay(), taskq.remote("t", replicated=True).adelay(), return_exceptions=True
        )
        await taskq.aclose()

        assert [type(outcome) for outcome in outcomes] == [TaskHandle, NotReplicatedError]

    async def test_a_scheduled_a_unique_and_a_grouped_one(
        self, app: Application, stored: RedisServer, replica: RedisServer
    ) -> None:
        task = app.taskq.remote("t", replicated=True)

        handles = [
            await app.send(task.using(**options).s())  # type: ignore[arg-type]  # options of several types
            for options in ({"run_after": 60}, {"unique_for": 60}, {"aggregate": "g"})
        ]

        for handle in handles:
            assert replica.client.exists(f"asynq:{{default}}:t:{handle.id}")
        assert stored.client.zcard("asynq:{default}:scheduled") == 1
        assert stored.client.zcard("asynq:{default}:g:g") == 1

    async def test_the_same_id_may_be_enqueued_again_after_its_end(self, app: Application, stored: RedisServer) -> None:
        """A confirmed enqueue leaves no key that would make a later enqueue with the same id look like a repeat."""
        task = app.taskq.remote("t", replicated=True, task_id="daily")
        await app.send(task.s())
        with pytest.raises(TaskIdConflictError):
            await app.send(task.s())
        finish_all(stored)

        await app.send(task.s())

        assert task_ids(stored) == [b"daily"]

    async def test_a_refused_enqueue_is_refused_although_no_replica_confirms(
        self, app: Application, stored: RedisServer, lag: Relay
    ) -> None:
        task = app.taskq.remote("t", unique_for=60)
        await app.send(task.using(task_id="a").s())
        lag.swallow("replies")

        with pytest.raises(TaskIdConflictError):
            await app.send(task.using(task_id="a", unique_for=0, replicated=True).s())
        with pytest.raises(DuplicateTaskError):
            await app.send(task.using(replicated=True).s())

    def test_a_replicated_enqueue_takes_two_round_trips(self, stored: RedisServer) -> None:
        """One stores the task and waits for the replica, the other deletes the note that the task is not confirmed."""
        with Relay(stored.socket_path) as relay, closing(TaskQ(relay.url, enqueue_timeout=30)) as taskq:
            task = taskq.remote("t", replicated=True)
            task.delay()  # connects, and loads the script
            before = relay.requests

            task.delay()

            assert relay.requests - before == 2

    def test_the_default_replicated_applies_to_every_task(self, primary: RedisServer, stored: RedisServer) -> None:
        with closing(TaskQ(primary.url, defaults={"replicated": True}, enqueue_timeout=30)) as taskq:
            taskq.remote("t").delay()
            taskq.remote("t", replicated=False).delay()

        assert calls_of(stored, "wait") == 1

    @pytest.mark.parametrize("how", ["call", "task", "default"])
    async def test_the_replica_has_a_signal_when_the_call_returns(
        self, primary: RedisServer, stored: RedisServer, replica: RedisServer, how: str
    ) -> None:
        options: dict[str, Any] = {"replicated": how != "call"}
        task = {"defaults": options} if how == "default" else {}
        taskq = TaskQ(primary.url, enqueue_timeout=30, **task)
        handle = taskq.remote("t", run_after=60, **({} if how == "default" else options)).delay()
        one = {"replicated": True} if how == "call" else {}
        signals = replica.client.hkeys
        record = f"taskq:{{default}}:steps:{handle.id}"

        handle.signal("go", 1, **one)
        assert b"r:go#1" in signals(record)
        await handle.asignal("go", 2, **one)
        assert b"r:go#2" in signals(record)
        Inspector(taskq).signal_task("default", handle.id, "go", 3, **({} if how == "default" else {"replicated": 1}))
        assert b"r:go#3" in signals(record)
        handle.reschedule(after=5, **one)
        assert replica.client.zscore("asynq:{default}:scheduled", handle.id) == stored.client.zscore(
            "asynq:{default}:scheduled", handle.id
        )
        assert calls_of(stored, "wait") >= 4 + (how != "call")
        await taskq.aclose()
        taskq.close()

    def test_a_signal_that_no_replica_confirms_raises_and_is_not_stored_twice(
        self, primary: RedisServer, stored: RedisServer, lag: Relay
    ) -> None:
        with closing(TaskQ(primary.url, enqueue_timeout=1)) as taskq:
            handle = taskq.remote("t", run_after=60).delay()
            lag.swallow("replies")

            with pytest.raises(BrokerReplicationError):
                handle.signal("go", 1, signal_id="s", replicated=True)
            with pytest.raises(BrokerReplicationError):
                handle.signal("go", 1, signal_id="s", replicated=True)

            assert stored.client.hget(f"taskq:{{default}}:steps:{handle.id}", "n:go") == b"1"

    def test_a_connection_that_is_lost_while_waiting(self, stored: RedisServer) -> None:
        """The request is repeated, and the task is not stored twice."""
        with Relay(stored.socket_path) as relay, closing(TaskQ(relay.url, enqueue_timeout=30)) as taskq:
            taskq.remote("t").delay()
            relay.drop_reply_to(b"\r\nWAIT\r\n")
            taskq.remote("t", replicated=True, task_id="a").delay()

        assert relay.intercepted == 1
        assert task_ids(stored).count(b"a") == 1
        assert calls_of(stored, "wait") == 2
        assert unconfirmed(stored) == []


def finish_all(server: RedisServer) -> None:
    """Run all pending tasks, as a worker would. They are deleted then."""
    with closing(TaskQ(server.url, enqueue_timeout=30)) as taskq:
        queue, run = taskq.runtime.keys.queue("default"), taskq.runtime.runner.run
        taken = run(runs.dequeue(queue, owner="w", call=1, limit=100, lease_s=30))
        ids = [task_id for task_id, _ in taken.tasks]
        run(runs.settle_done(queue, [(each, 1) for each in ids], owner="w"))


class TestNotConfirmed:
    async def test_a_lagging_replica(self, app: Application, stored: RedisServer, lag: Relay) -> None:
        """The replica is connected and responds, but does not have the write."""
        lag.swallow("replies")

        with pytest.raises(NotReplicatedError, match="0 of 1 replicas confirmed in time; enqueue again") as caught:
            await app.send(app.taskq.remote("t", replicated=True, task_id="a").s())

        error = caught.value
        assert (error.task, error.queue, error.task_id, error.wanted, error.confirmed) == ("t", "default", "a", 1, 0)
        assert str(error).startswith("task 't' with id 'a' is in queue 'default', but not confirmed: ")
        assert isinstance(error.__cause__, BrokerReplicationError)
        assert task_ids(stored) == [b"a"]

    async def test_a_repeated_enqueue_is_confirmed(self, app: Application, stored: RedisServer, lag: Relay) -> None:
        call = app.taskq.remote("t", replicated=True, task_id="a", unique_for=60).s(n=1)
        lag.swallow("replies")
        for _ in range(2):
            with pytest.raises(NotReplicatedError):
                await app.send(call)
        lag.forward()
        wait_for_replicas(stored, 1)

        handle = await app.send(call)

        assert handle.id == "a"
        assert task_ids(stored) == [b"a"]
        assert unconfirmed(stored) == []

    async def test_a_repeated_enqueue_does_not_run_the_task_again(
        self, app: Application, stored: RedisServer, lag: Relay
    ) -> None:
        """A worker may have run the task before the repeat."""
        call = app.taskq.remote("t", replicated=True, task_id="a").s(n=1)
        lag.swallow("replies")
        with pytest.raises(NotReplicatedError):
            await app.send(call)
        finish_all(stored)
        lag.forward()
        wait_for_replicas(stored, 1)

        await app.send(call)

        assert task_ids(stored) == []

    async def test_another_call_of_the_same_id_is_a_conflict(
        self, app: Application, stored: RedisServer, lag: Relay
    ) -> None:
        task = app.taskq.remote("t", replicated=True, task_id="a")
        lag.swallow("replies")
        with pytest.raises(NotReplicatedError):
            await app.send(task.s(n=1))

        with pytest.raises(TaskIdConflictError):
            await app.send(task.s(n=2))
        with pytest.raises(TaskIdConflictError):
            await app.send(task.using(replicated=False).s(n=1))

        assert unconfirmed(stored) == [b"taskq:{default}:unconfirmed:a"]

    async def test_fewer_replicas_than_requested(self, app: Application, stored: RedisServer) -> None:
        """The number of connected replicas is read in the remaining time, so the timeout must not be too short."""
        patient = Application(TaskQ(stored.url, enqueue_timeout=3), is_async=app.is_async)
        with pytest.raises(NotReplicatedError, match="1 of 2 replicas confirmed in time; 1 is connected") as caught:
            await patient.send(patient.taskq.remote("t", replicated=2).s())
        await patient.taskq.aclose()

        assert (caught.value.wanted, caught.value.confirmed) == (2, 1)

    async def test_no_replica_at_all(self, redis_server: RedisServer, app: Application) -> None:
        alone = Application(TaskQ(redis_server.url, enqueue_timeout=3), is_async=app.is_async)

        with pytest.raises(NotReplicatedError, match="0 of 1 replicas confirmed in time; none is connected"):
            await alone.send(alone.taskq.remote("t", replicated=True).s())
        await alone.taskq.aclose()

    async def test_in_bulk(self, app: Application, stored: RedisServer, lag: Relay) -> None:
        """The first batch that is not confirmed ends the bulk enqueue."""
        task = app.taskq.remote("t", replicated=True)
        lag.swallow("replies")

        with pytest.raises(BulkEnqueueError, match="0 tasks were enqueued; the next 200 were, but are not confirmed"):
            await app.send_many([task.s(n=number) for number in range(450)])

        assert len(task_ids(stored)) in (200, 400), "the next batch may have been sent"

    def test_a_user_without_the_right_to_wait(self, stored: RedisServer) -> None:
        stored.command("ACL", "SETUSER", "few", "on", ">few", "~*", "&*", "+@all", "-wait")
        with (
            closing(TaskQ(f"redis://few:few@127.0.0.1:{stored.port}", enqueue_timeout=30)) as taskq,
            pytest.raises(NotReplicatedError, match="no permissions to run the 'wait' command"),
        ):
            taskq.remote("t", replicated=True).delay()
        stored.command("ACL", "DELUSER", "few")


def version(program: str) -> tuple[int, ...]:
    return tuple(int(part) for part in program.partition("-")[2].split("."))


@pytest.fixture
def knows_waitaof() -> Path:
    """A server program that has WAITAOF, which confirms writes on disk."""
    able = [each for each in redis_programs() if each.startswith("redis") and version(each) >= (7, 2)]
    if not able:
        pytest.skip("no redis-server of 7.2 or newer on this machine, which WAITAOF needs")
    return redis_programs()[max(able, key=version)]


class TestOnDisk:
    async def test_a_task_is_confirmed_on_disk(self, app: Application, knows_waitaof: Path) -> None:
        with RedisServer(appendonly=True, options={"appendfsync": "everysec"}, binary=knows_waitaof) as server:
            taskq = TaskQ(server.url, enqueue_timeout=10)
            on_disk = Application(taskq, is_async=app.is_async)
            handle = await on_disk.send(taskq.remote("t", fsynced=True).s())
            await taskq.aclose()

            assert handle.is_sent
            assert calls_of(server, "waitaof") == 2, "one again, because Redis did not have the script yet"

    async def test_without_an_append_only_file(self, app: Application, knows_waitaof: Path) -> None:
        with RedisServer(binary=knows_waitaof) as server:
            taskq = TaskQ(server.url, enqueue_timeout=10)
            in_memory = Application(taskq, is_async=app.is_async)
            with pytest.raises(NotReplicatedError, match="appendonly is disabled"):
                await in_memory.send(taskq.remote("t", fsynced=True).s())
            await taskq.aclose()

    @pytest.mark.parametrize(
        "program", [each for each in redis_programs() if each.startswith("redis") and version(each) < (7, 2)]
    )
    def test_an_older_server(self, program: str) -> None:
        with (
            RedisServer(appendonly=True, binary=redis_programs()[program]) as server,
            closing(TaskQ(server.url, enqueue_timeout=30)) as taskq,
            pytest.raises(NotReplicatedError, match=r"does not support WAITAOF, which needs Redis 7\.2"),
        ):
            taskq.remote("t", fsynced=True).delay()
