"""Test dead letters: archived tasks trigger functions and tasks, for every way to archive and after every crash."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import (
    ConfigurationError,
    SkipRetry,
    TaskDefinitionError,
    TaskIdConflictError,
    TaskInfo,
    TaskQ,
    TaskState,
)
from taskq_core.inspector import Inspector
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    PATIENCE_S,
    Runner,
    receives_cancels,
    state_of,
    until,
)


async def test_on_archived_hooks_receive_each_archived_task(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """Hooks are called for failures, expiries and cancels, not for retried, completed or dropped tasks."""
    received: list[tuple[str, str, TaskState]] = []
    running: list[str] = []

    @app.on_archived
    def plain(task: TaskInfo) -> None:
        received.append(("plain", task.id, Inspector(app).task(task.queue, task.id).state))

    @app.on_archived
    async def coroutine(task: TaskInfo) -> None:
        received.append(("coroutine", task.id, task.state))
        assert task.last_error

    @app.task(name="work", retry_delay=0, max_retry=1)
    async def work(how: str) -> None:
        running.append(how)
        if how == "wait":
            await asyncio.Event().wait()
        if how == "fail" or (how == "once" and running.count("once") == 1):
            raise ValueError(how)

    await start(dead_letters_every=60)
    handles = {how: await work.adelay(how) for how in ("fail", "once", "fine", "wait")}
    handles["late"] = await work.using(expires=datetime(2020, 1, 1, tzinfo=UTC)).adelay("late")
    await work.using(expires=datetime(2020, 1, 1, tzinfo=UTC), on_expiry="discard").adelay("gone")
    await until(lambda: "wait" in running and receives_cancels(redis_server))
    await handles["wait"].acancel()
    await handles["once"].aresult(PATIENCE_S)
    await until(lambda: len(received) == 6)

    for kind in ("plain", "coroutine"):
        found = {task_id for each, task_id, _ in received if each == kind}
        assert found == {handles["fail"].id, handles["wait"].id, handles["late"].id}
    assert {state for _, _, state in received} == {TaskState.ARCHIVED}


async def test_a_dead_letter_task_is_enqueued_for_an_archived_task(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """It gets the arguments its function accepts, in its own queue, once. Its own failure causes no dead letter."""
    letters: list[dict[str, Any]] = []

    @app.task(name="dead", queue="dead", max_retry=0)
    async def dead(task_id: str, queue: str, error: str, archived_at: datetime) -> None:
        letters.append({"task_id": task_id, "queue": queue, "error": error, "archived_at": archived_at})
        raise SkipRetry("and this one fails too")

    @app.task(name="work", max_retry=0, dead_letter=dead)
    async def work(secret: str) -> None:
        raise ValueError("broken")

    await start(queues={"default": 1, "dead": 1}, dead_letters_every=0.1)
    handle = await work.adelay("s3cr3t")
    dead_queue = app.runtime.keys.queue("dead")
    await until(lambda: redis_server.client.zcard(dead_queue.archived) == 1)
    await until(lambda: redis_server.client.exists(queue.letters, dead_queue.letters) == 0)

    info = Inspector(app).task("default", handle.id)
    assert isinstance(info, TaskInfo)
    assert letters == [
        {"task_id": handle.id, "queue": "default", "error": "ValueError: broken", "archived_at": info.archived_at}
    ]
    (stored,) = Inspector(app).tasks("dead", TaskState.ARCHIVED).tasks
    assert stored.id.startswith(f"dead:default:{handle.id}:")
    assert b"s3cr3t" not in getattr(stored, "payload", b"")
    assert "taskq-dead-letter" not in stored.headers


async def test_a_dead_letter_task_without_code_gets_all_fields(app: TaskQ, start: Runner) -> None:
    """The name belongs to a task of Go or of another program."""
    task = app.remote("nobody", max_retry=0, dead_letter="go:dead")
    ran: list[bytes] = []

    @app.handler("go:")
    async def go(raw: Any) -> None:
        ran.append(raw.payload)

    await start(unknown_task_timeout=0)
    handle = await task.adelay(n=1)
    await until(lambda: ran)

    letter = json.loads(ran[0])
    assert letter.keys() == {"task_id", "queue", "name", "error", "retried", "archived_at"}
    assert (letter["task_id"], letter["name"]) == (handle.id, "nobody")


async def test_a_failed_hook_is_retried_and_the_task_stays_archived(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook is retried until it succeeds, and the archived task does not change."""
    tries: list[str] = []

    @app.on_archived
    def received(task: TaskInfo) -> None:
        tries.append(task.id)
        if len(tries) < 3:
            raise SystemExit("the handler is broken")

    @app.task(name="work", max_retry=0)
    def work() -> None:
        raise ValueError("broken")

    await start(dead_letters_every=0.1)
    handle = await work.adelay()
    await until(lambda: len(tries) == 3)
    await until(lambda: not redis_server.client.exists(queue.letters))

    assert state_of(redis_server, queue, handle.id) == "archived"
    assert "a handler of an archived task failed; the handlers are called again" in caplog.text


async def test_hooks_receive_the_current_queue_of_a_moved_task(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A moved task fails again in its new queue. A task whose move was refused is handled in its old queue."""
    received: list[tuple[str, str]] = []
    is_broken = [True]

    @app.on_archived
    def tell(task: TaskInfo) -> None:
        received.append((task.queue, task.id))
        if is_broken[0]:
            raise SystemExit("the handler is broken")

    @app.task(name="work", max_retry=0)
    def work() -> None:
        raise ValueError("broken")

    other = app.runtime.keys.queue("other")
    worker = await start(dead_letters_every=0.1)
    moved, back = await work.using(task_id="moved").adelay(), await work.using(task_id="back").adelay()
    await until(lambda: {each for _, each in received} == {moved.id, back.id})
    await start.stop(worker)
    await work.using(task_id="back", queue="other", run_after=3600).adelay()
    inspector = Inspector(app)
    await asyncio.to_thread(inspector.move_task, "default", moved.id, "other")
    with pytest.raises(TaskIdConflictError):
        await asyncio.to_thread(inspector.move_task, "default", back.id, "other")
    is_broken[0] = False
    received.clear()

    await start(queues={"default": 1, "other": 1}, dead_letters_every=0.1)
    await until(lambda: not redis_server.client.exists(queue.letters, other.letters))

    assert sorted(received) == [("default", "back"), ("other", "moved")]


async def test_hooks_do_not_receive_tasks_that_were_run_again_or_deleted(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Its record is deleted."""
    received: list[str] = []
    app.on_archived(lambda task: received.append(task.id))
    redis_server.client.zadd(queue.letters, {"gone": 1})
    handle = await app.remote("t").using(run_after=600).adelay()
    redis_server.client.zadd(queue.letters, {handle.id: 1})

    await start(dead_letters_every=0.1)
    await until(lambda: not redis_server.client.exists(queue.letters))

    assert received == []


def test_invalid_hooks_and_dead_letter_names_are_refused(app: TaskQ) -> None:
    with pytest.raises(TaskDefinitionError, match="must accept the task"):
        app.on_archived(lambda: None)
    for wrong in (5, b"x", object()):
        with pytest.raises(ConfigurationError, match="dead_letter must be a task, or the name of one"):
            app.remote("t").using(dead_letter=wrong)  # type: ignore[typeddict-item]
    with pytest.raises(ConfigurationError):
        app.remote("t").using(dead_letter=" ")
