"""Test that handles reschedule tasks, change their arguments and move them, and that the tasks keep their ids."""

from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import (
    ConfigurationError,
    DuplicateTaskError,
    TaskArgumentsError,
    TaskIdConflictError,
    TaskNotFoundError,
    TaskQ,
    TaskState,
    TaskStateError,
)
from taskq_core.inspector import Inspector
from tests.redis_server import RedisServer

MOMENT = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.fixture
def app(redis_server: RedisServer) -> Any:
    app = TaskQ(redis_server.url, enqueue_timeout=30, defaults={"retention": 60})
    yield app
    app.close()


def test_reschedule_changes_time_and_arguments_at_once(app: TaskQ) -> None:
    """This holds for pending and for scheduled tasks."""

    @app.task
    def work(name: str) -> None: ...

    for options in ({}, {"run_after": 60}):
        for call in (None, work.s("other")):
            handle = work.using(**options).delay("first")

            handle.reschedule(at=MOMENT, call=call)

            info = handle.refresh()
            assert (info.id, info.state, info.next_run_at) == (handle.id, TaskState.SCHEDULED, MOMENT)
            assert info.payload == (b'{"name":"first"}' if call is None else b'{"name":"other"}')
    assert Inspector(app).count("default", TaskState.PENDING) == 0


def test_reschedule_moves_the_unique_lock_to_the_new_arguments(app: TaskQ) -> None:
    """A lock that another task holds is not taken."""

    @app.task(unique_for=600)
    def work(name: str) -> None: ...

    first, second = work.delay("a"), work.delay("b")

    with pytest.raises(DuplicateTaskError) as caught:
        first.reschedule(after=60, call=work.s("b"))
    assert caught.value.existing_id == second.id
    assert first.refresh().state is TaskState.PENDING

    first.reschedule(after=60, call=work.s("c"))

    with pytest.raises(DuplicateTaskError):
        work.delay("c")
    work.delay("a")
    second.cancel()


def test_an_invalid_reschedule_is_refused_with_its_reason(app: TaskQ) -> None:
    """A refused call changes nothing."""

    @app.task
    def work(name: str) -> None: ...

    @app.task
    def other() -> None: ...

    handle = work.delay("a")
    with pytest.raises(ConfigurationError, match="another time needs either at= or after="):
        handle.reschedule()
    with pytest.raises(ConfigurationError, match="at must be a datetime with a time zone"):
        handle.reschedule(at=datetime(2099, 1, 1))  # noqa: DTZ001 - what is tested
    with pytest.raises(ConfigurationError, match=r"call must be a call of task .*work.*, got one of .*other"):
        handle.reschedule(after=1, call=other.s())
    with pytest.raises(TaskArgumentsError):
        handle.reschedule(after=1, call=work.s(1, 2))  # type: ignore[call-arg, arg-type]
    assert handle.refresh().state is TaskState.PENDING
    handle.cancel()
    with pytest.raises(TaskNotFoundError):
        handle.reschedule(after=1)
    with pytest.raises(TaskNotFoundError):
        handle.reschedule(after=1, call=work.s("b"))


def test_reschedule_retries_an_archived_task_and_refuses_a_completed_task(
    app: TaskQ, redis_server: RedisServer
) -> None:
    handle = app.remote("t").delay(n=1)
    assert handle.cancel(keep=True)

    handle.reschedule(at=MOMENT)

    assert handle.refresh().state is TaskState.RETRY

    done = app.remote("t").delay(n=2)
    queue = app.runtime.keys.queue("default")
    redis_server.client.lrem(queue.pending, 1, done.id)
    redis_server.client.zadd(queue.completed, {done.id: 4_000_000_000})
    redis_server.client.hset(queue.task(done.id), "state", "completed")
    with pytest.raises(TaskStateError, match="the task has succeeded"):
        done.reschedule(after=1)


def test_a_handle_moves_its_task_and_then_uses_the_new_queue(app: TaskQ) -> None:
    """A refused move leaves the task and the handle in their queue."""
    handle = app.remote("t").using(task_id="one").delay(n=1)

    handle.move("other")

    assert handle.queue == "other"
    assert handle.refresh().queue == "other"
    app.remote("t").using(task_id="one").delay(n=2)
    with pytest.raises(TaskIdConflictError):
        handle.move("default")
    with pytest.raises(ConfigurationError, match="is in queue 'other' already"):
        handle.move("other")
    assert handle.refresh().state is TaskState.PENDING


async def test_amove_and_areschedule_work_like_the_blocking_methods(app: TaskQ) -> None:
    handle = await app.remote("t").adelay(n=1)

    await handle.amove("other")
    await handle.areschedule(after=60)

    assert (await handle.arefresh()).state is TaskState.SCHEDULED
    assert handle.queue == "other"
    await app.aclose()
