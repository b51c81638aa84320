"""What workers ask of Redis that have nothing to do, and what a task costs beside many of them: counted, not timed."""

import asyncio
import math
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations import Operation
from taskq_core.clock import RedisClock
from taskq_core.worker import Worker
from taskq_core.worker.sampler import Sampling
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

RARELY: dict[str, Any] = {
    "lease": 180,
    "heartbeat": 60,
    "leader_lease": 600,
    "safety_net": 600,
    "recover_every": 600,
    "clean_every": 600,
    "letters_every": 600,
}
"""Of workers whose services do nothing by themselves within a test."""
TASKS = 20


def commands(server: RedisServer) -> int:
    """Commands run so far, also by scripts, without those of this test's own client."""
    stats: Any = server.client.info("commandstats")
    own = {"cmdstat_info", "cmdstat_client", "cmdstat_client|list"}
    return sum(each["calls"] for name, each in stats.items() if name not in own)


async def test_the_presence_of_a_worker_that_runs_nothing_costs_a_command(
    app: TaskQ, start: Runner, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it stands as it was written; where Redis has lost it, it is written again, and the indexes with it."""
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
    client.expire(member, 3)
    await asyncio.to_thread(keepalive.beat)
    assert asked == ["keep_presence"]
    assert client.ttl(member) > 100

    client.delete(member, "asynq:servers", "asynq:workers")
    await asyncio.to_thread(keepalive.beat)
    assert asked[1:] == ["keep_presence", "beat", "index_presence", "index_presence"]
    assert client.zrange("asynq:servers", 0, -1) == [member]
    assert client.zcard("asynq:workers") == client.exists(member) == 1


class Noting:
    """Counts how often a queue is to be noted."""

    has_noted = True

    def __init__(self) -> None:
        self.times = 0

    async def work(self) -> None:
        self.times += 1


class Still:
    """A lookout of a queue that has not changed since a moment, if it leads."""

    def __init__(self, unchanged_since: float, *, leads: bool = True) -> None:
        self.unchanged_since, self.leads = unchanged_since, leads

    def wakes(self, event: asyncio.Event) -> None: ...


class Passing:
    """A clock that goes on by what is waited."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.mark.parametrize(
    ("lookout", "is_exported", "times"),
    [
        pytest.param(Still(900), False, 10, id="at rest"),
        pytest.param(Still(math.inf), False, 60, id="changing"),
        pytest.param(Still(900), True, 60, id="at rest, exported"),
        pytest.param(Still(900, leads=False), False, 0, id="another leads"),
    ],
)
async def test_how_often_a_queue_is_noted(
    lookout: Any, is_exported: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In ten minutes."""
    noting, clock = Noting(), Passing()
    sampler: Any = noting
    sampling = Sampling(sampler, lookout, clock, RedisClock(clock), is_exported=lambda: is_exported)

    async def wait(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(sampling, "_wait", wait)
    while clock.now < 1600:
        pause_s = await sampling.work()
        clock.now += pause_s

    assert times * 0.9 <= noting.times <= times * 1.1


async def waits(server: RedisServer, count: int) -> None:
    """Wait until so many workers wait for a token, and one of them for tasks without one."""

    def waiting() -> bool:
        found = [each["cmd"] for each in server.client.client_list()]
        return found.count("blpop") >= count and found.count("blmove") == 1

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


async def test_a_task_costs_the_same_beside_fifty_idle_workers(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """One of them is woken, the others sleep on: if all asked the queue, it would cost four hundred more."""

    @app.task(name="work")
    async def work(number: int) -> None: ...

    workers = [await start(**RARELY, concurrency=10)]
    alone = await cost_of_a_task(app, redis_server, workers)
    workers += [await start(**RARELY, concurrency=10) for _ in range(49)]
    among_fifty = await cost_of_a_task(app, redis_server, workers)

    assert alone <= 70
    assert among_fifty <= alone + 30  # beside what some of them look after meanwhile
