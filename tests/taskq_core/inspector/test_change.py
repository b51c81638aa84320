"""Acting on one task, and on whether a queue is paused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import (
    BrokerUnavailableError,
    ConfigurationError,
    DuplicateTaskError,
    TaskNotFoundError,
    TaskQ,
    TaskState,
)
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import QueueNotPausedError, QueuePausedError, TaskActiveError, TaskStateError, WireFormatError
from taskq_core.handles import changing
from taskq_core.inspector import Inspector
from taskq_core.wire import decode_message, encode_message
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis

PREFIX = "asynq:{default}:"


def activate(redis_server: RedisServer, task_id: str) -> None:
    """Make a pending task active, as a worker would."""
    redis_server.client.lrem(PREFIX + "pending", 0, task_id)
    redis_server.client.lpush(PREFIX + "active", task_id)
    redis_server.client.zadd(PREFIX + "lease", {task_id: 2_000_000_000})
    redis_server.client.hset(PREFIX + f"t:{task_id}", "state", "active")


def lock_of(redis_server: RedisServer) -> tuple[str, str]:
    (lock,) = redis_server.client.keys(PREFIX + "unique:*")
    return lock.decode(), redis_server.client.get(lock).decode()


async def test_run_starts_a_task(app: TaskQ, ask: Ask, enqueue: Enqueue) -> None:
    """A worker takes it at once, however far its time is."""
    ran: list[str] = []

    @app.task(name="email:deliver")
    def deliver(to: str) -> None:
        ran.append(to)

    task_id = enqueue(run_after=3600).id

    await ask("run_task", "default", task_id)

    assert (await ask("task", "default", task_id)).state is TaskState.PENDING
    assert await Worker(app, WorkerConfig(burst=True)).arun() == 0
    assert ran == ["1@b.c"]


async def test_an_idle_worker_is_woken(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    task_id = enqueue(run_after=3600).id

    await ask("run_task", "default", task_id)

    assert redis_server.client.llen("taskq:{default}:wake") == 1


async def test_archive_moves_a_task_to_the_archive(ask: Ask, enqueue: Enqueue) -> None:
    task_id = enqueue().id

    await ask("archive_task", "default", task_id)

    task = await ask("task", "default", task_id)
    assert task.state is TaskState.ARCHIVED
    assert task.archived_at is not None
    assert (await ask("queue_info", "default")).size == 1


async def test_a_caller_that_waits_for_an_archived_task_is_notified(app: TaskQ, ask: Ask, enqueue: Enqueue) -> None:
    handle = enqueue(run_after=3600, retention=60)

    await ask("archive_task", "default", handle.id)

    with pytest.raises(Exception, match="archived"):
        await handle.aresult(timeout=60)


async def test_delete_removes_a_task_and_its_lock(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    handle = enqueue(unique_for=3600)
    assert lock_of(redis_server)[1] == handle.id

    await ask("delete_task", "default", handle.id)

    with pytest.raises(TaskNotFoundError):
        await ask("task", "default", handle.id)
    assert redis_server.client.keys(PREFIX + "*") == []


@rows(
    ("method", "arguments"),
    [
        ("run_task", {}),
        ("archive_task", {}),
        ("delete_task", {}),
        ("retry_task", {"after": 5}),
        ("update_payload", {"payload": b"{}"}),
        ("move_task", {"to_queue": "low"}),
    ],
)
async def test_a_running_task_is_not_changed(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, method: str, arguments: dict[str, Any]
) -> None:
    task_id = enqueue().id
    activate(redis_server, task_id)
    before = redis_server.client.hgetall(PREFIX + f"t:{task_id}")

    with pytest.raises(TaskActiveError, match=rf"task '{task_id}' in queue 'default' is active") as caught:
        await ask(method, "default", task_id, **arguments)

    assert (caught.value.queue, caught.value.task_id, caught.value.state) == ("default", task_id, "active")
    after = redis_server.client.hgetall(PREFIX + f"t:{task_id}")
    assert {name: after[name] for name in after if name != b"taskq_generation"} == before
    assert redis_server.client.lrange(PREFIX + "active", 0, -1) == [task_id.encode()]
    with pytest.raises(TaskNotFoundError):
        await ask(method, "default", "nobody", **arguments)
    assert await ask("queues") == ["default"]


async def test_a_change_to_the_current_state_is_refused(ask: Ask, enqueue: Enqueue) -> None:
    pending, archived = enqueue().id, enqueue().id
    await ask("archive_task", "default", archived)

    with pytest.raises(TaskStateError, match="is pending: the task is already pending"):
        await ask("run_task", "default", pending)
    with pytest.raises(TaskStateError, match="is archived: the task is already archived"):
        await ask("archive_task", "default", archived)


async def test_an_unknown_task_is_reported(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """The task's state is `scheduled`, but it is not in the scheduled set, so the inspector changes nothing."""
    task_id = enqueue(run_after=60).id
    redis_server.client.zrem(PREFIX + "scheduled", task_id)

    for method in ("run_task", "archive_task", "delete_task"):
        with pytest.raises(TaskStateError, match="missing in the list of its state"):
            await ask(method, "default", task_id)
    with pytest.raises(TaskStateError, match="missing in the list of its state"):
        await ask("retry_task", "default", task_id, after=5)

    assert (await ask("task", "default", task_id)).state is TaskState.SCHEDULED


