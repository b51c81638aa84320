"""Test the requests of operators to running workers."""

import asyncio

import pytest

from taskq_core import ConfigurationError, TaskQ
from taskq_core.errors import WorkerNotFoundError
from taskq_core.inspector import AsyncInspector
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, receives_cancels, receives_requests, until


@pytest.fixture
async def inspector(app: TaskQ) -> AsyncInspector:
    return AsyncInspector(app)


async def test_a_worker_is_paused_and_resumed_by_request(
    app: TaskQ, start: Runner, redis_server: RedisServer, inspector: AsyncInspector
) -> None:
    """A running task goes on; what waits runs once the worker is resumed."""
    release = asyncio.Event()

    @app.task
    async def hold() -> str:
        await release.wait()
        return "done"

    @app.task
    def quick() -> str:
        return "ran"

    worker = await start(concurrency=2)
    running = await hold.adelay()
    await until(lambda: worker.running_count == 1 and receives_requests(redis_server))

    (asked,) = await inspector.control_workers("quiet", [worker.id])
    assert asked.id == worker.id
    await until(lambda: worker.status == "stopped")
    waiting = await quick.adelay()
    release.set()
    assert await running.aresult(PATIENCE_S) == "done"
    assert redis_server.client.llen("asynq:{default}:pending") == 1

    await inspector.control_workers("resume", [f"{asked.host}:{asked.pid}"])
    assert await waiting.aresult(PATIENCE_S) == "ran"
    assert worker.status == "active"


async def test_the_concurrency_of_a_running_worker_is_changed(
    app: TaskQ, start: Runner, redis_server: RedisServer, inspector: AsyncInspector
) -> None:
    """A higher value starts more tasks at once, in threads too. A lower value applies when enough tasks have ended."""
    most = 0
    release = asyncio.Event()

    @app.task
    async def hold() -> None:
        nonlocal most
        most = max(most, worker.running_count)
        await release.wait()

    worker = await start(concurrency=1)
    for _ in range(12):
        await hold.adelay()
    await until(lambda: worker.running_count == 1 and receives_requests(redis_server))
    await inspector.control_workers("scale", concurrency=8)
    await until(lambda: worker.running_count == 8)
    assert worker.describe().concurrency == 8

    await inspector.control_workers("scale", concurrency=2)
    await until(lambda: worker.describe().concurrency == 2)
    release.set()
    await until(lambda: worker.ended_count == 12)
    assert most == 8
    release.clear()
    for _ in range(4):
        await hold.adelay()
    await until(lambda: worker.running_count == 2)
    assert worker._fetcher.free == 0
    release.set()
    await until(lambda: worker.ended_count == 16)


async def test_a_stop_request_ends_one_worker_gracefully(
    app: TaskQ, start: Runner, redis_server: RedisServer, inspector: AsyncInspector
) -> None:
    @app.task
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    first, second = await start(), await start()
    await until(lambda: receives_requests(redis_server, workers=2))
    for _ in range(3):
        redis_server.client.publish("taskq:control", b'{"workers":"x"}')
        redis_server.client.publish("taskq:control", b"\xff")

    await inspector.control_workers("stop", [first.id])

    assert await start.ending(first) == 0
    assert await (await work.adelay()).aresult(PATIENCE_S) == "done"
    assert second.status == "active"


async def test_a_worker_without_permission_for_requests_still_receives_cancels(
    start: Runner, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An example is a Redis user that was created for an earlier release."""
    client = redis_server.client
    client.acl_setuser("worker", enabled=True, passwords=["+word"], keys=["*"], commands=["+@all"])
    client.execute_command("ACL", "SETUSER", "worker", "resetchannels", "&asynq:cancel", "&taskq:{*")
    app = TaskQ(redis_server.unix_url.replace("unix://", "unix://worker:word@"))
    try:
        worker = await start(app=app)
        await until(lambda: receives_cancels(redis_server))
        assert await start.stop(worker) == 0
    finally:
        client.acl_deluser("worker")
        app.close()
    (line,) = [each for each in caplog.messages if "requests of operators" in each]
    assert "taskq:control" in line


async def test_a_worker_reports_the_number_of_ended_and_failed_runs(
    app: TaskQ, start: Runner, inspector: AsyncInspector, clock: Clock
) -> None:
    @app.task(max_retry=0)
    def divide(by: int) -> float:
        return 1 / by

    worker = await start(heartbeat=5)
    for by in (1, 2, 0):
        await divide.adelay(by=by)
    await until(lambda: worker.ended_count == 3)
    await clock.advance(6)

    (shown,) = await inspector.servers()
    assert (shown.processed, shown.failed) == (3, 1)


async def test_invalid_requests_to_workers_are_refused(start: Runner, inspector: AsyncInspector) -> None:
    await start()

    with pytest.raises(WorkerNotFoundError, match="no worker 'web-1:7'"):
        await inspector.control_workers("stop", ["web-1:7"])
    with pytest.raises(ConfigurationError, match="action must be 'quiet', 'resume', 'scale' or 'stop', got 'halt'"):
        await inspector.control_workers("halt")
    with pytest.raises(ConfigurationError, match="concurrency must be between 1 and 100000, got 0"):
        await inspector.control_workers("scale", concurrency=0)
    with pytest.raises(ConfigurationError, match="only for the action 'scale', got 3 for 'stop'"):
        await inspector.control_workers("stop", concurrency=3)
