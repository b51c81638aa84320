"""Test the locks of unique tasks whose workers are killed, frozen and continued."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import DuplicateTaskError, TaskQ, Unique
from taskq_core.inspector import Inspector
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    LONG_LEASE,
    WorkerProcess,
    lapse,
    marks,
    state_of,
    until_blocking,
)

pytestmark = pytest.mark.redis


Start = Callable[..., WorkerProcess]


def locks(server: RedisServer, queue: QueueKeys) -> dict[bytes, bytes | None]:
    """Return the task id in each lock."""
    return {key: server.client.get(key) for key in server.client.scan_iter(queue.unique_prefix + "*")}  # type: ignore[misc]  # blocking


def seconds_of(server: RedisServer) -> float:
    """Return Redis's time in Unix seconds."""
    whole, micros = server.client.time()  # type: ignore[misc]  # blocking
    return float(whole) + micros / 1e6


@pytest.mark.slow
def test_a_task_of_a_killed_worker_keeps_its_lock(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The lock is held while the task waits for its retry, so no second task is accepted, until it has succeeded."""
    task = app.remote("plain_wait").using(unique_for=600)
    dying = start_process(**LONG_LEASE, concurrency=1)
    handle = task.delay(name="u", until="go")
    until_blocking(lambda: marks(redis_server, "u") == ["started 1"])

    dying.signal(signal.SIGKILL)
    dying.wait()
    lapse(redis_server, queue)
    with pytest.raises(DuplicateTaskError):
        task.delay(name="u", until="go")
    start_process(concurrency=1)
    until_blocking(lambda: marks(redis_server, "u") == ["started 1", "started 2"])
    with pytest.raises(DuplicateTaskError):
        task.delay(name="u", until="go")
    assert list(locks(redis_server, queue).values()) == [handle.id.encode()]
    redis_server.client.set("go", "1")

    handle.result(20)
    assert locks(redis_server, queue) == {}
    assert task.delay(name="u", until="go").result(20)


@pytest.mark.slow
def test_the_lock_of_a_lost_task_is_released_with_the_task(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The lock of an archived task is held until it expires. Deleting the task deletes the lock."""
    task = app.remote("plain_wait").using(unique_for=600, max_retry=0)
    dying = start_process(**LONG_LEASE, concurrency=1)
    handle = task.delay(name="u", until="never")
    until_blocking(lambda: marks(redis_server, "u") == ["started 1"])
    dying.signal(signal.SIGKILL)
    dying.wait()
    lapse(redis_server, queue)
    start_process(concurrency=1)
    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")
    with pytest.raises(DuplicateTaskError):
        task.delay(name="u", until="never")

    Inspector(app).delete_task("default", handle.id)

    assert locks(redis_server, queue) == {}


@pytest.mark.slow
def test_the_lock_of_a_lost_task_is_released_when_it_is_archived(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The lock is held until the loss of the worker is detected. The task is archived and its lock released at once."""
    task = app.remote("plain_wait").using(unique=Unique(), max_retry=0)
    dying = start_process(**LONG_LEASE, concurrency=1)
    handle = task.delay(name="u", until="go")
    until_blocking(lambda: marks(redis_server, "u") == ["started 1"])
    dying.signal(signal.SIGKILL)
    dying.wait()
    lapse(redis_server, queue)
    with pytest.raises(DuplicateTaskError):
        task.delay(name="u", until="go")

    start_process(concurrency=1)
    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")

    assert locks(redis_server, queue) == {}
    redis_server.client.set("go", "1")
    task.delay(name="u", until="go").result(20)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"unique_for": 1}, {"unique": Unique()}], ids=["asynq", "until finished"])
def test_a_frozen_worker_neither_loses_nor_frees_the_lock(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, options: dict[str, Any]
) -> None:
    """Another worker runs the task and holds the lock. The continued worker does not change the lock."""
    task = app.remote("plain_wait").using(**options)
    frozen = start_process(concurrency=1)
    handle = task.delay(name="u", until="go")
    until_blocking(lambda: marks(redis_server, "u") == ["started 1"])
    frozen.signal(signal.SIGSTOP)
    start_process(concurrency=1, **LONG_LEASE)
    until_blocking(lambda: marks(redis_server, "u") == ["started 1", "started 2"])

    frozen.signal(signal.SIGCONT)
    until_blocking(lambda: "interrupted" in marks(redis_server, "u"))
    with pytest.raises(DuplicateTaskError):
        task.delay(name="u", until="go")
    assert list(locks(redis_server, queue).values()) == [handle.id.encode()]
    redis_server.client.set("go", "1")

    handle.result(20)
    assert locks(redis_server, queue) == {}
    assert marks(redis_server, "u") == ["started 1", "started 2", "interrupted", "ended"]
