"""Forged messages, hashes and lists: a worker with all rights touches no key outside the queue they were written to."""

from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner

pytestmark = pytest.mark.redis


async def test_a_hundred_thousand_ids_without_a_task(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    exchanges: list[list[tuple[str, Any]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They cost a hundred calls and two lines: what was dropped at first, and the rest when the worker ends."""
    count = 100_000
    for first in range(0, count, 10_000):
        redis_server.client.lpush(queue.pending, *(f"ghost-{number}" for number in range(first, first + 10_000)))

    @app.task
    async def work() -> None: ...

    handles = await app.async_client.enqueue_many([work.s() for _ in range(5)])
    worker = await start(concurrency=1, reconcile_every=600)
    for handle in handles:
        await handle.aresult(20)
    asked = sum(name in ("dequeue", "settle_and_dequeue") for each in exchanges for name, _ in each)
    await start.stop(worker)

    assert worker._fetcher.dropped == count
    assert asked <= 150
    lines = [each.getMessage() for each in caplog.records if "had no message" in each.getMessage()]
    assert len(lines) <= 2
    assert sum(int(line.split()[0]) for line in lines) == count
