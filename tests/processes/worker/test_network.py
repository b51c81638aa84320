"""Test workers behind a network that delays, drops or splits data, or is interrupted."""

import asyncio
import random
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations.runs import dequeue
from taskq_core.wire import QueueKeys
from taskq_core.worker import turn
from tests.processes.worker.disturbing import disturbed
from tests.redis_server import RedisServer
from tests.relay import Direction, Relay
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, receives_cancels, state_of, stored, until

BOTH: tuple[Direction, ...] = ("requests", "replies")


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    """A relay to the shared server."""
    with Relay(redis_server.socket_path) as relay:
        yield relay


@pytest.fixture
async def far(relay: Relay) -> AsyncIterator[TaskQ]:
    """An application that reaches Redis through the relay."""
    far = TaskQ(relay.url, defaults={"retention": 600, "max_retry": 3}, enqueue_timeout=PATIENCE_S)
    yield far
    await far.aclose()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "directions"),
    [("hold", ("requests",)), ("swallow", ("requests",)), ("swallow", ("replies",)), ("hold", BOTH)],
    ids=["requests are held", "requests are lost", "replies are lost", "nothing passes"],
)
async def test_a_worker_that_is_cut_off_ends_its_run_before_another_worker_begins(
    app: TaskQ,
    far: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    relay: Relay,
    how: str,
    directions: tuple[Direction, ...],
) -> None:
    """Its connections stay open without data. Its functions may have side effects, so they are interrupted in time.

    When the network is back, its earlier runs have no effect, and it takes tasks again.
    """
    events: list[str] = []
    release = asyncio.Event()

    @far.task(name="work")
    async def cut_off() -> None:
        events.append("started")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("interrupted")

    @app.task(name="work")
    async def heirs() -> str:
        events.append("started again")
        await release.wait()
        return "the heir's"

    ends, heirs_ends = Ends(), Ends()
    worker = await start(app=far, listener=ends, concurrency=2, lease=2, unknown_task_timeout=0)
    handle = await app.remote("work", retention=600, max_retry=3).adelay()
    await until(lambda: events)
    getattr(relay, how)(*directions)
    heir = await start(listener=heirs_ends, concurrency=1)
    await until(lambda: "started again" in events)

    assert events == ["started", "interrupted", "started again"]
    relay.forward()
    other = await app.remote("unknown to both", retention=600, max_retry=0).adelay()  # the heir's only slot is taken
    await until(lambda: state_of(redis_server, queue, other.id) == "archived", "the worker works again")
    assert state_of(redis_server, queue, handle.id) == "active"
    release.set()
    assert await handle.aresult(10) == "the heir's"
    assert stored(redis_server, queue, handle.id).retried == 1
    await start.stop(worker)
    await start.stop(heir)
    assert ends.of(handle.id) == ["lost"]
    assert heirs_ends.of(handle.id) == ["completed"]
    assert events == ["started", "interrupted", "started again"]


@pytest.mark.slow
@pytest.mark.parametrize("is_stopped", [True, False], ids=["stopped", "goes on"])
async def test_a_worker_that_was_cut_off_first_repeats_its_last_request_for_tasks(
    app: TaskQ,
    far: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
    is_stopped: bool,
) -> None:
    """It does not know whether its last request arrived. It repeats this request instead of taking more tasks.

    A running worker does the same before its next request, because the old request may still arrive.
    """
    release, events = asyncio.Event(), []

    @far.task
    async def hold() -> None:
        await release.wait()

    @far.task
    async def short() -> None:
        events.append("short")

    asked: dict[tuple[str, int], list[int]] = defaultdict(list)

    def recording(*args: Any, **options: Any) -> Any:
        asked[options["lane"], options["call"]].append(options["limit"])
        return dequeue(*args, **options)

    monkeypatch.setattr(turn, "dequeue", recording)
    worker = await start(app=far, lease=60, lease_grace=30, heartbeat=5, concurrency=2)
    await app.remote(hold.name).adelay()
    await until(lambda: worker.running_count == 1)
    relay.swallow("requests")
    handle = await app.remote(
        short.name
    ).adelay()  # the wake token arrives at the worker, the request for the task does not arrive at Redis
    await until(lambda: worker._fetcher.is_failing, "no answer")
    if is_stopped:
        worker.stop()
    relay.forward()
    if not is_stopped:
        await until(lambda: events, "it requests tasks again")
    release.set()
    await start.stop(worker)

    repeated = [limits for limits in asked.values() if len(limits) > 1]
    assert repeated
    assert not any(limit for limits in repeated for limit in limits[1:])
    assert events == ([] if is_stopped else ["short"])
    if is_stopped:
        assert state_of(redis_server, queue, handle.id) == "pending"


