"""Test the state of queues as shown to an operator."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import BrokerUnavailableError, ConfigurationError, TaskQ, TaskState
from taskq_core.broker.operations import services
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import Inspector
from taskq_core.views import STATES, Dashboard, QueueStatus, overview
from taskq_core.views.queues import TYPES_SAMPLE
from taskq_core.wire import ServerInfo
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.views.conftest import Ask

pytestmark = pytest.mark.redis


def enqueue(app: TaskQ, queue: str = "default", *, name: str = "email:deliver", count: int = 1, **options: Any) -> None:
    app.client.enqueue_many(app.remote(name, queue=queue, **options).s(to="a@b.c") for _ in range(count))


def count_today(redis_server: RedisServer, queue: str, *, processed: int, failed: int) -> None:
    today = datetime.fromtimestamp(redis_server.client.time()[0], UTC).date()  # type: ignore[index]  # a blocking client
    for day in (today, today + timedelta(days=1)):  # which may have begun when it is read
        redis_server.client.set(f"asynq:{{{queue}}}:processed:{day}", processed)
        redis_server.client.set(f"asynq:{{{queue}}}:failed:{day}", failed)


async def test_a_queue_has_its_state_and_counts(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    enqueue(app, count=3)
    enqueue(app, run_after=60)
    enqueue(app, aggregate="digest")
    enqueue(app, "low")
    redis_server.client.set("asynq:{low}:paused", 1)
    count_today(redis_server, "default", processed=8, failed=2)

    found = await ask("queues")

    default, low = found.queues
    assert (default.name, low.name) == ("default", "low")
    assert tuple(default.sizes) == STATES
    assert {state: size for state, size in default.sizes.items() if size} == {
        TaskState.PENDING: 3,
        TaskState.AGGREGATING: 1,
        TaskState.SCHEDULED: 1,
    }
    assert (default.size, default.groups) == (5, 1)
    assert (default.status, low.status) == (QueueStatus.NO_WORKER, QueueStatus.PAUSED)
    assert (default.is_paused, low.is_paused) == (False, True)
    assert timedelta(0) <= default.latency < timedelta(minutes=1)
    assert default.memory > low.memory > 0
    assert (default.processed_today, default.failed_today, default.error_rate) == (8, 2, 0.25)
    assert low.error_rate is None, "nothing ran"


async def test_a_queue_is_running_while_a_worker_of_any_language_serves_it(
    app: TaskQ, ask: Ask, redis_server: RedisServer
) -> None:
    for queue in ("go", "nobody", "python"):
        enqueue(app, queue)
    keys, runner = app.runtime.keys, app.runtime.runner
    info = ServerInfo(host="h", pid=1, server_id="s", concurrency=1, queues={"go": 1}).encode()
    redis_server.client.set(keys.server("h", 1, "s"), info, ex=30)
    runner.run(services.index_presence(keys.servers, keys.server("h", 1, "s"), expiry_s=4_000_000_000))
    runner.run(services.lead(keys.queue("python").leader(services.LOOKOUT), owner="w", leader_ms=60_000))

    found = await ask("queues")

    assert {row.name: row.status.value for row in found.queues} == {
        "go": "running",
        "nobody": "no worker",
        "python": "running",
    }
    assert (await ask("queue", "nobody")).queue.status is QueueStatus.NO_WORKER
    assert (await ask("queue", "go")).queue.status is QueueStatus.RUNNING


async def test_totals_include_all_queues(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    enqueue(app, count=2)
    enqueue(app, "low")
    enqueue(app, "low", run_after=60)
    count_today(redis_server, "default", processed=6, failed=0)
    count_today(redis_server, "low", processed=2, failed=2)

    found = await ask("queues")

    assert found.size == 4
    assert (found.sizes[TaskState.PENDING], found.sizes[TaskState.SCHEDULED]) == (3, 1)
    assert (found.processed_today, found.failed_today, found.error_rate) == (8, 2, 0.25)


async def test_without_queues_all_totals_are_empty(ask: Ask) -> None:
    found = await ask("queues")

    assert (list(found.queues), found.size, found.error_rate) == ([], 0, None)


async def test_a_damaged_queue_does_not_hide_others(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    enqueue(app, "low")
    redis_server.client.sadd("asynq:queues", "odd")
    redis_server.client.set("asynq:{odd}:retry", "x")

    low, odd = (await ask("queues")).queues
    detail = await ask("queue", "odd")

    assert (low.status, low.size) == (QueueStatus.NO_WORKER, 1)
    assert (odd.status, odd.size, odd.memory) == (QueueStatus.DAMAGED, 0, None)
    assert "WRONGTYPE" in odd.problem
    assert (detail.queue.status, list(detail.types)) == (QueueStatus.DAMAGED, [])


async def test_memory_is_unknown_if_redis_does_not_report_it(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """The connection's user may not read the memory. All other values are shown."""
    enqueue(app)
    redis_server.client.execute_command("ACL", "SETUSER", "default", "-memory")
    try:
        (row,) = (await ask("queues")).queues
    finally:
        redis_server.client.execute_command("ACL", "SETUSER", "default", "+@all")

    assert (row.size, row.memory) == (1, None)


