"""Finding tasks by what they hold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskState
from taskq_core.inspector import FoundTasks, UnreadableTask
from taskq_core.inspector.cursors import write_cursor
from taskq_core.wire import build_message, encode_message
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis

PREFIX = "asynq:{default}:"


def archive(redis_server: RedisServer, number: int, *, score: int = 1_600_000_000, **fields: Any) -> str:
    """Store an archived task."""
    task_id = f"id-{number:05}"
    message = build_message(id=task_id, queue="default", **{"type": "t", "payload": b"", **fields})
    redis_server.client.hset(PREFIX + f"t:{task_id}", mapping={"msg": encode_message(message), "state": "archived"})
    redis_server.client.zadd(PREFIX + "archived", {task_id: score})
    redis_server.client.sadd("asynq:queues", "default")
    return task_id


def ids(found: FoundTasks) -> list[str]:
    return [task.id for task in found.tasks]


async def test_tasks_are_found_by_parts_of_their_content(ask: Ask, redis_server: RedisServer) -> None:
    archive(redis_server, 1, type="email:deliver", error_msg="SMTP timed out", payload=b'{"to":"a@b.c"}')
    archive(redis_server, 2, type="email:digest", error_msg="no route", payload=b'{"to":"d@e.f"}')
    archive(redis_server, 3, type="report", error_msg="timed out", payload=b"\xff\x00")

    async def found(**wanted: Any) -> list[str]:
        return ids(await ask("find_tasks", "default", TaskState.ARCHIVED, **wanted))

    assert await found() == ["id-00003", "id-00002", "id-00001"]
    assert await found(name="email:") == ["id-00002", "id-00001"]
    assert await found(error="timed out") == ["id-00003", "id-00001"]
    assert await found(name="email:", error="timed out") == ["id-00001"]
    assert await found(payload="d@e.f") == ["id-00002"]
    assert await found(payload=b"\xff") == ["id-00003"]
    assert await found(name="Email:") == []


async def test_tasks_are_found_by_the_time_of_their_state(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    now_s = redis_server.client.time()[0]
    old = archive(redis_server, 1, score=now_s - 7200)
    new = archive(redis_server, 2, score=now_s - 60)
    day = datetime.fromtimestamp(now_s - 3600, UTC)

    async def found(state: TaskState = TaskState.ARCHIVED, **wanted: Any) -> list[str]:
        return ids(await ask("find_tasks", "default", state, **wanted))

    assert await found(older_than=3600) == [old]
    assert await found(newer_than=timedelta(hours=1)) == [new]
    assert await found(older_than=day) == [old]
    assert await found(newer_than=day) == [new]
    assert await found(older_than=60 * 60 * 3) == []
    soon, later = enqueue(run_after=60).id, enqueue(run_after=7200).id
    assert await found(TaskState.SCHEDULED, older_than=datetime.fromtimestamp(now_s + 3600, UTC)) == [soon]
    assert await found(TaskState.SCHEDULED, newer_than=datetime.fromtimestamp(now_s + 3600, UTC)) == [later]
    pending = enqueue().id
    assert await found(TaskState.PENDING, newer_than=600) == [pending]
    assert await found(TaskState.PENDING, older_than=600) == []


async def test_a_search_is_bounded_and_can_be_continued(ask: Ask, redis_server: RedisServer) -> None:
    """Each call looks at no more than it may, and the last says so by having no cursor."""
    wanted = [archive(redis_server, number, type="x" if number % 10 == 0 else "y") for number in range(250)][::10]
    seen, cursor, scanned = [], None, []
    for _ in range(10):
        found = await ask("find_tasks", "default", TaskState.ARCHIVED, name="x", scan=70, cursor=cursor)
        seen += ids(found)
        scanned.append(found.scanned)
        cursor = found.cursor
        assert found.total == 250
        if cursor is None:
            break

    assert scanned == [70, 70, 70, 40]
    assert seen == wanted[::-1]


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_a_limit_loses_nothing(ask: Ask, redis_server: RedisServer, limit: int) -> None:
    wanted = [archive(redis_server, number, score=1_600_000_000 + number // 50) for number in range(150)]
    seen: list[str] = []
    cursor = None
    while True:
        found = await ask("find_tasks", "default", TaskState.ARCHIVED, limit=limit, cursor=cursor)
        assert len(found.tasks) <= limit
        seen += ids(found)
        cursor = found.cursor
        if cursor is None:
            break

    assert seen == wanted[::-1]


async def test_a_cursor_stays_correct_while_tasks_come_and_go(ask: Ask, redis_server: RedisServer) -> None:
    """The task it names is gone, others with the same time came and went: what stayed is found once."""
    stay = {archive(redis_server, number) for number in range(1, 200, 2)}
    go = [archive(redis_server, number) for number in range(198, -1, -2)]
    seen: list[str] = []
    cursor = None
    while True:
        found = await ask("find_tasks", "default", TaskState.ARCHIVED, limit=9, cursor=cursor)
        seen += ids(found)
        cursor = found.cursor
        if cursor is None:
            break
        for task_id in [seen[-1], *go[:5]]:
            if task_id not in stay:
                redis_server.client.zrem(PREFIX + "archived", task_id)
        go = go[5:]
        archive(redis_server, 90_000 + len(seen), score=1_700_000_000)  # in front of where the search is

    assert [task_id for task_id in seen if task_id in stay] == sorted(stay, reverse=True)
    assert not [task_id for task_id in seen if task_id.startswith("id-9")]


async def test_pending_tasks_are_searched_from_the_newest(ask: Ask, enqueue: Enqueue) -> None:
    """New ones push the others on: none is missed, some are seen twice."""
    handles = [enqueue().id for _ in range(30)]
    seen: list[str] = []
    cursor = None
    while True:
        found = await ask("find_tasks", "default", TaskState.PENDING, limit=7, cursor=cursor)
        seen += ids(found)
        cursor = found.cursor
        if cursor is None:
            break
        enqueue()

    assert seen[0] == handles[-1]
    assert set(seen) == set(handles)


async def test_tasks_of_a_group_are_searched(ask: Ask, enqueue: Enqueue) -> None:
    members = {enqueue(aggregate="g").id for _ in range(3)}
    enqueue(aggregate="h")

    found = await ask("find_tasks", "default", TaskState.AGGREGATING, group="g", name="email")

    assert (set(ids(found)), found.total) == (members, 3)


async def test_large_tasks_are_read_in_small_batches(ask: Ask, redis_server: RedisServer) -> None:
    for number in range(6):
        archive(redis_server, number, payload=bytes(600_000))

    found = await ask("find_tasks", "default", TaskState.ARCHIVED)

    assert len(found.tasks) == 6


async def test_undecodable_tasks_are_found(ask: Ask, redis_server: RedisServer) -> None:
    task_id = archive(redis_server, 1)
    redis_server.client.hset(PREFIX + f"t:{task_id}", "msg", b"\xff\xffbroken")
    gone = archive(redis_server, 2)
    redis_server.client.delete(PREFIX + f"t:{gone}")

    found = await ask("find_tasks", "default", TaskState.ARCHIVED)
    by_bytes = await ask("find_tasks", "default", TaskState.ARCHIVED, payload=b"broken")
    by_name = await ask("find_tasks", "default", TaskState.ARCHIVED, name="t")

    assert [type(task) for task in found.tasks] == [UnreadableTask, UnreadableTask]
    assert (ids(by_bytes), ids(by_name)) == ([task_id], [])


@rows(
    ("state", "arguments", "message"),
    [
        (TaskState.ARCHIVED, {"limit": 0}, "limit must be between 1 and 1000"),
        (TaskState.ARCHIVED, {"scan": 0}, "scan must be between 1 and 1000000"),
        (TaskState.ARCHIVED, {"group": "g"}, "has no groups"),
        (TaskState.AGGREGATING, {}, "needs the name of its group"),
        (TaskState.ARCHIVED, {"older_than": datetime(2033, 1, 1)}, "older_than must have a time zone"),  # noqa: DTZ001
        (TaskState.ARCHIVED, {"newer_than": -1}, "newer_than must be 0 or more"),
        (TaskState.ARCHIVED, {"cursor": "12"}, "cursor must come from the previous call, got '12'"),
        (TaskState.ARCHIVED, {"cursor": write_cursor(["archived", "default", [0, "(5", "x"]])}, "previous call"),
        (TaskState.PENDING, {"cursor": write_cursor(["archived", "default"])}, "'default' that are archived"),
        (TaskState.PENDING, {"cursor": write_cursor(["pending", "low"])}, "one of tasks of 'low' that are pending"),
    ],
)
async def test_an_invalid_search_is_refused(
    ask: Ask, state: TaskState, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await ask("find_tasks", "default", state, **arguments)
