"""Workers, as an operator sees them."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import QueueWeight
from taskq_core.wire import ServerInfo, WorkerInfo, asynq_pb2
from tests.redis_server import RedisServer
from tests.taskq_core.views.conftest import Ask

pytestmark = pytest.mark.redis
LATER_S = 4_000_000_000
S = 10**9


def now_ns(redis_server: RedisServer) -> int:
    now: Any = redis_server.client.time()
    return int(now[0]) * S


def appear(
    redis_server: RedisServer, *, pid: int = 7, running: Mapping[str, WorkerInfo] | None = None, **facts: Any
) -> None:
    """Write the presence record of a worker, in the format that Go and Python workers share."""
    client, name = redis_server.client, f"{{box:{pid}:s{pid}}}"
    info = ServerInfo(host="box", pid=pid, server_id=f"s{pid}", **{"concurrency": 10, **facts})
    client.set(f"asynq:servers:{name}", info.encode())
    client.zadd("asynq:servers", {f"asynq:servers:{name}": LATER_S})
    client.zadd("asynq:workers", {f"asynq:workers:{name}": LATER_S})
    if running:
        client.hset(f"asynq:workers:{name}", mapping={task_id: each.encode() for task_id, each in running.items()})


def runs(task_id: str, *, pid: int = 7, **facts: Any) -> dict[str, WorkerInfo]:
    who: Any = {"host": "box", "pid": pid, "server_id": f"s{pid}"}
    return {task_id: WorkerInfo(**who, task_id=task_id, task_type="shop:ship", queue="low", **facts)}


async def test_a_worker_has_its_state_queues_and_tasks(ask: Ask, redis_server: RedisServer) -> None:
    now = now_ns(redis_server)
    running = runs("t2", start_time_ns=now - 5 * S) | runs("t1", start_time_ns=now - 60 * S, deadline_ns=now - 1 * S)
    appear(redis_server, queues={"low": 1, "critical": 3}, start_time_ns=now - 3600 * S, running=running)

    found = await ask("workers")

    (worker,) = found.workers
    assert (worker.id, worker.host, worker.pid, worker.status) == ("s7", "box", 7, "active")
    assert timedelta(hours=1) <= worker.uptime < timedelta(hours=1, minutes=1)
    assert list(worker.weights) == [
        QueueWeight(name="critical", weight=3, share=0.75),
        QueueWeight(name="low", weight=1, share=0.25),
    ]
    assert [(each.task_id, each.name, each.queue) for each in worker.running] == [
        ("t1", "shop:ship", "low"),
        ("t2", "shop:ship", "low"),
    ]
    assert timedelta(minutes=1) <= worker.running[0].running_for < timedelta(minutes=2)
    assert [each.is_overdue for each in worker.running] == [True, False]
    assert (found.running, found.concurrency) == (2, 10)


async def test_with_strict_priority_weights_are_an_order_instead_of_shares(ask: Ask, redis_server: RedisServer) -> None:
    appear(redis_server, queues={"low": 1, "critical": 3}, strict_priority=True)

    (worker,) = (await ask("workers")).workers

    assert worker.strict_priority
    assert [(each.name, each.share) for each in worker.weights] == [("critical", None), ("low", None)]


async def test_fields_that_a_worker_does_not_report_are_unknown(ask: Ask, redis_server: RedisServer) -> None:
    """The worker reports an invalid time, no queues, and no start of a task. It is listed like any other."""
    appear(redis_server, start_time_ns=400_000_000_000 * S, running=runs("t1"))
    appear(redis_server, pid=8, start_time_ns=None, queues={"low": 0})

    first, second = (await ask("workers")).workers

    assert (first.started_at, first.uptime, list(first.weights)) == (None, None, [])
    assert (first.running[0].running_for, first.running[0].is_overdue) == (None, False)
    assert (second.uptime, list(second.weights)) == (None, [QueueWeight(name="low", weight=0, share=None)])


async def test_a_running_task_with_a_large_payload_is_left_out(ask: Ask, redis_server: RedisServer) -> None:
    """Go workers store the payload of a running task in their heartbeat."""
    appear(redis_server, running=runs("small"))
    large = asynq_pb2.WorkerInfo(server_id="s7", task_id="large", task_payload=bytes(33 << 20))
    redis_server.client.hset("asynq:workers:{box:7:s7}", "large", large.SerializeToString())

    (worker,) = (await ask("workers")).workers

    assert [each.task_id for each in worker.running] == ["small"]


async def test_a_worker_whose_clock_is_ahead_started_just_now(ask: Ask, redis_server: RedisServer) -> None:
    appear(redis_server, start_time_ns=now_ns(redis_server) + 3600 * S)

    (worker,) = (await ask("workers")).workers

    assert worker.uptime == timedelta(0)


async def test_without_workers_the_list_is_empty(ask: Ask) -> None:
    found = await ask("workers")

    assert (list(found.workers), found.running, found.concurrency) == ([], 0, 0)


async def test_the_number_of_redis_commands_depends_on_workers_and_not_on_tasks(
    app: TaskQ, ask: Ask, commands_of: Callable[..., Any], redis_server: RedisServer
) -> None:
    appear(redis_server, running=runs("t1"))
    await ask("workers")  # loads the scripts

    few = await commands_of("workers")
    app.client.enqueue_many(app.remote("email:deliver").s(to="a@b.c") for _ in range(2_000))
    appear(redis_server, running={each: info for n in range(50) for each, info in runs(f"t{n}").items()})
    many = await commands_of("workers")

    assert few == many > 0
