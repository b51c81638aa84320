"""Test worker processes that get stop signals, and workers whose Redis starts late or goes away."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    SHRUNK,
    Runner,
    WorkerProcess,
    marks,
    state_of,
    status_of_worker,
    stored,
    texts,
    until,
    until_blocking,
)

Start = Callable[..., WorkerProcess]


async def test_a_worker_waits_for_redis_at_its_start(start: Runner) -> None:
    """It retries for a few seconds."""
    with RedisServer() as server:
        late = TaskQ(server.url)
        server.kill()
        worker = Worker(late, WorkerConfig(**SHRUNK))
        running = asyncio.create_task(worker.arun())
        await asyncio.sleep(0)
        server.start()
        await until(lambda: worker.status == "active")
        worker.stop()
        assert await running == 0
        await late.aclose()


async def test_a_worker_stops_also_while_redis_is_unavailable(start: Runner) -> None:
    """It gives up after the grace, and logs the tasks that it could not settle."""
    with RedisServer() as server:
        gone = TaskQ(server.url)
        worker = await start(app=gone, shutdown_grace=0.2)
        server.kill()

        assert await asyncio.wait_for(start.stop(worker), 15) == 0
        await gone.aclose()


def enqueue(app: TaskQ, task: str, **arguments: Any) -> Any:
    return app.remote(task, retention=600, max_retry=3).delay(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_stops_gracefully(
    app: TaskQ, start_process: Start, redis_server: RedisServer, number: signal.Signals
) -> None:
    """A short task finishes, the exit status is 0, and the presence is deleted."""
    process = start_process(lease=30, heartbeat=5)  # the deletion of the presence may take two heartbeats
    handle = enqueue(app, "wait", name="a", until="go")
    until_blocking(lambda: marks(redis_server, "a"))
    process.signal(number)
    until_blocking(lambda: "for 1 running tasks" in process.output)
    redis_server.client.set("go", 1)

    assert process.wait() == 0
    assert handle.result(5) == str(process.process.pid)
    assert redis_server.client.keys("asynq:servers:*") == []


@pytest.mark.slow
def test_a_second_signal_stops_at_once(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Running tasks return to the head of the queue with unchanged attempts, and run next."""
    process = start_process(shutdown_grace=600, concurrency=2)
    handles = [enqueue(app, name, name=name, until="go") for name in ("wait", "plain_wait")]
    until_blocking(lambda: marks(redis_server, "wait") and marks(redis_server, "plain_wait"))
    waiting = enqueue(app, "quick", name="later")
    process.signal(signal.SIGTERM)
    until_blocking(lambda: "stopping" in process.output)
    process.signal(signal.SIGTERM)

    assert process.wait() == 0
    assert texts(redis_server.client.lrange(queue.pending, 0, 0)) == [waiting.id]
    assert [stored(redis_server, queue, handle.id).retried for handle in handles] == [0, 0]
    redis_server.client.set("go", 1)
    start_process()
    for handle in handles:
        assert handle.result(10)
    assert marks(redis_server, "wait") == ["started 1", "cancelled", "started 1", "ended"]
    assert marks(redis_server, "plain_wait") == ["started 1", "interrupted", "started 1", "ended"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stubborn", "stubborn_coroutine"])
def test_a_hanging_function_does_not_delay_the_exit(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, name: str
) -> None:
    """Its task is returned to the queue, because the process ends."""
    process = start_process(shutdown_grace=0.1)
    handle = enqueue(app, name, name="a")
    until_blocking(lambda: marks(redis_server, "a"))
    process.signal(signal.SIGTERM)

    assert process.wait() == 0
    assert state_of(redis_server, queue, handle.id) == "pending"
    assert "did not end when interrupted; it returns to its queue" in process.output
    assert not redis_server.client.exists(queue.active, queue.lease)


@pytest.mark.slow
def test_a_generator_that_does_not_close_does_not_affect_the_exit(app: TaskQ, start_process: Start) -> None:
    """A task has left the generator, which is closed with the event loop."""
    process = start_process()
    assert enqueue(app, "leave_generator").result(10) == "1"
    process.signal(signal.SIGTERM)

    assert process.wait() == 0
    assert "Traceback" not in process.output


@pytest.mark.slow
def test_a_hanging_thread_of_a_coroutine_does_not_delay_the_exit(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Python would wait for the thread, while another worker runs the task again."""
    process = start_process(shutdown_grace=0.1)
    handle = enqueue(app, "stubborn_thread_of_a_coroutine", name="a")
    until_blocking(lambda: marks(redis_server, "a"))
    process.signal(signal.SIGTERM)

    assert process.wait() == 0
    assert state_of(redis_server, queue, handle.id) == "pending"
    assert not redis_server.client.exists(queue.active, queue.lease)


@pytest.mark.slow
def test_sigtstp_stops_fetching_only(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Running tasks end, new tasks are not taken, tools show `stopped`, and SIGTERM still stops the worker."""
    process = start_process()
    running = enqueue(app, "wait", name="a", until="go")
    until_blocking(lambda: marks(redis_server, "a"))
    process.signal(signal.SIGTSTP)
    until_blocking(lambda: "no new tasks are taken" in process.output)
    waiting = enqueue(app, "quick", name="b")
    redis_server.client.set("go", 1)

    assert running.result(10)

    until_blocking(lambda: status_of_worker(redis_server) == "stopped")
    assert state_of(redis_server, queue, waiting.id) == "pending"
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert marks(redis_server, "b") == []


@pytest.mark.slow
def test_repeated_signals_leave_no_task_stuck(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Signals arrive while tasks are taken and run. All tasks are settled or returned."""
    app.client.enqueue_many(app.remote("quick", retention=600).s(name="a") for _ in range(300))
    process = start_process(concurrency=20)
    for _ in range(10):
        for number in (signal.SIGTSTP, signal.SIGTERM, signal.SIGINT):
            process.signal(number)

    assert process.wait() == 0
    assert not redis_server.client.exists(queue.active, queue.lease)
    assert redis_server.client.llen(queue.pending) + redis_server.client.zcard(queue.completed) == 300
    assert len(marks(redis_server, "a")) >= redis_server.client.zcard(queue.completed)
