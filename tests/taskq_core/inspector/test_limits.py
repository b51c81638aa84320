"""Limits as an operator sees and changes them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import Concurrency, ConfigurationError, RateLimit, TaskQ
from taskq_core.broker.operations import limits
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import LimitInfo
from taskq_core.wire import TaskState
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis


async def test_limits_list_permits_and_waiting_tasks(app: TaskQ, ask: Ask, enqueue: Enqueue) -> None:
    for user in ("ann", "ann", "bob"):
        await app.remote("a:b", concurrency=(2, Concurrency(1, key="user"))).adelay(user=user)
    enqueue(rate_limit="1/h")
    queue = app.runtime.keys.queue("default")
    app.runtime.runner.run(limits.declare_limits(queue, {"c:a%3Ab": "2", "r:x": "w/5/60000"}))

    assert await ask("limits", "default") == [
        LimitInfo(kind="concurrency", name="a:b", declared="2", changed="", slots=1, held=2, waiting=0),
        LimitInfo(kind="concurrency", name="a:b/key", declared="", changed="", slots=2, held=2, waiting=1),
        LimitInfo(kind="rate", name="email:deliver", declared="", changed="", slots=1, held=1, waiting=0),
        LimitInfo(kind="rate", name="x", declared="5/m, fixed", changed="", slots=0, held=0, waiting=0),
    ]
    assert (await ask("queue_info", "default")).limited == 1


async def test_a_limit_overrides_the_code_until_it_is_cleared(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    queue: Any = app.runtime.keys.queue("default")
    for _ in range(4):
        enqueue(concurrency=1)

    await ask("set_limit", "default", "email:deliver", concurrency=3)
    app.runtime.runner.run(limits.admit(queue, owner="w", leader_ms=1000))
    assert redis_server.client.llen(queue.pending) == 3
    (limit,) = await ask("limits", "default")
    assert (limit.changed, limit.held, limit.waiting) == ("3", 3, 1)

    await ask("set_limit", "default", "email:deliver", rate=RateLimit("5/s", burst=2))
    assert [each.changed for each in await ask("limits", "default")] == ["3", "5/s, 2 at once"]
    assert await ask("clear_limit", "default", "email:deliver")
    assert not await ask("clear_limit", "default", "email:deliver")
    assert {each.changed for each in await ask("limits", "default")} == {""}


@rows("number", [{}, {"rate": "1/s", "concurrency": 1}, {"rate": "0/s"}, {"concurrency": 0}, {"concurrency": -1}])
async def test_an_invalid_limit_is_refused(ask: Ask, enqueue: Enqueue, number: dict[str, Any]) -> None:
    enqueue()
    with pytest.raises(ConfigurationError):
        await ask("set_limit", "default", "t", **number)
    assert await ask("limits", "default") == []


@rows("method", ["limits", "clear_limit", "set_limit"])
async def test_an_unknown_queue_is_refused(ask: Ask, method: str) -> None:
    arguments = {"limits": (), "clear_limit": ("t",), "set_limit": ("t",)}[method]
    more = {"concurrency": 1} if method == "set_limit" else {}
    with pytest.raises(QueueNotFoundError):
        await ask(method, "nowhere", *arguments, **more)


async def test_a_task_names_the_limit_that_it_waits_for(app: TaskQ, ask: Ask, enqueue: Enqueue) -> None:
    """It has no start, although Asynq's tools show the year 9999. A task scheduled for that second has this start."""
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    runs = enqueue(concurrency=(2, Concurrency(1, name="ftp: a", key="to")))
    enqueue(rate_limit=RateLimit("1/h", name="sms: b"))
    waits = enqueue(rate_limit=RateLimit("1/h", name="sms: b"))
    later = enqueue(run_after=never)

    def told(task: Any) -> Any:
        return task.state, task.waits_for_limit, task.limit, task.next_run_at

    assert told(await ask("task", "default", waits.id)) == (TaskState.SCHEDULED, True, "sms: b", None)
    assert told(await ask("task", "default", runs.id)) == (TaskState.PENDING, False, "", None)
    assert told(await ask("task", "default", later.id)) == (TaskState.SCHEDULED, False, "", never)
    listed = {task.id: task for task in (await ask("tasks", "default", TaskState.SCHEDULED)).tasks}
    assert told(listed[waits.id]) == (TaskState.SCHEDULED, True, "", None)

    await ask("run_task", "default", waits.id)
    assert told(await ask("task", "default", waits.id)) == (TaskState.PENDING, False, "", None)
