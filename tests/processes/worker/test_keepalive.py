"""Test leases of real workers: killed, stopped, busy for longer than a lease, and with a stalled Redis."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskFailedError, TaskQ
from taskq_core.errors import TaskInterrupted
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    LONG_LEASE,
    Ends,
    Runner,
    WorkerProcess,
    lapse,
    marks,
    state_of,
    stored,
    until,
)

Start = Callable[..., WorkerProcess]


@pytest.mark.slow
async def test_a_killed_worker_loses_no_task(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Another worker runs it again after the lease and the grace, and the retry is counted."""
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
    """Its error says that the worker was lost, and it counts as failed."""
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
    """Its writes are refused, its function is interrupted, and only the run of the other worker counts."""
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
    await until(lambda: "task wait lost its lease" in zombie.output)
    await app.aclose()


@pytest.mark.slow
async def test_a_worker_that_lost_its_lease_cannot_settle(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """This holds even if its function ends just as the process continues: the result is discarded."""
    zombie = start_process()
    handle = await app.remote("plain_wait", retention=600, max_retry=3).adelay(name="a", until="go")
    await until(lambda: marks(redis_server, "a") == ["started 1"])
    zombie.signal(signal.SIGSTOP)
    heir = start_process(**LONG_LEASE)
    await until(lambda: marks(redis_server, "a") == ["started 1", "started 2"])
    heir.signal(signal.SIGSTOP)  # it owns the task but cannot settle it
    redis_server.client.set("go", 1)
    zombie.signal(signal.SIGCONT)
    await until(lambda: "lost its lease" in zombie.output or "was refused" in zombie.output)

    assert state_of(redis_server, queue, handle.id) == "active"
    heir.signal(signal.SIGCONT)
    assert await handle.aresult(15) == "done"
    await app.aclose()


@pytest.mark.slow
async def test_a_task_that_blocks_its_loop_longer_than_its_lease_runs_once(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A separate thread extends the lease."""
    workers = [start_process(), start_process()]  # both run before the task, because one of them could recover it
    handle = await app.remote("block", retention=600).adelay(name="a", seconds=4)
    await until(lambda: marks(redis_server, "a") == ["started 1"])
    first = redis_server.client.zscore(queue.lease, handle.id)
    assert first is not None
    await until(lambda: (redis_server.client.zscore(queue.lease, handle.id) or first) >= first + 2)

    await handle.aresult(15)
    assert marks(redis_server, "a") == ["started 1", "ended"]
    assert not any("no longer extends its lease" in worker.output for worker in workers)
    await app.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_worker_ends_its_runs_before_lease_and_grace_when_redis_is_frozen(start: Runner, kind: str) -> None:
    """The worker interrupts the function and drops its outcome before other workers may take the task."""
    interrupted_at: list[float] = []
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
                interrupted_at.append(time.monotonic())
                raise
            return f"run {len(runs)}"

        @frozen.task(name="plain")
        def plain() -> str:
            runs.append(1)
            try:
                while not release.is_set():
                    time.sleep(0.01)
            except TaskInterrupted:
                interrupted_at.append(time.monotonic())
                raise
            return f"run {len(runs)}"

        ends = Ends()
        worker = await start(app=frozen, listener=ends, lease=3, heartbeat=1, lease_grace=2)
        handle = await (coroutine if kind == "coroutine" else plain).adelay()
        await until(lambda: worker.running_count == 1)
        lease = frozen.runtime.keys.queue("default").lease
        first = server.client.zscore(lease, handle.id)
        # After an extension, the lease ends a second earlier in this process than in Redis, so the process may stall.
        await until(lambda: server.client.zscore(lease, handle.id) != first)
        server.pause()
        paused_at = time.monotonic()
        await until(lambda: ends.ends)
        release.set()
        await until(lambda: time.monotonic() > paused_at + 5.5)  # no worker could have taken it before lease and grace
        server.resume()
        result = await handle.aresult(20)
        await start.stop(worker)
        await frozen.aclose()

    assert ends.of(handle.id) == ["lost", "completed"]
    assert result == "run 2"
    assert interrupted_at[0] - paused_at <= 5  # lease and grace: no other worker may act before


@pytest.mark.slow
async def test_a_short_freeze_of_redis_does_not_affect_a_task(start: Runner) -> None:
    """If the freeze is shorter than lease and grace, the task runs once and is settled afterwards."""
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
