"""Test a Redis with full memory: it refuses writes for longer than a lease, or evicts keys."""

import asyncio
import logging
from collections import Counter

import pytest

from taskq_core import EnqueueError, TaskQ
from taskq_core.doctor.reading import read_facts
from taskq_core.doctor.repair import plan
from taskq_core.doctor.rules import diagnose
from taskq_core.errors import BrokerFullError
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, until

pytestmark = [pytest.mark.redis, pytest.mark.slow]


def is_at_rest(server: RedisServer, queue: QueueKeys) -> bool:
    return not server.client.exists(queue.pending, queue.active, queue.lease, queue.scheduled, queue.retry)


async def test_full_memory_for_longer_than_a_lease_causes_no_second_run(start: Runner) -> None:
    """Leases are still extended, so running tasks are not recovered, and the queue drains by itself."""
    with RedisServer() as server:
        app = TaskQ(server.url, enqueue_timeout=PATIENCE_S)
        queue = app.runtime.keys.queue("default")
        release = asyncio.Event()
        runs: Counter[int] = Counter()

        @app.task(name="work", retention=0)
        async def work(number: int) -> None:
            runs[number] += 1
            await release.wait()

        await start(app=app, concurrency=4, lease=2)
        for number in range(20):
            await work.adelay(number)
        await until(lambda: len(runs) == 4)
        server.client.config_set("maxmemory", "1")
        until_s = int(server.command("TIME")[0]) + 5  # lease + grace + the recoverer's interval in tests
        with pytest.raises(EnqueueError) as refused:
            await work.adelay(99)
        await until(lambda: int(server.command("TIME")[0]) >= until_s)
        held = server.client.zcard(queue.lease)
        release.set()
        await until(lambda: is_at_rest(server, queue))
        server.client.config_set("maxmemory", "0")
        await app.aclose()

    assert isinstance(refused.value.__cause__, BrokerFullError)
    assert held == 4
    assert runs == dict.fromkeys(range(20), 1)


async def test_evicted_tasks_are_reported(start: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """Evicted tasks are dropped and reported, all others run, and no keys are left. The doctor names the cause."""
    with RedisServer(options={"maxmemory-policy": "allkeys-random"}) as server:
        app = TaskQ(server.url, enqueue_timeout=PATIENCE_S)
        queue = app.runtime.keys.queue("default")
        runs: Counter[int] = Counter()

        @app.task(name="work", retention=0)
        async def work(number: int, filler: str) -> None:
            runs[number] += 1

        await app.async_client.enqueue_many(work.s(number, "x" * 4_000) for number in range(600))
        used = int(server.client.info("memory")["used_memory"])
        server.client.config_set("maxmemory", str(used - 600_000))
        server.client.set("ballast", "x" * 8_000)  # a write for which Redis must evict keys
        evicted = int(server.client.info("stats")["evicted_keys"])
        server.client.config_set("maxmemory", "0")
        kept = {key.decode().rpartition(":t:")[2] for key in server.client.scan_iter(queue.task_prefix + "*")}
        findings = await asyncio.to_thread(lambda: diagnose(read_facts(app)))

        with caplog.at_level(logging.ERROR, logger="taskq.worker"):
            worker = await start(app=app, concurrency=10, reconcile_every=1)
            await until(lambda: len(runs) >= len(kept))  # all remaining tasks, also if the pending list was evicted
            await until(lambda: not server.client.exists(queue.pending, queue.active, queue.lease))
        left = await asyncio.to_thread(lambda: plan(read_facts(app)))
        await start.stop(worker)
        await app.aclose()

    assert evicted > 0
    assert [each.level for each in findings if each.check == "eviction"] == ["red"]
    assert "allkeys-random: a full server deletes tasks without an error" in str(findings)
    assert 0 < len(runs) == len(kept) < 600
    assert set(runs.values()) == {1}
    assert any("because they have no stored message" in each or "was damaged" in each for each in caplog.messages)
    assert left == []
