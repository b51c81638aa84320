"""Unique locks and the tasks that hold them, when a worker dies and when either lives longer than the other."""

import asyncio
import signal
from collections.abc import Callable

import pytest

from taskq_core import Discard, DuplicateTaskError, TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Ends, Runner, WorkerProcess, marks, state_of, until, until_blocking

Start = Callable[..., WorkerProcess]
SHORT = {"lease": 1, "heartbeat": 0.3, "concurrency": 1}

pytestmark = pytest.mark.redis


def locks(server: RedisServer, queue: QueueKeys) -> dict[bytes, bytes | None]:
    """Who holds which lock."""
    return {key: server.client.get(key) for key in server.client.scan_iter(queue.unique_prefix + "*")}  # type: ignore[misc]  # blocking


@pytest.mark.slow
def test_a_killed_worker_leaves_the_lock_with_its_task(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """It is held while the task waits to run again, so no second one gets in, and free once that has succeeded."""
    task = app.remote("plain_wait").using(unique_for=600)
    dying = start_process(**SHORT)
    handle = task.delay(name="u", until="go")
    until_blocking(lambda: marks(redis_server, "u") == ["started 1"])

    dying.signal(signal.SIGKILL)
    dying.wait()
    with pytest.raises(DuplicateTaskError):
        task.delay(name="u", until="go")
    start_process(**SHORT)
    until_blocking(lambda: marks(redis_server, "u") == ["started 1", "started 2"])
    with pytest.raises(DuplicateTaskError):
        task.delay(name="u", until="go")
    assert list(locks(redis_server, queue).values()) == [handle.id.encode()]
    redis_server.client.set("go", "1")

    handle.result(20)
    assert locks(redis_server, queue) == {}
    assert task.delay(name="u", until="go").result(20)


@pytest.mark.slow
def test_the_lock_of_a_task_that_was_lost_for_good_is_free_with_it(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Archived, it has not succeeded, so its lock is held until it ends; deleting the task deletes the lock."""
    task = app.remote("plain_wait").using(unique_for=600, max_retry=0)
    dying = start_process(**SHORT)
    handle = task.delay(name="u", until="never")
    until_blocking(lambda: marks(redis_server, "u") == ["started 1"])
    dying.signal(signal.SIGKILL)
    dying.wait()
    start_process(**SHORT)
    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")
    with pytest.raises(DuplicateTaskError):
        task.delay(name="u", until="never")

    Inspector(app).delete_task("default", handle.id)

    assert locks(redis_server, queue) == {}


@pytest.mark.parametrize("end", ["succeeds", "fails for good", "is discarded"])
async def test_a_task_that_outlives_its_lock_leaves_the_next_ones_alone(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, end: str
) -> None:
    """A lock is not renewed: when its time is over another task may take it, and only that one gives it back."""
    release = asyncio.Event()
    runs: list[str] = []

    @app.task(name="slow", max_retry=0, retention=600)
    async def slow() -> None:
        runs.append(end)
        await release.wait()
        if len(runs) == 1 and end == "fails for good":
            raise ValueError(end)
        if len(runs) == 1 and end == "is discarded":
            raise Discard

    ends = Ends()
    await start(listener=ends, concurrency=1)
    first = await slow.using(unique_for=600).adelay()
    await until(lambda: runs == [end])
    (lock,) = locks(redis_server, queue)
    redis_server.client.delete(lock)  # as when its time is over
    second = await slow.using(unique_for=600, run_after=600).adelay()
    release.set()
    await until(lambda: ends.of(first.id))

    assert locks(redis_server, queue) == {lock: second.id.encode()}
    with pytest.raises(DuplicateTaskError):
        await slow.using(unique_for=600).adelay()


async def test_a_lock_ends_with_its_time(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Also while its task runs, as `unique_for` says."""
    release = asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        await release.wait()

    await start(concurrency=2)
    first = await slow.using(unique_for=1).adelay()
    await until(lambda: not locks(redis_server, queue))

    second = await slow.using(unique_for=600).adelay()
    await until(lambda: state_of(redis_server, queue, second.id) == "active")

    assert state_of(redis_server, queue, first.id) == "active"
    release.set()
    await second.aresult(20)
