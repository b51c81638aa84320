"""Count the Redis commands of idle workers, and of one task while many workers are idle."""

import asyncio
import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations import views
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.services import notify, watch_pending
from taskq_core.service.loop import Signal
from taskq_core.wire import QueueKeys
from taskq_core.wire.samples import REST_MOST_S, SAMPLE_S, QueueSample
from taskq_core.worker import Worker, waker
from taskq_core.worker.gauges import KEPT_S
from taskq_core.worker.sampler import Sampler
from taskq_core.worker.waker import Watcher
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, context_of, until

RARELY: dict[str, Any] = {
    "lease": 180,
    "heartbeat": 60,
    "leader_lease": 600,
    "safety_net": 600,
    "recover_every": 600,
    "clean_every": 600,
    "dead_letters_every": 600,
}
"""Settings of workers whose services do nothing during a test."""
TASKS = 10


def commands(server: RedisServer) -> int:
    """Commands run so far, also by scripts, without those of this test's own client."""
    stats: Any = server.client.info("commandstats")
    own = {"cmdstat_info", "cmdstat_client", "cmdstat_client|list"}
    return sum(each["calls"] for name, each in stats.items() if name not in own)


async def test_the_presence_of_an_idle_worker_costs_one_command(
    app: TaskQ, start: Runner, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds for an unchanged record. If Redis has lost it, the worker writes it and its indexes again."""
    client: Any = redis_server.client
    keepalive = (await start(**RARELY))._keepalive
    await until(lambda: client.zcard("asynq:workers"))
    (member,) = client.zrange("asynq:servers", 0, -1)
    await asyncio.to_thread(keepalive.beat)
    asked: list[str] = []
    run = keepalive._runner.run

    def noted(operation: Operation[Any]) -> Any:
        asked.append(operation.name)
        return run(operation)

    monkeypatch.setattr(keepalive._runner, "run", noted)
    client.expire(member, 60)
    await asyncio.to_thread(keepalive.beat)
    assert asked == ["extend_presence"]
    assert client.ttl(member) > 100

    client.delete(member, "asynq:servers", "asynq:workers")
    await asyncio.to_thread(keepalive.beat)
    assert asked[1:] == ["extend_presence", "beat", "index_presence", "index_presence"]
    assert client.zrange("asynq:servers", 0, -1) == [member]
    assert client.zcard("asynq:workers") == client.exists(member) == 1


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of queues, one for each look of their watcher; it looks often while they hand nothing out."""
    names: list[str] = []

    def noted(queue: QueueKeys, **options: Any) -> Operation[Any]:
        names.append(queue.name)
        return notify(queue, **options)

    monkeypatch.setattr(waker, "notify", noted)
    monkeypatch.setattr(Sampler, "work", _noted_nothing)  # its samples are pushed too, but are not tokens
    monkeypatch.setattr(Watcher, "HELD_S", 0.01)
    return names


async def _noted_nothing(self: Sampler) -> None:
    return


async def tokens_put(server: RedisServer, looks: list[str]) -> int:
    """Return how many tokens are put while a queue is checked ten times."""

    def pushes() -> int:
        stats: Any = server.client.info("commandstats")
        return int(stats.get("cmdstat_lpush", {"calls": 0})["calls"])

    seen = len(looks)
    await until(lambda: len(looks) > seen + 2)
    before = pushes()
    await until(lambda: len(looks) > seen + 12)
    return pushes() - before


async def test_tasks_in_a_paused_queue_wake_no_worker(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, looks: list[str]
) -> None:
    """The watcher checks it now and then, and its tasks run once any tool has resumed it."""

    @app.task
    async def work() -> str:
        return "ran"

    redis_server.client.set(queue.paused, "1")
    waiting = await work.adelay()
    await start(**RARELY)

    assert await tokens_put(redis_server, looks) == 0
    redis_server.client.delete(queue.paused)
    assert await waiting.aresult(PATIENCE_S) == "ran"


async def test_tasks_that_wait_for_a_limit_of_their_queue_wake_no_worker(
    start: Runner, redis_server: RedisServer, looks: list[str]
) -> None:
    """Another worker with free slots would get no task."""
    release = asyncio.Event()
    app = TaskQ(
        redis_server.url, limits={"default": {"CONCURRENCY": 1}}, defaults={"retention": 60}, enqueue_timeout=60
    )

    @app.task
    async def hold() -> str:
        await release.wait()
        return "ran"

    handles = [await hold.adelay() for _ in range(3)]
    workers = [await start(app=app, **RARELY) for _ in range(2)]
    await until(lambda: any(worker.running_count for worker in workers))

    assert await tokens_put(redis_server, looks) == 0
    release.set()
    assert [await handle.aresult(PATIENCE_S) for handle in handles] == ["ran"] * 3
    await app.aclose()


class Still:
    """A leadership of a queue that has not changed since a moment, if it leads."""

    def __init__(self, unchanged_since: float, *, leads: bool = True) -> None:
        self.unchanged_since, self.leads = unchanged_since, leads

    def signal(self) -> Signal:
        return Signal()


class Passing:
    """A clock that goes on by what is waited."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.mark.parametrize(
    ("leadership", "is_exported", "times"),
    [
        pytest.param(Still(900), False, 10, id="at rest"),
        pytest.param(Still(math.inf), False, 60, id="changing"),
        pytest.param(Still(900), True, 60, id="at rest, exported"),
        pytest.param(Still(900, leads=False), False, 0, id="another leads"),
    ],
)
async def test_the_sampler_sends_few_commands_for_an_idle_queue(
    app: TaskQ, leadership: Any, is_exported: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count the samples of ten minutes."""
    clock = Passing()
    context = context_of(app, clock=clock)
    sampler = Sampler(context, context.queues[0], leadership)
    samples: list[float] = []

    async def sample() -> None:
        samples.append(clock.now)
        sampler._last_s = int(clock.now)

    async def wait(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(sampler, "sample", sample)
    monkeypatch.setattr(sampler._changes, "wait_for", wait)
    monkeypatch.setattr("taskq_core.worker.sampler.gauges", SimpleNamespace(is_active=is_exported))
    while clock.now < 1600:
        pause_s = await sampler.work()
        clock.now += pause_s

    assert times * 0.9 <= len(samples) <= times * 1.1


@pytest.mark.parametrize(("pending", "count", "times"), [(0, 1, 10), (0, 500, 2), (0, 5000, 2), (1, 1, 60)])
async def test_exported_figures_of_an_unchanged_queue_stay_fresh_without_a_sample(
    app: TaskQ, pending: int, count: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the latency of a queue with pending tasks changes by itself. Workers of many queues store fewer samples."""
    clock = Passing()
    context = context_of(app, clock=clock, queues={f"q{number}": 1 for number in range(count)})
    sampler = Sampler(context, context.queues[0], Still(900))  # type: ignore[arg-type]  # a stand-in
    samples: list[float] = []

    async def sample() -> None:
        samples.append(clock.now)
        sampler._last_s = int(clock.now)
        context.samples["q0"] = (QueueSample(at_s=int(clock.now), pending=pending), clock.now)

    async def wait(seconds: float) -> None:
        clock.now += seconds
        assert clock.now - context.samples["q0"][1] <= KEPT_S

    monkeypatch.setattr(sampler, "sample", sample)
    monkeypatch.setattr(sampler._changes, "wait_for", wait)
    monkeypatch.setattr("taskq_core.worker.sampler.gauges", SimpleNamespace(is_active=True))
    while clock.now < 1590:
        pause_s = await sampler.work()  # moves the clock
        clock.now += pause_s

    assert abs(len(samples) - times) <= max(1, 0.1 * times)


async def test_samples_of_many_idle_queues_are_spread_over_time(app: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """All queues are sampled right after the start. Their next samples would otherwise be a burst of commands."""
    clock = Passing()
    context = context_of(app, clock=clock, queues={f"q{number}": 1 for number in range(1000)})
    monkeypatch.setattr("taskq_core.worker.sampler.gauges", SimpleNamespace(is_active=False))
    times: list[float] = []

    async def wait(seconds: float) -> None:
        clock.now += seconds

    for queue in context.queues[:20]:
        clock.now = Passing.now
        sampler = Sampler(context, queue, Still(900))  # type: ignore[arg-type]  # a stand-in
        sampler._last_s = int(clock.now)
        monkeypatch.setattr(sampler, "sample", partial(asyncio.sleep, 0))
        monkeypatch.setattr(sampler._changes, "wait_for", wait)
        times.append(await sampler.work() + clock.now - Passing.now)

    assert max(times) <= REST_MOST_S + SAMPLE_S
    assert max(times) - min(times) > 100


async def waits(server: RedisServer, count: int) -> None:
    """Wait until so many workers wait for a token, and one of them for tasks without one."""

    def waiting() -> bool:
        found = [each["cmd"] for each in server.client.client_list()]
        return found.count("blpop") >= count

    await until(waiting)


async def cost_of_a_task(app: TaskQ, server: RedisServer, workers: list[Worker]) -> float:
    """Commands per task, of tasks that are enqueued one after the other."""
    await waits(server, len(workers))
    before = commands(server)
    for number in range(TASKS):
        handle = await app.remote("work").adelay(number=number)
        assert await handle.aresult(30) is None
        await until(lambda: all(each._fetcher.is_idle for each in workers))
        await waits(server, len(workers))
    return (commands(server) - before) / TASKS


async def test_a_task_costs_the_same_beside_twenty_idle_workers(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """One worker is woken. If all workers queried the queue, that would take 150 more commands."""

    @app.task(name="work")
    async def work(number: int) -> None: ...

    workers = [await start(**RARELY, concurrency=10)]
    alone = await cost_of_a_task(app, redis_server, workers)
    workers += [await start(**RARELY, concurrency=10) for _ in range(19)]
    among_twenty = await cost_of_a_task(app, redis_server, workers)

    assert alone <= 70
    assert among_twenty <= alone + 30  # plus the requests of the services that some of them run


@pytest.mark.parametrize("queues", [1, 3])
async def test_an_idle_worker_has_few_connections(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock, queues: int
) -> None:
    """Its services share a few connections, and unused connections are closed."""
    await start(queues={f"q{number}": 1 for number in range(queues)})

    await clock.advance(90)

    assert len(redis_server.client.client_list()) - 1 <= 6


async def test_hanging_calls_do_not_block_the_other_calls_of_an_idle_worker(
    start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The hanging calls occupy all the usual connections."""
    runner = (await start(queues={"other": 1}, **RARELY))._context.runner
    hanging = [asyncio.create_task(runner.run(watch_pending(queue, timeout_s=PATIENCE_S))) for _ in range(2)]
    await until(lambda: [each["cmd"] for each in redis_server.client.client_list()].count("blmove") == len(hanging))

    await runner.run(views.ping())

    for each in hanging:
        each.cancel()
    await asyncio.wait(hanging)
