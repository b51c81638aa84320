"""Clocks that are wrong and jump: of the worker's machine, and of Redis's."""

import asyncio
import random
import time
from collections import Counter

import pytest

from taskq_core import TaskQ
from taskq_core.clock import SystemClock
from taskq_core.wire import QueueKeys
from taskq_core.worker import Worker, WorkerConfig
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, until


class WrongClock(SystemClock):
    """Wall time that is wrong by `off_s`, or by a random time at each read. Monotonic time is right."""

    def __init__(self, off_s: float | None) -> None:
        self._off_s = off_s
        self._chance = random.Random(3)

    def time(self) -> float:  # type: ignore[override]  # there it is a function of the interpreter
        return time.time() + (self._chance.uniform(-300, 300) if self._off_s is None else self._off_s)


@pytest.mark.slow
@pytest.mark.parametrize("off_s", [300.0, -300.0, None], ids=["ahead", "behind", "jumping"])
async def test_a_wrong_clock_of_a_workers_machine_has_no_effect(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, clock: Clock, off_s: float | None
) -> None:
    """Leases are kept and taken back, tasks come when they are due and no earlier, by Redis's clock."""
    runs: Counter[str] = Counter()
    started: dict[str, float] = {}
    release = asyncio.Event()

    @app.task
    async def hold() -> str:
        runs["hold"] += 1
        await release.wait()
        return "ran"

    @app.task(retry_delay=10)
    async def work(name: str) -> str:
        runs[name] += 1
        started[f"{name} {runs[name]}"] = clock.time()
        if name == "failing" and runs[name] == 1:
            raise ValueError
        return "ran"

    ends = Ends()
    config = WorkerConfig(safety_net=600)
    workers = [Worker(app, config, listener=ends, clock=WrongClock(off_s)) for _ in range(2)]
    running = [asyncio.create_task(worker.arun()) for worker in workers]
    held = await hold.adelay()
    await until(lambda: runs["hold"])
    first = redis_server.client.zscore(queue.lease, held.id) or 0
    enqueued_at = clock.time()
    handles = [
        await work.adelay("now"),
        await work.using(run_after=10).adelay("later"),
        await work.adelay("failing"),
    ]
    await until(lambda: runs["failing"])
    await clock.advance(12)
    assert [await handle.aresult(PATIENCE_S) for handle in handles] == ["ran"] * 3
    await until(lambda: (redis_server.client.zscore(queue.lease, held.id) or 0) >= first + 5)
    release.set()
    assert await held.aresult(PATIENCE_S) == "ran"
    for worker in workers:
        worker.stop()
    assert await asyncio.gather(*running) == [0, 0]
    await app.aclose()

    assert runs == {"hold": 1, "now": 1, "later": 1, "failing": 2}
    assert started["later 1"] >= enqueued_at + 10
    assert started["failing 2"] - started["failing 1"] >= 10
    assert {outcome for _, outcome in ends.ends} == {"completed", "retried"}
