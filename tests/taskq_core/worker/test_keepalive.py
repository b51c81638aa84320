"""Leases: kept while a worker lives, given up in time when it cannot keep them, taken back when it is gone."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import BrokerUnavailableError, TaskFailedError, TaskQ
from taskq_core.clock import RedisClock
from taskq_core.errors import TaskInterrupted
from taskq_core.wire import Keys, QueueKeys, ServerInfo, TaskMessage, WorkerInfo
from taskq_core.worker.keepalive import Keepalive
from taskq_core.worker.run import Run
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    LEASE_S,
    LONG_LEASE,
    Ends,
    Runner,
    WorkerProcess,
    lapse,
    marks,
    push_raw,
    state_of,
    status_of_worker,
    stored,
    until,
)

Start = Callable[..., WorkerProcess]


# --- a worker that is gone --------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_killed_worker_loses_no_task(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Another worker runs it again when the lease and its grace are over, and the retry is counted."""
    killed = start_process(**LONG_LEASE)
    handle = await app.remote("wait", retention=600, max_retry=3).adelay(name="a", until="go")
    await until(lambda: marks(redis_server, "a") == ["started 1"])
    killed.signal(signal.SIGKILL)
    killed.wait()
    lapse(redis_server, queue)
    start_process()
    await until(lambda: marks(redis_server, "a") == ["started 1", "started 2"])
    redis_server.client.set("go", 1)

    await handle.aresult(10)
    message = stored(redis_server, queue, handle.id)
    assert (message.retried, message.error_msg) == (1, "asynq: task lease expired")
    assert marks(redis_server, "a") == ["started 1", "started 2", "ended"]
    await app.aclose()


@pytest.mark.slow
async def test_a_task_without_attempts_left_is_archived_when_its_worker_dies(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, start: Runner
) -> None:
    """The reason says that the worker was lost; it counts as failed."""
    process = start_process()
    handle = await app.remote("die", retention=600, max_retry=0).adelay(name="a")
    assert await asyncio.to_thread(process.wait) == 9
    await start(queues={"default": 1})

    with pytest.raises(TaskFailedError, match="asynq: task lease expired: the worker that ran it was lost"):
        await handle.aresult(15)
    assert marks(redis_server, "a") == ["started"]
    assert redis_server.client.get(queue.failed) == b"1"


