"""Settling through faults: lost replies, restarts, refusals. A task that ended runs no second time."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from taskq_core import BrokerFullError, EnqueueError, Snooze, TaskFailedError, TaskQ, current_task
from taskq_core.broker.operations import SettleCode
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.telemetry import WorkerMetrics
from taskq_core.wire import QueueKeys, TaskMessage
from taskq_core.worker import WorkerListener, fetcher
from taskq_core.worker.run import Run
from taskq_core.worker.settler import Settler
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, disturbed, state_of, until


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    """A relay before the shared server."""
    with Relay(redis_server.socket_path) as relay:
        yield relay


@pytest.mark.parametrize("trap", ["drop_reply_to", "drop_request"])
@pytest.mark.parametrize("outcome", ["completed", "deleted", "archived", "retried"])
async def test_one_lost_settlement_is_repeated(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    relay: Relay,
    trap: str,
    outcome: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whether the request or its reply is lost, the task ran once and is settled once."""
    runs: list[int] = []
    far = TaskQ(relay.url, defaults={"max_retry": 0 if outcome == "archived" else 3})

    @far.task(name="work", retention=600 if outcome == "completed" else 0, retry_delay=500)
    async def work() -> str:
        runs.append(1)
        if outcome in ("archived", "retried"):
            raise ValueError("x")
        return "ran"

    ends = Ends()
    worker = await start(app=far, listener=ends)
    await until(lambda: worker._fetcher.is_idle)
    getattr(relay, trap)(redis_server.load("settle"))
    handle = (
        await app.remote("work", retention=600, max_retry=0 if outcome == "archived" else 3)
        .using(retention=600 if outcome == "completed" else 0)
        .adelay()
    )
    expected = {"completed": "completed", "deleted": None, "archived": "archived", "retried": "retry"}[outcome]
    await until(lambda: ends.ends and state_of(redis_server, queue, handle.id) == expected)
    await until(lambda: worker.running_count == 0)
    await start.stop(worker)
    await far.aclose()

    assert relay.trapped == 1
    assert runs == [1]
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)
    assert redis_server.client.get(queue.processed) == b"1"
    assert ("is unknown: it was sent twice" in caplog.text) == (trap == "drop_reply_to")


@pytest.mark.parametrize("trap", ["drop_reply_to", "drop_request"])
async def test_one_lost_dequeue_hands_its_tasks_out_again(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, relay: Relay, trap: str
) -> None:
    """Tasks in a lost reply are not stuck in active until their lease ends."""
    runs: Counter[int] = Counter()
    far = TaskQ(relay.url)

    @far.task(name="work")
    async def work(number: int) -> None:
        runs[number] += 1

    getattr(relay, trap)(redis_server.load("dequeue"))
    await app.async_client.enqueue_many(app.remote("work").s(number=number) for number in range(50))
    worker = await start(app=far, lease=60, heartbeat=1)
    await until(lambda: len(runs) == 50)
    await until(lambda: worker.running_count == 0)
    await start.stop(worker)
    await far.aclose()

    assert relay.trapped == 1
    assert set(runs.values()) == {1}
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)


@pytest.mark.parametrize("trap", ["drop_reply_to", "drop_request"])
async def test_one_lost_script_that_settles_and_dequeues_is_sent_again_as_two(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, relay: Relay, trap: str
) -> None:
    """Whether Redis did all of it or nothing: each task runs once and is settled once."""
    runs: Counter[int] = Counter()
    far = TaskQ(relay.url)

    @far.task(name="quick", retention=0)
    async def quick(number: int) -> None:
        runs[number] += 1

    getattr(relay, trap)(redis_server.load("settle_and_dequeue"))
    await app.async_client.enqueue_many(app.remote("quick", retention=0).s(number=number) for number in range(60))
    worker = await start(app=far, concurrency=10, lease=60, heartbeat=1)
    await until(lambda: len(runs) == 60 and worker.running_count == 0)
    await start.stop(worker)
    await far.aclose()

    assert relay.trapped == 1
    assert set(runs.values()) == {1}
    assert redis_server.client.get(queue.processed) == b"60"
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)


@pytest.mark.slow
async def test_a_network_that_flaps_loses_and_repeats_nothing(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, relay: Relay
) -> None:
    """Connections cut again and again, bytes in small pieces and late."""
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
        seen = len(runs)
        await until(partial(have_run, min(count, seen + 50)), within=30)
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