class TestRetryTask:
    async def test_a_scheduled_task_is_postponed(self, ask: Ask, enqueue: Enqueue) -> None:
        task_id = enqueue(run_after=60).id
        at = datetime(2033, 5, 18, 3, 33, 20, 1, tzinfo=UTC)

        await ask("retry_task", "default", task_id, at=at)

        task = await ask("task", "default", task_id)
        assert task.state is TaskState.SCHEDULED
        assert task.next_run_at == at.replace(microsecond=0) + timedelta(seconds=1), "rounded up: never early"

    @rows(
        ("leave", "state"),
        [(None, TaskState.SCHEDULED), ("archive_task", TaskState.RETRY)],
        ids=["pending", "archived"],
    )
    async def test_a_task_of_another_state_becomes_scheduled(
        self, ask: Ask, enqueue: Enqueue, redis_server: RedisServer, leave: str | None, state: TaskState
    ) -> None:
        task_id = enqueue().id
        if leave:
            await ask(leave, "default", task_id)

        await ask("retry_task", "default", task_id, after=timedelta(minutes=5))

        task = await ask("task", "default", task_id)
        assert task.state is state
        left = task.next_run_at.timestamp() - redis_server.client.time()[0]
        assert 290 < left <= 301
        assert (await ask("queue_info", "default")).sizes[state] == 1
        assert (await ask("queue_info", "default")).size == 1

    @rows(
        "arguments",
        [{}, {"at": datetime(2033, 1, 1, tzinfo=UTC), "after": 1}, {"at": datetime(2033, 1, 1)}, {"after": -1}],  # noqa: DTZ001
    )
    async def test_an_invalid_time_is_refused(self, ask: Ask, enqueue: Enqueue, arguments: dict[str, Any]) -> None:
        task_id = enqueue().id

        with pytest.raises(ConfigurationError):
            await ask("retry_task", "default", task_id, **arguments)


