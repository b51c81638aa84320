"""Test which worker leads on a queue, what it knows, and which commands it sends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.wire import QueueKeys
from taskq_core.worker.change_feed import ChangeFeed
from taskq_core.worker.leadership import AFTER_S, SERVICE, Leadership, Topic
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, context_of, until

LEADER_S = 1000.0
BUT = {
    "config",
    "config|resetstat",
    "info",
    "hello",
    "client",
    "client|setinfo",
    "client|tracking",
}  # 6.2 names no more


class StillClock:
    """A clock that advances only on request, and stays close to the real time that Redis uses for leases."""

    def __init__(self) -> None:
        self.now = 1_000_000.5

    def time(self) -> float:
        return self.now

    monotonic = time


def commands_of(server: RedisServer) -> dict[str, int]:
    """How often each command was run since the statistics were reset, also by scripts."""
    stats: Any = server.client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
    return {name: count for name, count in counts.items() if name not in BUT}


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


Make = Callable[..., Leadership]


@pytest.fixture
async def make(app: TaskQ, queue: QueueKeys, clock: StillClock) -> AsyncIterator[Make]:
    runner = AsyncRunner(app.runtime.endpoint)
    made: list[Leadership] = []

    def make(owner: str = "w", *, is_tracked: bool = True, leader_s: float = LEADER_S) -> Leadership:
        if not is_tracked:
            runner.new_tracking_pipeline = lambda changed: runner.new_pipeline()  # type: ignore[method-assign]
        context = context_of(app, runner, clock=clock, token=owner, leader_lease=leader_s)
        made.append(Leadership(context, queue, ChangeFeed(runner)))
        return made[-1]

    yield make
    for each in made:
        await each.feed.close()
    await runner.aclose()
    await app.aclose()


async def passes(leadership: Leadership, clock: StillClock, seconds: Iterable[float]) -> None:
    """Let it work once after each of some spans of time, and not wait in between."""
    leadership._rest = _at_once  # type: ignore[method-assign]
    for each in seconds:
        clock.now += each
        await leadership.work()


async def _at_once() -> None:
    return


async def notified_after(leadership: Leadership, act: Callable[[], object]) -> None:
    """Run an action that Redis reports, and wait for the report."""
    leadership._has_changed = False
    act()
    await until(lambda: leadership._has_changed)


async def test_one_worker_leads_until_it_stops(make: Make, clock: StillClock, redis_server: RedisServer) -> None:
    first, second = make("a"), make("b")
    await passes(first, clock, [0])
    await passes(second, clock, [0, 0])
    assert (first.leads, second.leads) == (True, False)
    assert first.has_checked
    assert second.has_checked

    await first.resign()
    await passes(second, clock, [0])

    assert second.leads


async def test_a_leader_that_lost_its_lease_steps_down(
    make: Make, clock: StillClock, redis_server: RedisServer, queue: QueueKeys
) -> None:
    redis_server.client.zadd(queue.retry, {"x": 5})
    leadership = make("a")
    await passes(leadership, clock, [0])
    assert leadership.due_s == 5
    redis_server.client.set(queue.leader(SERVICE), "b", px=50_000)

    await passes(leadership, clock, [0.9 * LEADER_S])

    assert not leadership.leads
    assert leadership.due_s is None


async def test_a_leader_that_leads_again_checks_the_queue_at_once(
    make: Make, clock: StillClock, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """For example, its lease ended while its process was stopped. No other worker would forward due tasks."""
    redis_server.client.zadd(queue.retry, {"x": 5})
    leadership = make("a")
    await passes(leadership, clock, [0])
    redis_server.client.delete(queue.leader(SERVICE))
    await passes(leadership, clock, [2 * LEADER_S])
    assert leadership.leads

    await passes(leadership, clock, [0])

    assert leadership.due_s == 5


async def test_a_leader_has_the_time_of_the_first_due_task(
    make: Make, clock: StillClock, redis_server: RedisServer, queue: QueueKeys
) -> None:
    client = redis_server.client
    leadership = make()
    await passes(leadership, clock, [0])
    assert leadership.due_s is None

    for key, score in ((queue.scheduled, 90), (queue.retry, 70), (queue.scheduled, 80)):
        await notified_after(leadership, lambda key=key, score=score: client.zadd(key, {str(score): score}))
        await passes(leadership, clock, [1])
    assert leadership.due_s == 70
    await notified_after(leadership, lambda: client.zrem(queue.retry, "70"))
    await passes(leadership, clock, [1])
    assert leadership.due_s == 80


async def test_a_key_of_another_type_counts_as_due(
    make: Make, clock: StillClock, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The script is then called, and its error names the problem."""
    redis_server.client.set(queue.scheduled, "x")
    leadership = make()
    await passes(leadership, clock, [0])

    assert leadership.due_s == 0