@pytest.mark.parametrize("outcome", ["done", "complete", "retry", "archive", "snooze", "requeue"])
async def test_nothing_is_written_for_a_task_that_another_worker_has_taken(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    outcome: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However the run ends, its settlement and its result are refused, also before the loss was noticed."""
    release = asyncio.Event()

    @app.task(retention=600 if outcome == "complete" else 0, max_retry=0 if outcome == "archive" else 3)
    async def work() -> str:
        await release.wait()
        current_task().write_result(b"stolen")
        if outcome == "snooze":
            raise Snooze(after=1)
        if outcome in ("retry", "archive"):
            raise ValueError("x")
        return "ran"

    ends = Ends()
    worker = await start(lease=60, heartbeat=20, listener=ends, shutdown_grace=0)
    handle = await work.adelay()
    await until(lambda: worker.running_count == 1)
    # As a successor's dequeue leaves it; the next heartbeat, which would notice, is far off.
    redis_server.client.zadd(queue.lease, {handle.id: 4_000_000_000})
    redis_server.client.hset(queue.task(handle.id), "taskq_owner", "successor:4000000000")
    before = redis_server.client.hgetall(queue.task(handle.id))
    if outcome == "requeue":
        await start.stop(worker)
    else:
        release.set()
    await until(lambda: ends.ends and not worker.running_count)

    assert redis_server.client.hgetall(queue.task(handle.id)) == before
    assert redis_server.client.zrange(queue.lease, 0, -1) == redis_server.client.lrange(queue.active, 0, -1)
    assert redis_server.client.get(queue.processed) is None
    assert "was refused: another worker has taken the task over" in caplog.text


@pytest.mark.parametrize("fault", ["SCRIPT FLUSH", "CLIENT KILL"])
async def test_scripts_and_connections_may_go_at_any_time(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, fault: str
) -> None:
    """All tasks run once; nobody notices."""
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


async def test_a_read_only_spell_passes(app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys) -> None:
    """A failover leaves the worker on a replica for a while: refused whole, then all runs once."""
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
    """A port nobody listens on, so that the replica keeps its data."""
    port = server.port
    server.kill()
    return port


async def test_over_maxmemory_running_tasks_finish_and_the_queue_drains(
    start: Runner,
) -> None:
    """Enqueueing is refused with its own error; leases are extended; presence is written."""
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
        # Of two seconds each, so that they are extended over maxmemory.
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


async def test_settlements_that_are_refused_do_not_let_in_ever_more_tasks(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks come with the first request, which is on its way with them; for what is sent again none are taken."""
    monkeypatch.setattr(fetcher, "LONGEST_PAUSE_S", 0.01)
    ran: list[int] = []

    @app.task
    async def work(number: int) -> None:
        ran.append(number)

    await app.async_client.enqueue_many(work.s(number) for number in range(40))
    redis_server.client.set(queue.completed, "no sorted set")
    worker = await start(concurrency=6, lease=60, heartbeat=1)
    await until(lambda: worker._fetcher.turns >= 60)

    assert len(ran) <= 2 * 6
    redis_server.client.delete(queue.completed)
    await until(lambda: worker.ended_count == 40)
    await until(lambda: worker._fetcher.free == 6)
    assert sorted(ran) == list(range(40))


@pytest.mark.parametrize("is_answered", [True, False])
def test_what_is_sent_again_frees_no_slot_before_it_is_settled(queue: QueueKeys, is_answered: bool) -> None:
    released: list[Run] = []
    settler = Settler(
        "w",
        SYSTEM_CLOCK,
        redis_time=time.time,
        lease_margin_s=0,
        metrics=WorkerMetrics(),
        listener=WorkerListener(),
        released=released.extend,
    )
    runs = [Run(queue, f"t{number}", TaskMessage(type="t", id=f"t{number}"), math.inf) for number in range(3)]
    for run in runs:
        run.started = SYSTEM_CLOCK.monotonic()
        settler.add(run)
    (first,) = settler.take()
    if is_answered:
        settler.settled(first, SettleCode.SETTLED + 2 * SettleCode.SEND_AGAIN)
    else:
        settler.unanswered(first)
    (again,) = settler.take()

    assert (first.slots, again.slots) == (3, 0)
    settler.settled(again, SettleCode.SETTLED * len(again.runs))
    assert released == runs
    assert settler.count == 0


@pytest.mark.parametrize(("ended_s_ago", "is_sent_again"), [(5, True), (25, False)])
def test_a_settlement_without_answer_is_sent_again_until_others_may_take_the_task(
    queue: QueueKeys, ended_s_ago: float, is_sent_again: bool
) -> None:
    """Others act on a lease that has ended only after the grace, here 15 seconds."""
    released: list[Run] = []
    settler = Settler(
        "w",
        SYSTEM_CLOCK,
        redis_time=time.time,
        lease_margin_s=15,
        metrics=WorkerMetrics(),
        listener=WorkerListener(),
        released=released.extend,
    )
    run = Run(queue, "t", TaskMessage(type="t", id="t"), SYSTEM_CLOCK.monotonic() - ended_s_ago)
    run.started = SYSTEM_CLOCK.monotonic()
    settler.add(run)
    (batch,) = settler.take()

    settler.unanswered(batch)

    assert settler.count == int(is_sent_again)
    assert released == ([] if is_sent_again else [run])