@pytest.mark.slow
async def test_a_network_that_delivers_single_bytes_late(
    far: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, relay: Relay
) -> None:
    """All tasks run once, their results arrive, and no connection is closed."""
    runs: Counter[int] = Counter()
    chance = random.Random(5)

    @far.task
    async def work(number: int) -> int:
        runs[number] += 1
        return number

    worker = await start(app=far, lease=60, heartbeat=5)
    relay.trickle(1)
    handles = [await work.adelay(number) for number in range(5)]
    assert [await handle.aresult(60) for handle in handles] == list(range(5))
    relay.trickle(None)
    for number in range(5, 15):
        for direction in BOTH:
            relay.delay(direction, chance.random() / 5)
        handles.append(await work.adelay(number))
    assert [await handle.aresult(60) for handle in handles] == list(range(15))
    relay.forward()
    await until(lambda: worker.running_count == 0)
    await start.stop(worker)

    assert set(runs.values()) == {1}
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)


@pytest.mark.slow
async def test_a_network_that_is_interrupted_every_other_second(
    app: TaskQ, far: TaskQ, start: Runner, redis_server: RedisServer, relay: Relay
) -> None:
    """Reconnects are limited, connections do not accumulate, all tasks run once, and the worker recovers."""
    runs: Counter[int] = Counter()
    flaps = 5

    @far.task(name="work", retention=0)
    async def work(number: int) -> None:
        runs[number] += 1
        await asyncio.sleep(0.05)

    worker = await start(app=far, lease=30, heartbeat=1, lease_grace=30, concurrency=10)
    await until(lambda: worker._fetcher.is_idle)
    before, threads = relay.connections, threading.active_count()
    parties = len(worker._services.all) + 2  # each service, the fetcher and the keepalive retry separately
    for flap in range(flaps):
        relay.refuse()
        await app.async_client.enqueue_many(app.remote("work").s(number=flap * 50 + number) for number in range(50))
        await asyncio.sleep(1)  # the fault itself
        relay.forward()
        await asyncio.sleep(1)
    await until(lambda: len(runs) == flaps * 50)
    await until(lambda: worker.running_count == 0)

    assert relay.connections - before <= parties * 2 * flaps, "more than one attempt per second and connection"
    assert threading.active_count() <= threads
    assert len(redis_server.client.client_list()) <= 2 * parties + 5
    assert set(runs.values()) == {1}
    await start.stop(worker)


async def test_killed_connections_affect_no_task(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """This covers connections of producers and workers, and subscriptions for results and cancellations."""
    runs: Counter[int] = Counter()

    @app.task
    async def work(number: int) -> int:
        runs[number] += 1
        return number

    @app.task
    async def hold() -> None:
        await asyncio.Event().wait()

    other = redis_server.client.connection_pool.get_connection()
    killed = 0

    def kill() -> None:
        nonlocal killed
        for kind in ("normal", "pubsub"):
            other.send_command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", kind)
            killed += int(other.read_response())

    ends = Ends()
    worker = await start(concurrency=5, lease=60, heartbeat=1, listener=ends)
    held = await hold.adelay()
    await until(lambda: worker.running_count == 1)
    number = 0
    async with disturbed(kill, 0.03) as is_enough:
        while number < 60 or killed <= 30 or not is_enough():
            assert await (await work.adelay(number)).aresult(20) == number
            blocking = await asyncio.to_thread(work.delay, number + 1)
            assert await asyncio.to_thread(blocking.result, 20) == number + 1
            number += 2
    other.disconnect()
    await until(lambda: receives_cancels(redis_server))
    await held.acancel()
    await until(lambda: ends.of(held.id))
    await until(lambda: not redis_server.client.exists(queue.active, queue.lease, queue.pending))

    assert set(runs.values()) == {1}
    assert ends.of(held.id) == ["archived"]
