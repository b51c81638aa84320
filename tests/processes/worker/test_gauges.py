"""Test the gauges of a worker during an outage of Redis."""

import asyncio

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Read, Runner, until


async def test_a_worker_reports_its_running_tasks_and_its_connection(
    app: TaskQ, start: Runner, read: Read, redis_server: RedisServer
) -> None:
    gate = asyncio.Event()

    @app.task(name="wait")
    async def wait() -> None:
        await gate.wait()

    worker = await start(concurrency=7)
    await wait.adelay()
    await until(lambda: worker.running_count == 1, "it runs")
    busy = read("asynq.worker.busy"), read("asynq.worker.connected"), read("asynq.worker.slots")
    redis_server.stop()
    await until(lambda: read("asynq.worker.connected") == {(): 0}, "it is noticed")
    redis_server.start()
    await until(lambda: read("asynq.worker.connected") == {(): 1}, "it is back")
    gate.set()
    await start.stop(worker)

    assert busy == ({(): 1}, {(): 1}, {(): 7})
    assert read("asynq.worker.slots") == {}  # the worker has ended