async def test_the_details_of_a_queue_include_its_task_types(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """The most frequent type comes first. An unreadable task has no type name."""
    enqueue(app, name="email:deliver", count=3)
    enqueue(app, name="email:deliver", run_after=60)
    enqueue(app, name="report:build")
    broken = app.client.enqueue(app.remote("report:build", run_after=60).s())
    redis_server.client.hset(f"asynq:{{default}}:t:{broken.id}", "msg", b"\xff\xff garbage")

    detail = await ask("queue", "default", days=7)

    assert [(each.name, {state: size for state, size in each.sizes.items() if size}) for each in detail.types] == [
        ("email:deliver", {TaskState.PENDING: 3, TaskState.SCHEDULED: 1}),
        ("", {TaskState.SCHEDULED: 1}),
        ("report:build", {TaskState.PENDING: 1}),
    ]
    assert (detail.queue.size, detail.looked_at, detail.is_sampled) == (6, 6, False)
    assert len(detail.days) == 7


async def test_task_types_are_counted_from_the_first_tasks_of_each_state(app: TaskQ, ask: Ask) -> None:
    enqueue(app, name="email:deliver", count=TYPES_SAMPLE)
    enqueue(app, name="report:build", count=5)
    enqueue(app, name="report:build", run_after=60)

    detail = await ask("queue", "default")

    assert [(each.name, each.size) for each in detail.types] == [("email:deliver", TYPES_SAMPLE), ("report:build", 1)]
    assert (detail.looked_at, detail.is_sampled) == (TYPES_SAMPLE + 1, True)


async def test_an_unknown_queue_and_invalid_days_are_refused(app: TaskQ, ask: Ask) -> None:
    enqueue(app)

    with pytest.raises(QueueNotFoundError, match="no queue 'defualt'; did you mean 'default'"):
        await ask("queue", "defualt")
    with pytest.raises(ConfigurationError, match="days must be"):
        await ask("queue", "default", days=91)


async def test_an_unreachable_redis_is_reported(redis_server: RedisServer) -> None:
    app = TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01)

    for look in (Dashboard(Inspector(app)).queues, Dashboard(Inspector(app)).workers):
        with pytest.raises(BrokerUnavailableError):
            look()
    app.close()


async def test_data_read_by_an_inspector_have_the_same_form(app: TaskQ) -> None:
    enqueue(app)

    found = overview(Inspector(app).queue_infos())

    assert [(row.name, row.size, row.memory) for row in found.queues] == [("default", 1, None)]


@rows(("method", "arguments"), [("queues", ()), ("queue", ("default",))])
async def test_the_number_of_redis_commands_does_not_grow_with_the_tasks(
    app: TaskQ, ask: Ask, commands_of: Callable[..., Any], method: str, arguments: tuple[str, ...]
) -> None:
    """The first measurement has enough tasks to fill every sample."""
    enqueue(app, count=300)
    enqueue(app, count=300, run_after=60)
    await ask(method, *arguments)  # loads the scripts

    few = await commands_of(method, *arguments)
    enqueue(app, count=2_000)
    enqueue(app, count=2_000, run_after=60)
    many = await commands_of(method, *arguments)

    assert few == many > 0