@pytest.mark.slow
async def test_a_stopped_and_continued_worker_cannot_touch_its_successors_task(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Its writes are refused, its function is told to end, and the successor's run is the one that counts."""
    zombie = start_process()
    handle = await app.remote("wait", retention=600, max_retry=3).adelay(name="a", until="go")
    await until(lambda: marks(redis_server, "a") == ["started 1"])
    zombie.signal(signal.SIGSTOP)
    heir = start_process(**LONG_LEASE)
    await until(lambda: marks(redis_server, "a") == ["started 1", "started 2"])

    def owner() -> str:
        field: Any = redis_server.client.hget(queue.task(handle.id), "taskq_owner")
        return str(field.decode().partition(":")[0])

    heir_token = owner()
    zombie.signal(signal.SIGCONT)
    await until(lambda: "cancelled" in marks(redis_server, "a"))

    assert state_of(redis_server, queue, handle.id) == "active"
    assert owner() == heir_token
    redis_server.client.set("go", 1)
    assert await handle.aresult(10) == str(heir.process.pid)
    assert marks(redis_server, "a") == ["started 1", "started 2", "cancelled", "ended"]
    await until(lambda: "the lease of task wait was lost" in zombie.said)
    await app.aclose()


@pytest.mark.slow
async def test_a_zombie_that_finished_cannot_settle(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Also when its function ends in the moment it continues: what it returned is thrown away."""
    zombie = start_process()
    handle = await app.remote("plain_wait", retention=600, max_retry=3).adelay(name="a", until="go")
    await until(lambda: marks(redis_server, "a") == ["started 1"])
    zombie.signal(signal.SIGSTOP)
    heir = start_process(**LONG_LEASE)
    await until(lambda: marks(redis_server, "a") == ["started 1", "started 2"])
    heir.signal(signal.SIGSTOP)  # it holds the task, and does nothing
    redis_server.client.set("go", 1)
    zombie.signal(signal.SIGCONT)
    await until(lambda: "was lost" in zombie.said or "was refused" in zombie.said)

    assert state_of(redis_server, queue, handle.id) == "active"
    heir.signal(signal.SIGCONT)
    assert await handle.aresult(15) == "done"
    await app.aclose()


async def test_a_queue_that_cannot_be_kept_costs_no_other_its_leases(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """The key of its leases is none any more, say, or its node of a cluster is away."""
    release = asyncio.Event()

    @app.task(name="hold")
    async def hold() -> None:
        await release.wait()

    ends = Ends()
    await start(queues={"bad": 1, "good": 1}, listener=ends, concurrency=4, lease=5)
    bad, good = app.runtime.keys.queue("bad"), app.runtime.keys.queue("good")
    lost = await hold.using(queue="bad").adelay()
    await until(lambda: lost.id in ends.started_ids)  # so that its queue is the first to be kept
    kept = await hold.using(queue="good").adelay()
    await until(lambda: kept.id in ends.started_ids)

    redis_server.client.delete(bad.lease)
    redis_server.client.set(bad.lease, "none")
    await until(lambda: "lost" in ends.of(lost.id), "the one is given up")
    release.set()
    await until(lambda: ends.of(kept.id), "the other ends")

    assert ends.of(kept.id) == ["completed"]
    await until(lambda: state_of(redis_server, good, kept.id) == "completed", "its outcome is stored")


async def test_recovery_meets_damage(app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys) -> None:
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

    assert await handle.aresult(10) == "ran"
    assert redis_server.client.hget(queue.quarantined("unreadable"), "msg") == b"\xff\xff"
    await until(lambda: not redis_server.client.exists(queue.lease, queue.active))


# --- a worker that lives ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["block", "wait"])
async def test_a_task_longer_than_its_lease_runs_once(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, name: str
) -> None:
    """Also when it blocks the event loop: the lease is extended from a thread of its own."""
    workers = [start_process(), start_process()]  # both before the task, which ends by itself; one would take it back
    call = app.remote(name, retention=600)
    handle = await (call.adelay(name="a", seconds=4) if name == "block" else call.adelay(name="a", until="go"))
    await until(lambda: marks(redis_server, "a") == ["started 1"])
    first = redis_server.client.zscore(queue.lease, handle.id)
    assert first is not None
    await until(lambda: (redis_server.client.zscore(queue.lease, handle.id) or first) >= first + 2)
    redis_server.client.set("go", 1)

    await handle.aresult(15)
    assert marks(redis_server, "a") == ["started 1", "ended"]
    assert not any("went silent" in worker.said for worker in workers)
    await app.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_worker_fences_itself_when_redis_is_frozen_too_long(start: Runner, kind: str) -> None:
    """Before others may take the task, its function is told to end, and its outcome is dropped."""
    told: list[float] = []
    release = threading.Event()

    with RedisServer() as server:
        frozen = TaskQ(server.url, defaults={"retention": 600}, enqueue_timeout=60)
        runs = []

        @frozen.task(name="coroutine")
        async def coroutine() -> str:
            runs.append(1)
            try:
                while not release.is_set():  # noqa: ASYNC110 - set by either kind
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                told.append(time.monotonic())
                raise
            return f"run {len(runs)}"

        @frozen.task(name="plain")
        def plain() -> str:
            runs.append(1)
            try:
                while not release.is_set():
                    time.sleep(0.01)
            except TaskInterrupted:
                told.append(time.monotonic())
                raise
            return f"run {len(runs)}"

        ends = Ends()
        worker = await start(app=frozen, listener=ends, lease=3, heartbeat=1, lease_grace=2)
        handle = await (coroutine if kind == "coroutine" else plain).adelay()
        await until(lambda: worker.running_count == 1)
        lease = frozen.runtime.keys.queue("default").lease
        first = server.client.zscore(lease, handle.id)
        # Once extended, it ends a second earlier on this side than in Redis: so long may this process stand still.
        await until(lambda: server.client.zscore(lease, handle.id) != first)
        server.pause()
        paused_at = time.monotonic()
        await until(lambda: ends.ends)
        release.set()
        await until(lambda: time.monotonic() > paused_at + 5.5)  # nobody could have taken it before lease and grace
        server.resume()
        result = await handle.aresult(20)
        await start.stop(worker)
        await frozen.aclose()

    assert ends.of(handle.id) == ["lost", "completed"]
    assert result == "run 2"
    assert told[0] - paused_at <= 5  # lease and grace: nobody else may act before


class Passing:
    """A clock that goes on by what is waited."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.mark.parametrize("queues", [1, 2, 5])
@pytest.mark.parametrize("left_s", [25 + tenths / 10 for tenths in range(0, 50, 7)])
def test_a_lease_is_given_up_before_others_may_act_whenever_it_ends(queues: int, left_s: float) -> None:
    """Each queue that is asked takes three seconds to fail, and the time of a lease may end with any."""
    clock = Passing()
    keys = Keys()
    runs = [
        Run(keys.queue(f"q{number}"), "x", TaskMessage(type="t", id="x"), clock.now + left_s)
        for number in range(queues)
    ]
    told: dict[str, float] = {}

    class Silent:
        def run(self, operation: Any) -> Any:
            clock.now += 3
            raise BrokerUnavailableError("no answer")

    def lost(lapsed: list[Run]) -> None:
        for run in lapsed:
            told.setdefault(run.queue.name, clock.now)

    class Stop:
        """Ends once all leases are given up."""

        def wait(self, seconds: float) -> bool:
            clock.now += seconds
            return self.is_set()

        def is_set(self) -> bool:
            return len(told) == queues

    silent: Any = Silent()
    keepalive = Keepalive(
        silent,
        keys,
        clock,
        RedisClock(clock),
        owner="w",
        describe=lambda: ServerInfo(host="h", pid=1, server_id="s", concurrency=1, queues={"q0": 1}),
        running=lambda: runs,
        lost=lost,
        every_s=5,
        lease_s=30,
        grace_s=30,
    )
    stop: Any = Stop()
    keepalive._stop = stop
    keepalive._run()

    for run in runs:
        assert run.lease_until + 25 < told[run.queue.name] < run.lease_until + 30


@pytest.mark.slow
async def test_a_short_freeze_of_redis_is_not_noticed(start: Runner) -> None:
    """Shorter than lease and grace: the task runs once, undisturbed, and is settled afterwards."""
    with RedisServer() as server:
        frozen = TaskQ(server.url, defaults={"retention": 600}, enqueue_timeout=60)
        runs: list[int] = []
        release = asyncio.Event()

        @frozen.task(name="work")
        async def work() -> str:
            runs.append(1)
            await release.wait()
            return "ran"

        ends = Ends()
        worker = await start(app=frozen, listener=ends, lease=2, lease_grace=60)
        handle = await work.adelay()
        await until(lambda: worker.running_count == 1)
        server.pause()
        failing = worker._keepalive
        await until(lambda: failing._failures >= 3)  # the lease is over on this side
        release.set()
        await until(lambda: worker._fetcher.is_failing)
        server.resume()
        result = await handle.aresult(20)
        await start.stop(worker)
        await frozen.aclose()

    assert result == "ran"
    assert runs == [1]
    assert ends.of(handle.id) == ["completed"]


async def test_leases_are_extended_in_batches(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Hundreds of running tasks on several queues keep theirs."""
    release = asyncio.Event()

    @app.task(retention=0)
    async def hold() -> None:
        await release.wait()

    other = app.runtime.keys.queue("other")
    ends = Ends()
    worker = await start(queues={"default": 1, "other": 1}, concurrency=700, listener=ends)
    await app.async_client.enqueue_many(hold.using(queue=("default", "other")[number % 2]).s() for number in range(600))
    await until(lambda: worker.running_count == 600)
    now = int(redis_server.client.time()[0])
    await until(
        lambda: all(redis_server.client.zcount(each.lease, now + LEASE_S + 1, "+inf") == 300 for each in (queue, other))
    )
    release.set()
    await until(lambda: len(ends.ends) == 600)

    assert {outcome for _, outcome in ends.ends} == {"completed"}


# --- presence ---------------------------------------------------------------------------------------------------------


async def test_presence_reads_as_go_tools_read_it(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """Server and running tasks, in the indexes with a time to live; without payload; gone at the end."""
    release = asyncio.Event()
    client = redis_server.client

    @app.task(name="hold", timeout=300)
    async def hold(word: str) -> None:
        await release.wait()

    worker = await start(queues={"default": 2, "low": 1}, strict_priority=True, concurrency=7)
    handle = await hold.adelay("canary")
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
    await until(lambda: client.exists(key) == 0)
    await start.stop(worker)
    assert client.exists(server_key, key) == 0
    assert client.zrange("asynq:servers", 0, -1) == client.zrange("asynq:workers", 0, -1) == []


async def test_a_paused_worker_says_so(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """Tools show `stopped`."""
    worker = await start()
    worker.pause()

    await until(lambda: status_of_worker(redis_server) == "stopped")
    assert worker.status == "stopped"
