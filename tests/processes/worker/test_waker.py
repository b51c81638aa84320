"""Test that an idle worker sends few commands to Redis."""

import math
import time

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys
from taskq_core.worker import Worker
from taskq_core.worker.leadership import Leadership
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until


async def settled_in(server: RedisServer, worker: Worker) -> None:
    """Wait until the worker is idle and waits for a wake token, and its watcher waits for tasks without a token."""
    await until(lambda: worker._fetcher.is_idle)
    await until(lambda: "blpop" in {each["cmd"] for each in server.client.client_list()})


def calls(server: RedisServer) -> int:
    """Return the number of commands so far, without those of the test's client."""
    stats = server.client.info("commandstats")
    own = {"cmdstat_client|list", "cmdstat_info", "cmdstat_client"}
    return sum(each["calls"] for name, each in stats.items() if name not in own)


async def test_an_idle_worker_of_many_queues_sends_no_more_commands_than_one_of_a_hundred(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """The test compares the commands of several periods of all services, once the work of the start is done.

    Connections do not grow with the queues either.
    """
    sent: list[int] = []
    opened: list[int] = []

    async def send() -> int:
        before, started = calls(redis_server), time.monotonic()
        await until(lambda: time.monotonic() - started > 6.0)
        return calls(redis_server) - before

    for count in (100, 500):
        redis_server.client.flushall()
        times = {"lease": 3, "heartbeat": 1, "leader_lease": 1, "safety_net": 1, "recover_every": 1}
        worker = await start(queues={f"q{number}": 1 for number in range(count)}, reconcile_every=600, **times)
        await settled_in(redis_server, worker)
        await until(lambda worker=worker: all(each.leads for each in worker._services.of(Leadership)))
        # Wait until the first samples are stored, and the connections of the start are closed again.
        await until(lambda worker=worker, count=count: len(worker._context.samples) == count)
        await until(lambda: len(redis_server.client.client_list()) <= 10)
        sent.append(await send())
        for _ in range(5):  # a busy machine takes longer for the work of the start
            if sent[-1] > 1.5 * sent[0]:
                sent[-1] = await send()
        opened.append(len(redis_server.client.client_list()))
        await start.stop(worker)

    assert sent[1] <= 1.5 * sent[0]
    assert opened[1] <= opened[0] + 2


async def test_an_idle_worker_sends_few_commands(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """An idle worker does not poll. Its commands are for its heartbeat and the lease of its leadership."""
    worker = await start(safety_net=600, lease=15, heartbeat=5, leader_lease=5, recover_every=600)
    await settled_in(redis_server, worker)
    await until(lambda: next(worker._services.of(Leadership)).unchanged_since < math.inf)
    turns = worker._fetcher.turns
    before, started = calls(redis_server), time.monotonic()
    await until(lambda: time.monotonic() - started > 2.0)
    sent, took_s = calls(redis_server) - before, time.monotonic() - started

    # About one command per second, and every ten to sixty seconds a sample, a check for damage and a few more, which
    # may all happen during the test. A worker that polls ten times a second would send twice as many.
    assert sent <= 2 * (took_s + 1) + 45
    assert worker._fetcher.turns == turns
