"""Settling through faults: lost replies, restarts, refusals. A task that ended runs no second time."""

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from taskq_core import Snooze, TaskQ, current_task
from taskq_core.broker.operations.runs import SettleCode
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.wire import QueueKeys, TaskMessage
from taskq_core.worker import fetcher
from taskq_core.worker.dispatcher import Dispatcher
from taskq_core.worker.run import Run
from taskq_core.worker.run_counters import RunCounters
from taskq_core.worker.settler import Settler
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import Ends, Runner, context_of, state_of, until


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    """A relay before the shared server."""
    with Relay(redis_server.socket_path) as relay:
        yield relay


@pytest.mark.parametrize("trap", ["drop_reply_to", "drop_request"])
@pytest.mark.parametrize("outcome", ["completed", "deleted", "archived", "retried"])
async def test_a_lost_settlement_is_sent_again(
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

    assert relay.intercepted == 1
    assert runs == [1]
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)
    assert redis_server.client.get(queue.processed) == b"1"
    assert ("is unknown: it was sent twice" in caplog.text) == (trap == "drop_reply_to")


@pytest.mark.parametrize("trap", ["drop_reply_to", "drop_request"])
async def test_a_lost_dequeue_is_repeated_with_the_same_tasks(
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

    assert relay.intercepted == 1
    assert set(runs.values()) == {1}
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)


@pytest.mark.parametrize("trap", ["drop_reply_to", "drop_request"])
async def test_a_lost_fused_call_is_repeated_as_two_calls(
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

    assert relay.intercepted == 1
    assert set(runs.values()) == {1}
    assert redis_server.client.get(queue.processed) == b"60"
    assert not redis_server.client.exists(queue.active, queue.lease, queue.pending)


@pytest.mark.parametrize("outcome", ["done", "complete", "retry", "archive", "snooze", "requeue"])
async def test_settlements_and_results_of_a_lost_task_are_refused(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    outcome: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This holds for each end of the run, even before the worker noticed the loss."""
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
    assert "was refused: another worker has the task" in caplog.text


async def test_refused_settlements_do_not_let_a_worker_fetch_more_tasks(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first request fetches tasks. Repeated settlements fetch none."""
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


def settler_of(app: TaskQ, **config: Any) -> tuple[Settler, list[int]]:
    """A settler, and the numbers of slots that it returns."""
    context = context_of(app, **config)
    released: list[int] = []
    settler = Settler(
        context,
        counters=RunCounters(context),
        dispatcher=Dispatcher(context, {}),
    )
    settler.release = lambda slots, ended_in=None: released.append(slots)
    return settler, released


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_repeated_settlement_releases_its_slot_only_when_settled(
    app: TaskQ, queue: QueueKeys, is_answered: bool
) -> None:
    settler, released = settler_of(app, lease_grace=0)
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
    assert sum(released) == len(runs)
    assert settler.count == 0


@pytest.mark.parametrize(("ended_s_ago", "is_sent_again"), [(5, True), (25, False)])
def test_a_settlement_is_repeated_until_other_workers_may_recover_the_task(
    app: TaskQ, queue: QueueKeys, ended_s_ago: float, is_sent_again: bool
) -> None:
    """Other workers recover an expired lease after the grace, here 15 seconds."""
    settler, released = settler_of(app, lease_grace=15)
    run = Run(queue, "t", TaskMessage(type="t", id="t"), SYSTEM_CLOCK.monotonic() - ended_s_ago)
    run.started = SYSTEM_CLOCK.monotonic()
    settler.add(run)
    (batch,) = settler.take()

    settler.unanswered(batch)

    assert settler.count == int(is_sent_again)
    assert sum(released) == (0 if is_sent_again else 1)
