"""Test that settlements reach a Redis that is killed, full, or refuses writes for a while."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from taskq_core import BrokerFullError, EnqueueError, TaskFailedError, TaskQ
from taskq_core.wire import QueueKeys
from tests.processes.worker.disturbing import disturbed
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, until


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    """A relay to the shared server."""
    with Relay(redis_server.socket_path) as relay:
        yield relay


@pytest.mark.slow
async def test_a_network_that_flaps_loses_and_repeats_nothing(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, relay: Relay
) -> None:
    """Connections are closed repeatedly, and bytes arrive late and in small pieces."""
    runs: Counter[int] = Counter()
    far = TaskQ(relay.url)

    @far.task(name="work")
    async def work(number: int) -> None:
        runs[number] += 1
        await asyncio.sleep(0.002)

    def have_run(number: int) -> bool:
        return len(runs) >= number

    worker = await start(app=far, lease=60, heartbeat=1, concurrency=25)
    count, cuts = 1500, 0
    await app.async_client.enqueue_many(app.remote("work").s(number=number) for number in range(count))
    relay.delay("replies", 0.001)
    while len(runs) < count:
        before = len(runs)
        await until(partial(have_run, min(count, before + 50)), within=30)
        relay.trickle((None, 700)[cuts % 2])
        relay.cut()
        cuts += 1
    relay.forward()
    await until(lambda: worker.running_count == 0)
    await start.stop(worker)
    await far.aclose()

    assert set(runs.values()) == {1}
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)
    assert cuts >= 5


@pytest.mark.parametrize("fault", ["SCRIPT FLUSH", "CLIENT KILL"])
async def test_flushed_scripts_and_killed_connections_affect_no_task(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, fault: str
) -> None:
    """All tasks run once, without visible errors."""
    runs: Counter[int] = Counter()
    other: Any = redis_server.client.connection_pool.get_connection()

    @app.task(retention=0)
    async def coroutine(number: int) -> None:
        runs[number] += 1
        await asyncio.sleep(0.005)

    @app.task(retention=0)
    def plain(number: int) -> None:
        runs[number] += 1

    def disturb() -> None:
        if fault == "SCRIPT FLUSH":
            other.send_command("SCRIPT", "FLUSH")
        else:
            other.send_command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal")
        other.read_response()

    count = 600
    await app.async_client.enqueue_many((coroutine, plain)[number % 2].s(number) for number in range(count))
    worker = await start(concurrency=5, lease=60, heartbeat=1)
    async with disturbed(disturb, 0.002 if fault == "SCRIPT FLUSH" else 0.05) as is_enough:
        await until(lambda: len(runs) == count, within=60)
        while not is_enough():
            await (coroutine, plain)[count % 2].adelay(count)
            count += 1
            await until(lambda: len(runs) == count, within=60)  # noqa: B023 - awaited in the loop
    await until(lambda: worker.running_count == 0)
    other.disconnect()

    assert set(runs.values()) == {1}
    await until(lambda: not redis_server.client.exists(queue.active, queue.lease, queue.pending))


async def test_a_temporarily_read_only_redis_affects_no_task(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """During a failover the worker is connected to a replica for a while. Refused requests have no effect."""
    runs: Counter[int] = Counter()
    release = asyncio.Event()

    with RedisServer(tcp=True) as server, RedisServer(tcp=True) as other:
        far = TaskQ(server.url, defaults={"retention": 600}, enqueue_timeout=PATIENCE_S)

        @far.task(name="work")
        async def far_work(number: int) -> int:
            runs[number] += 1
            await release.wait()
            return number

        worker = await start(app=far, concurrency=5, lease=60, heartbeat=1)
        handles = [await far_work.adelay(number) for number in range(10)]
        await until(lambda: worker.running_count == 5)
        server.client.replicaof("127.0.0.1", str(_unused(other)))
        release.set()
        await until(lambda: worker._fetcher.is_failing)
        server.client.replicaof("NO", "ONE")
        results = [await handle.aresult(20) for handle in handles]
        await start.stop(worker)
        await far.aclose()

    assert results == list(range(10))
    assert set(runs.values()) == {1}


def _unused(server: RedisServer) -> int:
    """Return a port without a server, so that the replica keeps its data."""
    port = server.port
    server.kill()
    return port


async def test_over_maxmemory_running_tasks_finish_and_the_queue_drains(
    start: Runner,
) -> None:
    """Enqueues raise a specific error. Leases are extended, and presence is written."""
    with RedisServer() as server:
        full = TaskQ(server.url, defaults={"retention": 600, "max_retry": 0}, enqueue_timeout=PATIENCE_S)
        release = asyncio.Event()

        @full.task
        async def work(number: int) -> int:
            await release.wait()
            return number

        @full.task
        def fail() -> None:
            raise ValueError("x")

        worker = await start(app=full, concurrency=3, lease=2)
        handles = [await work.adelay(number) for number in range(12)]
        failing = await fail.adelay()
        await until(lambda: worker.running_count == 3)
        server.client.config_set("maxmemory", "1")
        with pytest.raises(EnqueueError) as refused:
            await work.adelay(99)
        queue = full.runtime.keys.queue("default")
        now = int(server.command("TIME")[0])
        # Leases of two seconds, so that they are extended while Redis is over maxmemory.
        await until(lambda: server.client.zcount(queue.lease, now + 4, "+inf") == 3)
        presence = await until(lambda: server.client.keys("asynq:servers:*"))
        release.set()
        results = [await handle.aresult(20) for handle in handles]
        with pytest.raises(TaskFailedError, match="ValueError"):
            await failing.aresult(20)
        server.client.config_set("maxmemory", "0")
        assert await (await work.adelay(100)).aresult(10) == 100
        await start.stop(worker)
        await full.aclose()

    assert isinstance(refused.value.__cause__, BrokerFullError)
    assert len(presence) == 1
    assert results == list(range(12))


@pytest.mark.slow
async def test_redis_killed_and_restarted_under_load_loses_nothing(start: Runner) -> None:
    """With an append-only file every acknowledged task is completed."""
    with RedisServer(appendonly=True, options={"appendfsync": "always"}) as server:
        durable = TaskQ(server.url, defaults={"retention": 600}, enqueue_timeout=PATIENCE_S)
        runs: Counter[int] = Counter()

        @durable.task
        async def work(number: int) -> int:
            runs[number] += 1
            await asyncio.sleep(0.01)
            return number

        def have_run(number: int) -> bool:
            return len(runs) >= number

        worker = await start(app=durable, concurrency=10, lease=60, heartbeat=1)
        handles = []
        for round_ in range(3):
            result = await durable.async_client.enqueue_many(
                work.s(number) for number in range(round_ * 200, round_ * 200 + 200)
            )
            handles += list(result)
            await until(partial(have_run, round_ * 200 + 40))
            server.kill()
            server.start()
        await until(lambda: len(runs) == 600, within=30)
        results = [await handle.aresult(20) for handle in handles]
        await start.stop(worker)
        await durable.aclose()

    assert results == list(range(600))
    # The append-only file holds all that was acknowledged, so not even an extra run is allowed.
    assert set(runs.values()) == {1}
