"""Acting on all tasks of a state."""

from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ, TaskState
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.sync import SyncRunner
from taskq_core.inspector import Inspector
from taskq_core.inspector.selection import CHUNK
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis

PREFIX = "asynq:{default}:"
WAYS: dict[TaskState, dict[str, Any]] = {
    TaskState.PENDING: {},
    TaskState.SCHEDULED: {"run_after": 60},
    TaskState.AGGREGATING: {"aggregate": "g"},
}
"""Options by which a task comes to a state."""


def fill(redis_server: RedisServer, state: str, count: int, *, first: int = 0) -> None:
    """Put many tasks in a sorted set quickly."""
    script = """for i = tonumber(ARGV[1]), tonumber(ARGV[1]) + tonumber(ARGV[2]) - 1 do
        local id = string.format('id-%07d', i)
        redis.call('ZADD', KEYS[1], 1600000000 + i % 1000, id)
        redis.call('HSET', ARGV[3] .. id, 'msg', 'm', 'state', ARGV[4])
    end"""
    for start in range(first, first + count, 5000):  # quick enough for a machine under load
        part = min(5000, first + count - start)
        redis_server.client.eval(script, 1, PREFIX + state, start, part, PREFIX + "t:", state)
    redis_server.client.sadd("asynq:queues", "default")


def sizes(redis_server: RedisServer) -> dict[str, int]:
    client = redis_server.client
    found = {state: client.zcard(PREFIX + state) for state in ("scheduled", "retry", "archived", "completed", "g:g")}
    return {state: size for state, size in {**found, "pending": client.llen(PREFIX + "pending")}.items() if size}


@rows("state", WAYS)
async def test_all_tasks_of_a_state_are_deleted(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, state: TaskState
) -> None:
    """Their unique locks are deleted too, and the name of a group without tasks. Other tasks stay."""
    for _ in range(CHUNK + 5):
        enqueue(**WAYS[state], unique_for=60)
    others = [enqueue(**options).id for other, options in WAYS.items() if other is not state]
    told: list[tuple[int, int]] = []
    group = "g" if state is TaskState.AGGREGATING else None

    deleted = await ask("delete_all", "default", state, group=group, progress=lambda *now: told.append(now))

    assert deleted == CHUNK + 5
    assert told == [(CHUNK, CHUNK + 5), (CHUNK + 5, CHUNK + 5)]
    assert redis_server.client.keys(PREFIX + "unique:*") == []
    assert {key.decode().split(":t:")[1] for key in redis_server.client.keys(PREFIX + "t:*")} == set(others)
    assert redis_server.client.sismember(PREFIX + "groups", "g") == (state is not TaskState.AGGREGATING)


async def test_all_archived_tasks_are_run(ask: Ask, redis_server: RedisServer) -> None:
    fill(redis_server, "archived", 250)

    assert await ask("run_all", "default", TaskState.ARCHIVED) == 250

    assert sizes(redis_server) == {"pending": 250}
    oldest_first = redis_server.client.lrange(PREFIX + "pending", 0, -1)[::-1]
    assert oldest_first == sorted(oldest_first), "in the order in which they were archived"
    assert redis_server.client.llen("taskq:{default}:wake") == 1


async def test_all_pending_tasks_are_archived_within_the_limits(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    fill(redis_server, "archived", 9_990)
    new = {enqueue().id.encode() for _ in range(25)}

    assert await ask("archive_all", "default", TaskState.PENDING) == 25

    kept = redis_server.client.zrange(PREFIX + "archived", 0, -1)
    assert len(kept) <= 10_000
    assert new <= set(kept)
    hashes = redis_server.client.keys(PREFIX + "t:*")
    assert {key.split(b":t:")[1] for key in hashes} == set(kept), "what had no room went whole"


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.SCHEDULED])
async def test_tasks_enqueued_during_the_action_are_not_changed(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, state: TaskState
) -> None:
    """This includes tasks that are due before the others."""
    for _ in range(3 * CHUNK):
        enqueue(**WAYS[state])
    came: list[str] = []

    def progress(done: int, total: int) -> None:
        options = WAYS[state] if state is TaskState.PENDING else {"run_after": 30}
        came.append(enqueue(**options).id)

    assert await ask("delete_all", "default", state, progress=progress) == 3 * CHUNK

    assert len(came) == 3
    left = {key.decode().split(":t:")[1] for key in redis_server.client.keys(PREFIX + "t:*")}
    assert left == set(came)


