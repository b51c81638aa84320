"""Removing a queue."""

from typing import Any

import pytest

from taskq_core import TaskQ, TaskState
from taskq_core.broker.operations import actions, operation, runs
from taskq_core.errors import ConfigurationError, QueueNotEmptyError, QueueNotFoundError
from taskq_core.inspector import Inspector
from taskq_core.inspector.cursors import write_cursor
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis


def names(redis_server: RedisServer, queue: str = "default") -> list[str]:
    return sorted(key.decode() for key in redis_server.client.keys("*") if f"{{{queue}}}" in key.decode())


async def test_a_removal_leaves_no_key(app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """Every key of the queue is gone, and another queue keeps all its keys."""

    @app.task(name="email:deliver")
    def deliver(to: str) -> None:
        raise ValueError("no")

    enqueue(max_retry=0)
    enqueue(max_retry=3)
    app.client.enqueue(app.remote("unknown", aggregate="g", unique_for=60).s())
    assert await Worker(app, WorkerConfig(burst=True)).arun() == 0
    enqueue(unique_for=60)
    enqueue(run_after=60)
    for group in ("g", "h"):
        enqueue(aggregate=group, unique_for=60)
    client = redis_server.client
    client.zadd("asynq:{default}:completed", {"done": 2_000_000_000})
    client.hset("asynq:{default}:t:done", mapping={"msg": "m", "state": "completed"})
    client.rename("asynq:{default}:g:h", "asynq:{default}:g:h:set")
    client.zadd("asynq:{default}:aggregation_sets", {"asynq:{default}:g:h:set": 2_000_000_000})
    client.zadd("taskq:{default}:quarantine", {"odd": 1})
    client.hset("taskq:{default}:quarantine:odd", mapping={"msg": "?"})
    client.set("asynq:{default}:unique:t:left", "nobody")
    client.hset("asynq:{default}:t:stray", mapping={"msg": "m", "state": "pending"})
    await ask("pause", "default")
    enqueue("default2")
    enqueue("defaul")
    others = names(redis_server, "default2") + names(redis_server, "defaul")
    told: list[tuple[int, int]] = []

    deleted = await ask("remove_queue", "default", force=True, progress=lambda *now: told.append(now))

    assert names(redis_server) == []
    assert names(redis_server, "default2") + names(redis_server, "defaul") == others
    assert await ask("queues") == ["defaul", "default2"]
    assert deleted == 9
    assert told[-1] == (9, 9)


async def test_a_queue_with_tasks_is_refused(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    enqueue()
    enqueue(run_after=60)
    enqueue(aggregate="g")
    before = names(redis_server)

    with pytest.raises(
        QueueNotEmptyError, match="queue 'default' is not empty: its removal would delete 3 tasks"
    ) as caught:
        await ask("remove_queue", "default")

    assert (caught.value.queue, caught.value.active, caught.value.waiting) == ("default", 0, 3)
    assert names(redis_server) == before


async def test_a_queue_with_running_tasks_is_refused(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """This holds with and without force, because a worker would continue tasks that no longer exist."""
    enqueue()
    queue = app.runtime.keys.queue("default")
    app.runtime.runner.run(runs.dequeue(queue, owner="w", call=1, limit=1, lease_s=30))
    before = names(redis_server)

    for force in (False, True):
        with pytest.raises(QueueNotEmptyError, match="cannot be removed: 1 of its tasks run"):
            await ask("remove_queue", "default", force=force)

    assert names(redis_server) == before


async def test_completed_tasks_do_not_prevent_a_removal(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """They have done what they were there for."""
    task_id = enqueue().id
    client = redis_server.client
    client.delete("asynq:{default}:pending")
    client.zadd("asynq:{default}:completed", {task_id: 2_000_000_000})
    client.hset(f"asynq:{{default}}:t:{task_id}", "state", "completed")

    assert await ask("remove_queue", "default") == 1

    assert names(redis_server) == []


async def test_an_interrupted_removal_is_continued(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """Tasks enqueued in between are counted again. Tasks that were already set aside are still deleted."""
    for _ in range(250):
        enqueue()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await ask("remove_queue", "default", force=True, progress=stop)
    assert (await ask("queue_info", "default")).size == 0, "empty from one moment to the next"
    enqueue()

    with pytest.raises(QueueNotEmptyError, match="its removal would delete 1 task "):
        await ask("remove_queue", "default")
    told: list[tuple[int, int]] = []
    assert await ask("remove_queue", "default", force=True, progress=lambda *now: told.append(now)) == 151
    assert told == [(100, 150), (150, 150), (151, 151)]

    assert names(redis_server) == []
    with pytest.raises(QueueNotFoundError):
        await ask("remove_queue", "default")


async def test_a_queue_is_removed_in_parts(app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """The keys of the server, however many there are, are gone through in parts as well."""
    for _ in range(250):
        enqueue(unique_for=60)
    with redis_server.client.pipeline(transaction=False) as pipeline:
        for number in range(3000):
            pipeline.set(f"other:{number}", 1)
        pipeline.execute()

    parts = [await ask("remove_queue_part", "default", force=True, has_time=lambda: False)]
    while parts[-1].next is not None:
        cursor = parts[-1].next
        parts.append(await ask("remove_queue_part", "default", force=True, cursor=cursor, has_time=lambda: False))
        assert len(parts) < 50

    assert [part.deleted for part in parts[:3]] == [100, 100, 50]
    assert len(parts) > 8, "each part looks at some hundred keys"
    assert names(redis_server) == []
    assert redis_server.client.dbsize() == 3000
    with pytest.raises(QueueNotFoundError):
        await ask("remove_queue", "default")


async def test_tasks_enqueued_between_two_parts_survive(ask: Ask, enqueue: Enqueue) -> None:
    for _ in range(150):
        enqueue()
    part = await ask("remove_queue_part", "default", force=True, has_time=lambda: False)
    came = enqueue().id

    rest = await ask("remove_queue_part", "default", force=True, cursor=part.next)

    assert (rest.deleted, rest.next) == (50, None)
    assert [task.id for task in (await ask("tasks", "default", TaskState.PENDING)).tasks] == [came]


@rows("cursor", ["", "7", 7, write_cursor("close"), write_cursor(["drop"]), write_cursor(["purge", "x"])])
async def test_a_foreign_cursor_is_refused(ask: Ask, enqueue: Enqueue, redis_server: RedisServer, cursor: Any) -> None:
    enqueue()

    with pytest.raises(ConfigurationError, match="cursor must"):
        await ask("remove_queue_part", "default", force=True, cursor=cursor)

    assert (await ask("queue_info", "default")).size == 1


async def test_tasks_enqueued_during_a_removal_survive(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    for _ in range(150):
        enqueue(unique_for=60)
    came: list[str] = []

    await ask("remove_queue", "default", force=True, progress=lambda *now: came.append(enqueue().id))

    page = await ask("tasks", "default", TaskState.PENDING)
    assert [task.id for task in page.tasks] == came
    assert await ask("queues") == ["default"]
    assert redis_server.client.keys("asynq:{default}:unique:*") == []


async def test_tasks_enqueued_at_the_end_of_a_removal_stay_visible(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer noted the queue a moment before it was forgotten."""
    enqueue()
    real = actions.forget_queue

    def forget_queue(*arguments: str) -> operation.Operation[int]:
        enqueue()
        return real(*arguments)

    monkeypatch.setattr(actions, "forget_queue", forget_queue)

    assert await ask("remove_queue", "default", force=True) == 1

    assert await ask("queues") == ["default"]
    assert (await ask("queue_info", "default")).size == 1


@rows("name", ["a*", "a?[b]", "a\\b", "a^-b", "x y"])
def test_names_with_glob_characters_are_removed_exactly(redis_server: RedisServer, name: str) -> None:
    """Pattern characters are literal: no other queue loses a key."""
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    for queue in (name, "ab", "a", "aa", "a1b"):
        app.client.enqueue(app.remote("t", queue=queue).s())

    assert Inspector(app).remove_queue(name, force=True) == 1

    assert names(redis_server, name) == []
    assert [len(names(redis_server, queue)) > 2 for queue in ("ab", "a", "aa", "a1b")] == [True] * 4
    app.close()


def test_a_queue_whose_name_continues_with_a_brace_keeps_its_keys(redis_server: RedisServer) -> None:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    for queue in ("a", "a}:b"):
        app.client.enqueue(app.remote("t", queue=queue).s())
    inspector = Inspector(app)

    inspector.remove_queue("a", force=True)

    assert inspector.queue_info("a}:b").size == 1
    assert len(inspector.tasks("a}:b", TaskState.PENDING).tasks) == 1
    app.close()
