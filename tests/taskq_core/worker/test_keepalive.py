"""Test leases: a worker extends them or gives them up in time, and other workers recover them after its death."""

import asyncio
import os
import time
from typing import Any

import pytest

from taskq_core import BrokerUnavailableError, TaskQ
from taskq_core.wire import Keys, QueueKeys, ServerInfo, TaskMessage, WorkerInfo
from taskq_core.worker.keepalive import Keepalive
from taskq_core.worker.run import Run
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    LEASE_S,
    PATIENCE_S,
    Ends,
    Runner,
    context_of,
    push_raw,
    state_of,
    status_of_worker,
    stored,
    until,
)

# --- a dead worker ----------------------------------------------------------------------------------------------------


async def test_a_failed_lease_extension_does_not_affect_the_other_queues(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock
) -> None:
    """Examples are a lease key of another type and an unreachable cluster node."""
    release = asyncio.Event()

    @app.task(name="hold")
    async def hold() -> None:
        await release.wait()

    ends = Ends()
    await start(queues={"bad": 1, "good": 1}, listener=ends, concurrency=4)
    bad, good = app.runtime.keys.queue("bad"), app.runtime.keys.queue("good")
    lost = await hold.using(queue="bad").adelay()
    await until(lambda: lost.id in ends.started_ids)  # so that its queue is the first to be kept
    kept = await hold.using(queue="good").adelay()
    await until(lambda: kept.id in ends.started_ids)

    redis_server.client.delete(bad.lease)
    redis_server.client.set(bad.lease, "none")
    await clock.advance(65)
    await until(lambda: "lost" in ends.of(lost.id), "the one is given up")
    release.set()
    await until(lambda: ends.of(kept.id), "the other ends")

    assert ends.of(kept.id) == ["completed"]
    await until(lambda: state_of(redis_server, good, kept.id) == "completed", "its outcome is stored")


