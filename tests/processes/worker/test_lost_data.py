"""Test a Redis that loses data, by an empty restart or by eviction: losses are reported, and other tasks run."""

import asyncio
from collections import Counter

import pytest

from taskq_core import TaskNotFoundError, TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Ends, Runner, until


async def test_redis_restarts_empty(start: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """Without persistence all data is lost, and handles report it. Workers continue with new tasks."""
    with RedisServer(tcp=True) as server:
        forgetful = TaskQ(server.url, defaults={"retention": 600}, enqueue_timeout=20)
        release = asyncio.Event()
        runs: Counter[int] = Counter()

        @forgetful.task
        async def work(number: int) -> int:
            runs[number] += 1
            if number < 0:
                await release.wait()
            return number

        ends = Ends()
        worker = await start(app=forgetful, concurrency=5, listener=ends)
        running = await work.adelay(-1)
        scheduled = await work.using(run_after=600).adelay(-2)
        await until(lambda: worker.running_count == 1)
        server.kill()
        server.start()
        handles = list(await forgetful.async_client.enqueue_many(work.s(number) for number in range(100)))
        results = [await handle.aresult(20) for handle in handles]
        release.set()
        await until(lambda: ends.of(running.id))
        for handle in (running, scheduled):
            with pytest.raises(TaskNotFoundError):
                await handle.aresult(20)
        await start.stop(worker)
        await forgetful.aclose()

    assert results == list(range(100))
    assert runs == Counter([-1, *range(100)])
    assert len(ends.of(running.id)) == 1
    # The worker learns of the loss from the next heartbeat or from the response to the settlement.
    assert "lost its lease" in caplog.text or "another worker has the task, or the task was deleted" in caplog.text


@pytest.mark.parametrize("policy", ["allkeys-random", "allkeys-lru"])
async def test_a_redis_that_evicts(start: Runner, policy: str, caplog: pytest.LogCaptureFixture) -> None:
    """Evicted tasks are lost and reported. All other tasks run once."""
    with RedisServer() as server:
        evicting = TaskQ(server.url, defaults={"retention": 0}, enqueue_timeout=60)
        queue = evicting.runtime.keys.queue("default")
        runs: Counter[int] = Counter()

        @evicting.task
        async def work(number: int, ballast: str) -> None:
            runs[number] += 1

        count = 3000
        handles = list(await evicting.async_client.enqueue_many(work.s(number, "x" * 1000) for number in range(count)))
        server.client.config_set("maxmemory-policy", policy)
        server.client.config_set("maxmemory", str(int(server.client.info("memory")["used_memory"]) - 1_000_000))
        await work.using(queue="elsewhere").adelay(-1, "x")  # Redis evicts keys at a write, partly in the background
        await until(lambda: int(server.client.info("stats")["evicted_keys"]) > 200)
        server.client.config_set("maxmemory", "0")
        evicted = int(server.client.info("stats")["evicted_keys"])
        left = [number for number, each in enumerate(handles) if server.client.exists(queue.task(each.id))]
        is_listed = bool(server.client.exists(queue.pending))
        worker = await start(app=evicting, concurrency=20, reconcile_every=600 if is_listed else 0.3)
        await until(lambda: len(runs) >= len(left))
        await until(lambda: not server.client.exists(queue.pending, queue.active, queue.lease))
        lost = count - len(left)
        await until(lambda: worker._fetcher.dropped >= lost if is_listed else worker.repairs)
        dropped = worker._fetcher.dropped
        await start.stop(worker)
        await evicting.aclose()

    assert 100 < lost <= evicted
    assert runs == Counter(left)
    if is_listed:
        assert dropped == lost
        assert "because they have no stored message" in caplog.text
    else:  # the pending list was evicted, and the tasks were found by their hashes
        assert "queue default was damaged" in caplog.text