class TestUpdatePayload:
    @rows("options", [{}, {"run_after": 60}, {"aggregate": "g"}], ids=["pending", "scheduled", "group"])
    async def test_the_payload_of_a_waiting_task_is_replaced(
        self, ask: Ask, enqueue: Enqueue, options: dict[str, Any]
    ) -> None:
        task_id = enqueue(**options).id
        before = await ask("task", "default", task_id)

        await ask("update_payload", "default", task_id, b'{"to":"new@b.c"}')

        after = await ask("task", "default", task_id)
        assert after.payload == b'{"to":"new@b.c"}'
        assert (after.state, after.headers, after.next_run_at) == (before.state, before.headers, before.next_run_at)

    async def test_the_payload_of_an_archived_task_is_replaced_before_it_is_run_again(
        self, ask: Ask, enqueue: Enqueue
    ) -> None:
        task_id = enqueue().id
        await ask("archive_task", "default", task_id)

        await ask("update_payload", "default", task_id, b'{"to":"right@b.c"}')
        await ask("run_task", "default", task_id)

        task = await ask("task", "default", task_id)
        assert (task.state, task.payload) == (TaskState.PENDING, b'{"to":"right@b.c"}')

    async def test_a_changed_payload_moves_the_unique_lock(
        self, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
    ) -> None:
        """The lock keeps its remaining time. Another task with the new payload is refused."""
        handle = enqueue(unique_for=3600)
        old, _ = lock_of(redis_server)
        redis_server.client.pexpire(old, 1_000_000)

        await ask("update_payload", "default", handle.id, b'{"to":"2@b.c"}')

        new, holder = lock_of(redis_server)
        assert (new != old, holder) == (True, handle.id)
        assert 900_000 < redis_server.client.pttl(new) <= 1_000_000
        with pytest.raises(DuplicateTaskError):
            enqueue(unique_for=60)  # the second address
        await ask("delete_task", "default", handle.id)
        assert redis_server.client.keys(PREFIX + "unique:*") == []

    async def test_a_payload_whose_lock_is_held_is_refused(
        self, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
    ) -> None:
        first, second = enqueue(unique_for=60), enqueue(unique_for=60)

        with pytest.raises(DuplicateTaskError):
            await ask("update_payload", "default", first.id, b'{"to":"2@b.c"}')

        assert (await ask("task", "default", first.id)).payload == b'{"to":"1@b.c"}'
        holders = {redis_server.client.get(lock).decode() for lock in redis_server.client.keys(PREFIX + "unique:*")}
        assert holders == {first.id, second.id}

    async def test_a_changed_payload_does_not_acquire_an_expired_lock(
        self, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
    ) -> None:
        handle = enqueue(unique_for=60)
        redis_server.client.delete(lock_of(redis_server)[0])

        await ask("update_payload", "default", handle.id, b"{}")

        assert redis_server.client.keys(PREFIX + "unique:*") == []

    async def test_a_concurrent_change_is_kept(
        self, app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another caller changes the task between reading and writing: it is read again."""
        task_id = enqueue(run_after=60).id
        key, looks = PREFIX + f"t:{task_id}", 0
        with_payload = changing.with_payload

        def between(*arguments: Any) -> Any:
            nonlocal looks
            looks += 1
            if looks == 1:
                message = decode_message(redis_server.client.hget(key, "msg"))
                message.retried = 7
                redis_server.client.hset(key, "msg", encode_message(message))
            return with_payload(*arguments)

        monkeypatch.setattr(changing, "with_payload", between)

        await ask("update_payload", "default", task_id, b"{}")

        task = await ask("task", "default", task_id)
        assert (task.payload, task.retried, looks) == (b"{}", 7, 2)

    async def test_a_completed_task_keeps_its_payload(
        self, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
    ) -> None:
        task_id = enqueue().id
        redis_server.client.delete(PREFIX + "pending")
        redis_server.client.zadd(PREFIX + "completed", {task_id: 2_000_000_000})
        redis_server.client.hset(PREFIX + f"t:{task_id}", "state", "completed")

        with pytest.raises(TaskStateError, match="has succeeded"):
            await ask("update_payload", "default", task_id, b"{}")

    @rows("payload", [b'{"to":"1@b.c"}', b"{}"], ids=["the same", "another"])
    async def test_a_running_task_keeps_its_payload(
        self, ask: Ask, enqueue: Enqueue, redis_server: RedisServer, payload: bytes
    ) -> None:
        task_id = enqueue().id
        activate(redis_server, task_id)

        with pytest.raises(TaskActiveError):
            await ask("update_payload", "default", task_id, payload)

    async def test_an_unreadable_task_is_reported(self, ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
        task_id = enqueue().id
        redis_server.client.hset(PREFIX + f"t:{task_id}", "msg", b"\xff\xff")

        with pytest.raises(WireFormatError):
            await ask("update_payload", "default", task_id, b"{}")

    @rows("payload", ["text", b"x" * (16 * 1024 * 1024 + 1)], ids=["text", "too large"])
    async def test_an_invalid_payload_is_refused(self, ask: Ask, payload: Any) -> None:
        with pytest.raises(ConfigurationError, match="payload must be"):
            await ask("update_payload", "default", "id", payload)


async def test_a_paused_queue_starts_no_task(app: TaskQ, ask: Ask, enqueue: Enqueue) -> None:
    ran: list[str] = []

    @app.task(name="email:deliver")
    def deliver(to: str) -> None:
        ran.append(to)

    enqueue()

    await ask("pause", "default")
    assert (await ask("queue_info", "default")).is_paused
    with pytest.raises(QueuePausedError, match="queue 'default' is already paused"):
        await ask("pause", "default")
    await ask("resume", "default")
    with pytest.raises(QueueNotPausedError, match="queue 'default' is not paused"):
        await ask("resume", "default")

    assert await Worker(app, WorkerConfig(burst=True)).arun() == 0
    assert ran == ["1@b.c"]


@pytest.mark.parametrize("method", ["run_task", "archive_task", "delete_task", "pause"])
def test_a_change_without_a_reply_is_not_sent_again(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A second one would be refused, and hide that the first was carried out."""
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    handle = app.client.enqueue(app.remote("t", run_after=60).s())
    sent: list[str] = []
    real = SyncRunner._attempt

    def lose(self: SyncRunner, operations: Any, *arguments: Any) -> Any:
        answer = real(self, operations, *arguments)
        (operation,) = operations
        if operation.name not in ("has_queue", "identify"):
            sent.append(operation.name)
            raise BrokerUnavailableError("no answer")
        return answer

    monkeypatch.setattr(SyncRunner, "_attempt", lose)

    with pytest.raises(BrokerUnavailableError) as caught:
        getattr(Inspector(app), method)("default", *([] if method == "pause" else [handle.id]))

    assert len(sent) == 1
    assert caught.value.may_have_happened
    app.close()


async def test_archive_respects_the_limits_of_the_archive(redis_server: RedisServer) -> None:
    """Each queue has a limit by number and age. The data of tasks over the limit is deleted."""
    archive = {"MAX_TASKS": 3, "MAX_AGE": timedelta(days=1), "QUEUES": {"low": {"MAX_TASKS": 1}}}
    app = TaskQ(redis_server.unix_url, archive=archive, enqueue_timeout=30)
    inspector = Inspector(app)
    for queue in ("default", "low"):
        for number in range(5):
            app.client.enqueue(app.remote("t", queue=queue, task_id=f"{number}").s())
    inspector.archive_task("default", "0")
    redis_server.client.zadd("asynq:{default}:archived", {"0": 1_000_000_000})

    for queue in ("default", "low"):
        inspector.archive_all(queue, TaskState.PENDING)

    assert sorted(redis_server.client.zrange("asynq:{default}:archived", 0, -1)) == [b"2", b"3", b"4"]
    assert redis_server.client.zrange("asynq:{low}:archived", 0, -1) == [b"4"]
    assert len(redis_server.client.keys("asynq:*:t:*")) == 4
    app.close()


async def test_a_worker_respects_the_limits_of_the_archive(redis_server: RedisServer) -> None:
    """The limits of the settings apply to tasks that fail for good."""
    app = TaskQ(redis_server.unix_url, archive={"MAX_TASKS": 2}, enqueue_timeout=30)

    @app.task(name="fails", max_retry=0)
    def fails() -> None:
        raise ValueError("no")

    for _ in range(5):
        await fails.adelay()

    assert await Worker(app, WorkerConfig(burst=True)).arun() == 0

    assert redis_server.client.zcard(PREFIX + "archived") == 2
    assert len(redis_server.client.keys(PREFIX + "t:*")) == 2
    await app.aclose()