async def test_recovery_skips_damaged_tasks(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Leases of tasks that are unreadable or gone stop no recovery of others."""

    @app.task(name="work")
    async def work() -> str:
        return "ran"

    long_ago = time.time() - 100
    push_raw(redis_server, queue, "unreadable", b"\xff\xff")
    handle = await work.adelay()
    for task_id in ("unreadable", "gone", handle.id):
        redis_server.client.lrem(queue.pending, 0, task_id)
        redis_server.client.lpush(queue.active, task_id)
        redis_server.client.zadd(queue.lease, {task_id: long_ago})
    for task_id in ("unreadable", handle.id):
        redis_server.client.hset(queue.task(task_id), mapping={"state": "active", "taskq_owner": "somebody:1"})
    await start()

    assert await handle.aresult(PATIENCE_S) == "ran"
    assert redis_server.client.hget(queue.quarantined("unreadable"), "msg") == b"\xff\xff"
    await until(lambda: not redis_server.client.exists(queue.lease, queue.active))


# --- a worker that lives ----------------------------------------------------------------------------------------------


class Passing:
    """A clock that goes on by what is waited."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time

    def wait(self, stop: Any, seconds: float) -> bool:
        self.now += seconds
        return bool(stop.is_set())


def give_up(queues: int, left_s: float) -> tuple[list[Run], dict[str, float]]:
    """Run a keepalive against a Redis that does not answer; return the runs, and when each was given up, by queue.

    Each queue that is asked takes three seconds to fail.
    """
    clock = Passing()
    keys = Keys()
    runs = [
        Run(keys.queue(f"q{number}"), "x", TaskMessage(type="t", id="x"), clock.now + left_s)
        for number in range(queues)
    ]
    given_up: dict[str, float] = {}

    class Silent:
        def run(self, operation: Any) -> Any:
            clock.now += 3
            raise BrokerUnavailableError("no answer")

    def lost(lapsed: list[Run]) -> None:
        for run in lapsed:
            given_up.setdefault(run.queue.name, clock.now)

    class Stop:
        """Ends once all leases are given up."""

        def wait(self, seconds: float) -> bool:
            clock.now += seconds
            return self.is_set()

        def is_set(self) -> bool:
            return len(given_up) == queues

    silent: Any = Silent()
    context = context_of(TaskQ("redis://localhost:1"), clock=clock)
    context.running.update({run.key: run for run in runs})
    keepalive = Keepalive(
        silent,
        context,
        describe=lambda: ServerInfo(host="h", pid=1, server_id="s", concurrency=1, queues={"q0": 1}),
        lost=lost,
    )
    stop: Any = Stop()
    keepalive._stop = stop
    keepalive._run()
    return runs, given_up


def test_a_worker_gives_up_a_lease_before_other_workers_recover_it(subtests: pytest.Subtests) -> None:
    """The lease may end in any of the seconds that a queue takes to fail."""
    for queues in (1, 2, 5):
        for left_s in (25 + tenths / 10 for tenths in range(0, 50, 7)):
            with subtests.test(queues=queues, left_s=left_s):
                runs, given_up = give_up(queues, left_s)
                for run in runs:
                    assert run.lease_until + 25 < given_up[run.queue.name] < run.lease_until + 30


async def test_a_worker_whose_heartbeats_fail_ends_its_run_before_another_worker_starts_one(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run ends only shortly before lease and grace are over, because Redis may come back."""
    release = asyncio.Event()
    seen: list[str] = []

    @app.task
    async def work() -> str:
        seen.append("started")
        if seen != ["started"]:
            await release.wait()
            return "the heir's"
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("interrupted")
        return "the first one's"

    def fail(operation: Any) -> Any:
        raise BrokerUnavailableError("away")

    ends = Ends()
    first = await start(listener=ends)
    handle = await work.adelay()
    await until(lambda: seen)
    first.pause()
    monkeypatch.setattr(first._keepalive._runner, "run", fail)
    await start()
    await clock.advance(40)
    assert seen == ["started"]
    await clock.advance(45)
    await until(lambda: len(seen) == 3)

    assert seen == ["started", "interrupted", "started"]
    assert ends.of(handle.id) == ["lost"]
    release.set()
    assert await handle.aresult(PATIENCE_S) == "the heir's"
    assert stored(redis_server, queue, handle.id).retried == 1


async def test_a_task_longer_than_its_lease_runs_once(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """This holds while another worker recovers tasks of dead workers."""
    release = asyncio.Event()
    runs: list[int] = []

    @app.task
    async def hold() -> str:
        runs.append(1)
        await release.wait()
        return "held"

    await start()
    await start()
    handle = await hold.adelay()
    await until(lambda: runs)
    await clock.advance(150)

    assert (redis_server.client.zscore(queue.lease, handle.id) or 0) > clock.time() + 20
    release.set()
    assert await handle.aresult(PATIENCE_S) == "held"
    assert runs == [1]
    assert stored(redis_server, queue, handle.id).retried == 0


async def test_leases_are_extended_in_batches(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """Hundreds of running tasks on several queues keep their leases."""
    release = asyncio.Event()

    @app.task(retention=0)
    async def hold() -> None:
        await release.wait()

    other = app.runtime.keys.queue("other")
    ends = Ends()
    worker = await start(queues={"default": 1, "other": 1}, concurrency=700, listener=ends)
    await app.async_client.enqueue_many(hold.using(queue=("default", "other")[number % 2]).s() for number in range(600))
    await until(lambda: worker.running_count == 600)
    now = int(clock.time())
    await clock.advance(6)
    await until(
        lambda: all(redis_server.client.zcount(each.lease, now + LEASE_S + 1, "+inf") == 300 for each in (queue, other))
    )
    release.set()
    await until(lambda: len(ends.ends) == 600)

    assert {outcome for _, outcome in ends.ends} == {"completed"}


# --- presence ---------------------------------------------------------------------------------------------------------


async def test_presence_reads_as_go_tools_read_it(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock
) -> None:
    """The presence lists the server and its tasks without payload. It expires, and is deleted at the end."""
    release = asyncio.Event()
    client = redis_server.client

    @app.task(name="hold", timeout=300)
    async def hold(word: str) -> None:
        await release.wait()

    worker = await start(queues={"default": 2, "low": 1}, strict_priority=True, concurrency=7)
    handle = await hold.adelay("canary")
    await until(lambda: worker.running_count == 1)
    await clock.advance(6)
    key = f"asynq:workers:{{{worker.host}:{os.getpid()}:{worker.id}}}"
    await until(lambda: client.zscore("asynq:workers", key), "it is noted in the indexes, which comes last")
    data: Any = await until(lambda: client.hget(key, handle.id))
    running = WorkerInfo.decode(data)
    server_key = f"asynq:servers:{{{worker.host}:{os.getpid()}:{worker.id}}}"
    server_data: Any = client.get(server_key)
    server = ServerInfo.decode(server_data)
    now = time.time()

    assert (server.host, server.pid, server.server_id) == (worker.host, os.getpid(), worker.id)
    assert (server.concurrency, server.queues, server.strict_priority) == (7, {"default": 2, "low": 1}, True)
    assert (server.status, server.active_worker_count) == ("active", 1)
    assert server.start_time_ns is not None
    assert abs(server.start_time_ns / 1e9 - now) < 60
    assert (running.task_id, running.task_type, running.queue) == (handle.id, "hold", "default")
    assert (running.host, running.pid, running.server_id) == (worker.host, os.getpid(), worker.id)
    assert running.start_time_ns is not None
    assert running.deadline_ns is not None
    assert abs((running.deadline_ns - running.start_time_ns) / 1e9 - 300) < 1
    assert b"canary" not in data
    assert 0 < client.ttl(server_key) <= 10
    assert 0 < client.ttl(key) <= 10
    for index, member in (("asynq:servers", server_key), ("asynq:workers", key)):
        assert (client.zscore(index, member) or 0) > now - 1
    release.set()
    await until(lambda: worker.running_count == 0)
    await clock.advance(6)
    await until(lambda: client.exists(key) == 0)
    await start.stop(worker)
    assert client.exists(server_key, key) == 0
    assert client.zrange("asynq:servers", 0, -1) == client.zrange("asynq:workers", 0, -1) == []


async def test_a_paused_worker_reports_its_status(start: Runner, redis_server: RedisServer, clock: Clock) -> None:
    """Tools show `stopped`."""
    worker = await start()
    await until(lambda: status_of_worker(redis_server) == "active")
    worker.pause()
    await clock.advance(6)

    await until(lambda: status_of_worker(redis_server) == "stopped")
    assert worker.status == "stopped"
