"""Test that a worker recovers the tasks of a killed worker on the same host at once."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import WorkerProcess, marks, state_of, stored, until_blocking

pytestmark = pytest.mark.redis


NEVER: dict[str, Any] = {"lease": 600, "lease_grace": 600, "heartbeat": 0.2}
"""Settings of workers whose leases do not expire during a test."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wait", "wait_in_process"])
def test_the_next_worker_runs_the_tasks_of_a_killed_one_at_once(
    app: TaskQ, start_process: Callable[..., WorkerProcess], redis_server: RedisServer, queue: QueueKeys, name: str
) -> None:
    """This includes tasks in separate processes, which the kernel ends with the worker."""
    killed = start_process(concurrency=3, **NEVER)
    handles = [app.remote(name, retention=600).delay(name="a", until="go") for _ in range(3)]
    until_blocking(lambda: marks(redis_server, "a") == ["started 1"] * 3)
    killed.signal(signal.SIGKILL)

    start_process(concurrency=3, **NEVER)

    until_blocking(lambda: marks(redis_server, "a") == ["started 1"] * 3 + ["started 2"] * 3)
    redis_server.client.set("go", 1)
    for handle in handles:
        handle.result(15)
        assert stored(redis_server, queue, handle.id).retried == 1
    assert marks(redis_server, "a")[6:] == ["ended"] * 3


@pytest.mark.slow
def test_a_stopped_worker_keeps_its_task(
    app: TaskQ, start_process: Callable[..., WorkerProcess], redis_server: RedisServer, queue: QueueKeys
) -> None:
    stopped = start_process(**NEVER)
    handle = app.remote("wait", retention=600).delay(name="a", until="go")
    until_blocking(lambda: marks(redis_server, "a"))
    stopped.signal(signal.SIGSTOP)
    stopped.wait_until_stopped()

    another = start_process(**NEVER)
    looks: Any = redis_server.client.info("commandstats")["cmdstat_hgetall"]["calls"]
    until_blocking(lambda: redis_server.client.info("commandstats")["cmdstat_hgetall"]["calls"] > looks + 2)

    assert state_of(redis_server, queue, handle.id) == "active"
    another.signal(signal.SIGKILL)
    stopped.signal(signal.SIGCONT)
    redis_server.client.set("go", 1)
    handle.result(15)
    assert marks(redis_server, "a") == ["started 1", "ended"]