@pytest.mark.parametrize("is_tracked", [True, False], ids=["tracking", "polling"])
@pytest.mark.parametrize("topic", Topic)
async def test_a_leader_has_the_topics_that_need_work(
    make: Make, clock: StillClock, redis_server: RedisServer, queue: QueueKeys, topic: Topic, is_tracked: bool
) -> None:
    """Each key that needs work is noticed, alone and together with others."""
    client = redis_server.client
    other = Topic.RETAINED if topic is not Topic.RETAINED else Topic.DEAD_LETTERS
    for key in topic.keys(queue):
        for before in (None, other.keys(queue)[0]):
            client.flushall()
            if before is not None:
                client.zadd(before, {"x": 1})
            leadership = make(key + str(before), is_tracked=is_tracked)
            changes = asyncio.Event()
            leadership.signal(changes)
            await passes(leadership, clock, [0])
            assert not leadership.has(topic)
            changes.clear()
            if is_tracked:
                await notified_after(leadership, lambda key=key: client.set(key, 1))
            else:
                client.set(key, 1)
            await passes(leadership, clock, [1 + AFTER_S])
            assert leadership.has(topic), (key, before)
            assert leadership.has(other) == (before is not None)
            assert changes.is_set()
            await leadership.feed.close()
            await leadership.resign()


async def test_a_quiet_queue_costs_only_rare_lease_renewals(
    make: Make, clock: StillClock, redis_server: RedisServer
) -> None:
    """Redis would report a loss. With a lease of five seconds, this takes one command every four seconds."""
    leadership = make()
    await passes(leadership, clock, [0])
    redis_server.client.config_resetstat()

    await passes(leadership, clock, [0.001 * LEADER_S] * 999)
    assert commands_of(redis_server) == {"getex": 1}
    assert leadership.leads


async def test_without_tracking_a_quiet_queue_costs_one_command_per_second(
    make: Make, clock: StillClock, redis_server: RedisServer
) -> None:
    leadership = make(is_tracked=False)
    await passes(leadership, clock, [0])
    redis_server.client.config_resetstat()

    await passes(leadership, clock, [0.25] * 80)

    assert commands_of(redis_server) == {"exists": 20}


async def test_without_tracking_a_queue_with_scheduled_tasks_costs_one_read_per_second(
    make: Make, clock: StillClock, redis_server: RedisServer, queue: QueueKeys
) -> None:
    redis_server.client.zadd(queue.scheduled, {"x": 2_000_000_000})
    leadership = make(is_tracked=False)
    await passes(leadership, clock, [0])
    redis_server.client.config_resetstat()

    await passes(leadership, clock, [1] * 20)

    counts = commands_of(redis_server)
    assert counts["zrange"] == 40
    assert counts["exists"] == 20 * len(Topic)


async def test_constant_changes_cost_one_check_per_second(
    make: Make, clock: StillClock, redis_server: RedisServer, queue: QueueKeys
) -> None:
    leadership = make()
    await passes(leadership, clock, [0])
    redis_server.client.config_resetstat()
    for number in range(40):
        redis_server.client.zadd(queue.scheduled, {str(number): 2_000_000_000})
        leadership._on_change()
        await passes(leadership, clock, [0.1])

    assert commands_of(redis_server)["zrange"] <= 2 * 5


async def test_a_worker_that_does_not_lead_sends_one_command_rarely(
    make: Make, clock: StillClock, redis_server: RedisServer
) -> None:
    first, second = make("a"), make("b")
    await passes(first, clock, [0])
    await passes(second, clock, [0])
    redis_server.client.config_resetstat()

    again_s = [await second.work() for _ in range(10)]

    assert commands_of(redis_server) == {"pttl": 10}
    assert min(again_s) >= 0.4 * LEADER_S


async def test_a_worker_leads_and_checks_again_after_redis_was_flushed(
    make: Make, clock: StillClock, redis_server: RedisServer, queue: QueueKeys
) -> None:
    redis_server.client.zadd(queue.retry, {"x": 5})
    leadership = make()
    await passes(leadership, clock, [0])
    await notified_after(leadership, redis_server.client.flushall)
    await passes(leadership, clock, [1])
    assert (leadership.leads, leadership.due_s) == (True, None)

    await passes(leadership, clock, [0.9 * LEADER_S, 0])
    assert leadership.leads
    assert redis_server.client.get(queue.leader(SERVICE)) == b"w"


async def test_a_task_scheduled_by_a_go_client_is_noticed_at_once(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Go's client schedules a task like this: it writes a hash and an entry, without a notification."""
    worker = await start(safety_net=600, leader_lease=60)
    await until(lambda: next(worker._services.of(Leadership)).unchanged_since < 1e12)

    due = int(redis_server.client.time()[0]) + 1  # type: ignore[index]  # of a blocking client
    redis_server.client.zadd(queue.scheduled, {"go": due})
    await until(
        lambda: next(worker._services.of(Leadership)).due_s == due or not redis_server.client.zcard(queue.scheduled)
    )
