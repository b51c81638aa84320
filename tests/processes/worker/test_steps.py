"""Durable tasks whose workers are killed or stopped before and after each write, and whose Redis is killed.

A ledger outside the tasks shows that no step or sub-task ran after its result was stored, that each signal arrived once
and in its order, that no sub-task was enqueued twice, and that no task is stuck.
"""

import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from taskq_core import TaskHandle, TaskQ
from taskq_core.wire import QueueKeys
from tests.processes.worker.durable_task import SIGNALS, STEPS
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import LONG_LEASE, WorkerProcess, lapse, marks, until_blocking

pytestmark = pytest.mark.slow

Start = Callable[..., WorkerProcess]

WRITES = ("load_steps", "store_step", "emit", "create_workflow")
POINTS = (*(f"{when}:{name}" for name in WRITES for when in ("before", "after")), "settling", "settled")


def check(notes: RedisServer, name: str, handle: TaskHandle[Any], *, are_workers_killed: bool) -> None:
    """Check the end of a task against its ledger."""
    result = handle.result(30)

    assert marks(notes, f"{name}:wrong") == [], "a step or sub-task ran after its result was stored"
    executed = marks(notes, f"{name}:steps")
    assert [each.split()[0] for each in result[:4]] == list(STEPS)
    assert set(result[:4]) <= set(executed)
    assert result[4:] == [*SIGNALS, 1, 2]
    children = marks(notes, f"{name}:children")
    assert len(set(children)) == 2, "each sub-task has one id"
    assert are_workers_killed or len(children) == 2, "each sub-task runs once"
    values: dict[tuple[str, int], list[Any]] = {}
    for item in handle.stream():
        values.setdefault((item.step, item.attempt), []).append(item.value)
    assert all(len(each) == 1 for (step, _), each in values.items() if step), values
    for step, stored in zip(STEPS, result[:4], strict=True):
        assert values.get((step, max(attempt for each, attempt in values if each == step))) == [stored]
    last_attempt = max(attempt for step, attempt in values if not step)
    assert values["", last_attempt][-1] == "after"
    assert all(each in (["before"], ["before", "after"], ["after"]) for (step, _), each in values.items() if not step)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_workers_that_end_before_and_after_each_write(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, number: signal.Signals
) -> None:
    handles = {}
    for position, point in enumerate(POINTS):
        handles[point] = app.remote("durable").delay(name=point)
        handles[point].signal("go", SIGNALS[0])
        harm = {"at": point, "signal": number, "times": 1 + position % 2}
        dying = start_process(harm=harm, concurrency=8, has_to_start=False, **LONG_LEASE, shutdown_grace=0)
        status = dying.wait()
        assert status == (-signal.SIGKILL if number is signal.SIGKILL else 0), dying.output
        lapse(redis_server, queue)
        handles[point].signal("go", SIGNALS[1])

    start_process(concurrency=8)

    for point, handle in handles.items():
        check(redis_server, point, handle, are_workers_killed=True)
    waiting = ("active", "lease", "pending", "scheduled", "retry")
    assert not redis_server.client.exists(*(queue.prefix + each for each in waiting))
    assert redis_server.client.zcard(queue.own_prefix + "wf-ended") == len(POINTS), "each call has one workflow"
    assert redis_server.client.llen(queue.pending) == 0


def test_a_redis_that_is_killed_and_started_again(start_process: Start, redis_server: RedisServer) -> None:
    """Its append-only file has all that it answered. The worker goes on by itself, without another attempt."""
    options = {"appendfsync": "always"}
    with RedisServer(tcp=True, appendonly=True, options=options) as server:
        start_process(url=server.url, concurrency=20, lease=30, heartbeat=1)
        with closing(TaskQ(server.url, defaults={"retention": 600}, enqueue_timeout=30)) as app:
            handles = {}
            for kill in range(4):
                for task in range(5):
                    name = f"{kill}.{task}"
                    handles[name] = app.remote("durable").delay(name=name)
                    handles[name].signal("go", SIGNALS[0])
                phase = f"{kill}.4:" + ("steps", "children", "children", "steps")[kill]
                until_blocking(lambda phase=phase: marks(redis_server, phase))
                server.kill()
                server.start()
                for name, handle in handles.items():
                    if name.startswith(f"{kill}."):
                        handle.signal("go", SIGNALS[1])

            for name, handle in handles.items():
                check(redis_server, name, handle, are_workers_killed=False)
                assert handle.refresh().retried == 0