async def test_a_task_that_is_archived_again_is_not_run_again(ask: Ask, redis_server: RedisServer) -> None:
    """Its worker is quicker than the rest of the work: it waits for the next time."""
    fill(redis_server, "archived", 2 * CHUNK)

    def fail_again(done: int, total: int) -> None:
        for task_id in redis_server.client.lrange(PREFIX + "pending", 0, -1):
            redis_server.client.lrem(PREFIX + "pending", 0, task_id)
            redis_server.client.zadd(PREFIX + "archived", {task_id: 1_600_000_500})
            redis_server.client.hset(PREFIX + "t:" + task_id.decode(), "state", "archived")

    assert await ask("run_all", "default", TaskState.ARCHIVED, progress=fail_again) == 2 * CHUNK

    assert sizes(redis_server) == {"archived": 2 * CHUNK}


async def test_a_task_that_left_the_state_is_skipped(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    ids = [enqueue().id for _ in range(2 * CHUNK)]

    def take(done: int, total: int) -> None:
        """A worker takes the last one, as soon as the first half is done."""
        redis_server.client.lrem(PREFIX + "pending", 0, ids[-1])
        redis_server.client.hset(PREFIX + f"t:{ids[-1]}", "state", "active")

    assert await ask("delete_all", "default", TaskState.PENDING, progress=take) == 2 * CHUNK - 1

    assert [key.decode().split(":t:")[1] for key in redis_server.client.keys(PREFIX + "t:*")] == [ids[-1]]


async def test_a_task_that_moved_to_another_state_is_skipped(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """The task could be deleted there as well, but the caller did not request that."""
    ids = [enqueue().id for _ in range(CHUNK + 1)]

    def put_off(done: int, total: int) -> None:
        """Somebody puts the last one off, as soon as the first part is done."""
        if redis_server.client.lrem(PREFIX + "pending", 0, ids[-1]):
            redis_server.client.zadd(PREFIX + "scheduled", {ids[-1]: 4_000_000_000})
            redis_server.client.hset(PREFIX + f"t:{ids[-1]}", "state", "scheduled")

    assert await ask("delete_all", "default", TaskState.PENDING, progress=put_off) == CHUNK

    assert sizes(redis_server) == {"scheduled": 1}


async def test_a_stored_state_that_is_not_text_is_skipped(ask: Ask, redis_server: RedisServer) -> None:
    """Damage of one task ends nothing for the others."""
    fill(redis_server, "archived", 3)
    redis_server.client.hset(PREFIX + "t:id-0000001", "state", b"\xff")

    assert await ask("run_all", "default", TaskState.ARCHIVED) == 2
    assert await ask("move_all", "default", TaskState.ARCHIVED, "low") == 0

    assert sizes(redis_server) == {"pending": 2, "archived": 1}


async def test_an_exception_of_the_caller_ends_the_action(ask: Ask, redis_server: RedisServer) -> None:
    fill(redis_server, "archived", 3 * CHUNK)

    def enough(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await ask("delete_all", "default", TaskState.ARCHIVED, progress=enough)

    assert sizes(redis_server) == {"archived": 2 * CHUNK}


@rows(
    ("method", "state"),
    [
        ("run_all", TaskState.PENDING),
        ("run_all", TaskState.ACTIVE),
        ("archive_all", TaskState.ARCHIVED),
        ("archive_all", TaskState.ACTIVE),
        ("delete_all", TaskState.ACTIVE),
    ],
)
async def test_an_action_on_an_unsupported_state_is_refused(ask: Ask, method: str, state: TaskState) -> None:
    with pytest.raises(ConfigurationError, match=rf"{method} takes tasks that are .*; got state '{state}'"):
        await ask(method, "default", state)


@pytest.mark.parametrize("method", ["delete_all", "run_all"])
def test_no_call_handles_many_of_20_000_tasks(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The number of script calls is that of the chunks, and none reads or writes more than a bounded number."""
    count = 20_000
    fill(redis_server, "archived", count)
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    most: dict[str, int] = {}
    real_run = SyncRunner.run

    def run(self: SyncRunner, operation: Operation[Any], **more: Any) -> Any:
        answer = real_run(self, operation, **more)
        size = len(answer.ids) if operation.name == "scan_tasks" else len(operation.args)
        most[operation.name] = max(most.get(operation.name, 0), size)
        return answer

    monkeypatch.setattr(SyncRunner, "run", run)
    redis_server.client.config_resetstat()

    done = getattr(Inspector(app), method)("default", TaskState.ARCHIVED)

    calls = redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert done == count
    assert count // CHUNK <= calls <= count // CHUNK + count // 1000 + 5
    assert most.pop("scan_tasks") <= 1000
    assert max(most.values()) <= CHUNK + 10
    app.close()
