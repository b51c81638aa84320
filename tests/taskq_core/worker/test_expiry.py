"""Test tasks that are not started in time: they are archived or dropped, reported, and never run late."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskExpiredError, TaskFailedError, TaskNotFoundError, TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import QueueKeys
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    PATIENCE_S,
    Ends,
    Runner,
    stored,
    until,
)

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def test_an_expired_task_is_archived_and_does_not_run(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """Its handle raises a typed error, error handlers are called, the expiry is counted, and another task runs."""
    ran: list[str] = []
    errors: list[BaseException] = []

    @app.task
    async def work(name: str) -> None:
        ran.append(name)

    @app.on_error
    async def see(error: BaseException, context: Any) -> None:
        errors.append(error)

    late = await work.using(expires=LONG_AGO).adelay("late")
    other = await work.using(expires=3600).adelay("in time")
    ends = Ends()
    with caplog.at_level(logging.WARNING, "taskq.worker"):
        await start(listener=ends)
        await other.aresult(PATIENCE_S)
        with pytest.raises(TaskExpiredError) as raised:
            await late.aresult(PATIENCE_S)
    await until(lambda: errors)

    assert ran == ["in time"]
    assert raised.value.expired_at == LONG_AGO
    assert isinstance(raised.value, TaskFailedError)
    assert [type(error) for error in errors] == [TaskExpiredError]
    assert ends.of(late.id) == ["expired"]
    assert f"task expired: name={work.name} id={late.id}" in caplog.text
    info = Inspector(app).task("default", late.id)
    assert info.start_by == LONG_AGO
    assert info.last_error.startswith("the task expired: it was not started by 2020-01-01")
    assert info.retried == 0
    assert Inspector(app).queue_info("default").failed == 1


async def test_an_expired_task_with_discard_is_deleted_with_its_lock(app: TaskQ, start: Runner) -> None:
    """Its handle raises `TaskNotFoundError`."""
    ran: list[int] = []

    @app.task(unique_for=3600, expires=LONG_AGO, on_expiry="discard")
    async def work() -> None:
        ran.append(1)

    ends = Ends()
    handle = await work.adelay()
    await start(listener=ends)
    await until(lambda: ends.ends)
    with pytest.raises(TaskNotFoundError):
        await handle.aresult(PATIENCE_S)

    await work.adelay()  # the lock is free

    await until(lambda: len(ends.ends) == 2)
    assert {outcome for _, outcome in ends.ends} == {"expired"}
    assert ran == []


async def test_a_retry_after_the_expiry_is_not_started(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """The expiry applies to the start of every attempt. A run that started in time is not interrupted."""
    runs: list[int] = []

    @app.task(expires=20, retry_delay=25)
    async def work() -> None:
        runs.append(1)
        raise ValueError("once")

    await start()
    handle = await work.adelay()
    await until(lambda: runs)
    await clock.advance(27)
    with pytest.raises(TaskExpiredError):
        await handle.aresult(PATIENCE_S)

    assert runs == [1]
    assert stored(redis_server, queue, handle.id).retried == 1


async def test_expires_counts_from_the_scheduled_start(app: TaskQ, start: Runner, clock: Clock) -> None:
    """An expiry shorter than `run_after` lets it run all the same."""

    @app.task
    async def work() -> str:
        return "ran"

    await start()
    handle = await work.using(run_after=25, expires=20).adelay()
    await clock.advance(27)

    assert await handle.aresult(PATIENCE_S) == "ran"


def test_invalid_expiry_options_are_refused(app: TaskQ) -> None:
    """The error has name and value, and nothing is stored."""

    @app.task
    def work() -> None: ...

    for wrong in (0, -1, "soon", float("nan"), datetime(2030, 1, 1)):  # noqa: DTZ001 - what is tested
        with pytest.raises(ConfigurationError, match="expires"):
            work.using(expires=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"on_expiry must be 'archive' or 'discard', got 'drop'"):
        work.using(on_expiry="drop")


def test_an_expiring_task_has_a_deadline_for_go_one_timeout_after_its_expiry(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The deadline is a whole timeout after the expiry. An explicit deadline stays."""

    @app.task(timeout=30)
    def work() -> None: ...

    moment = datetime(2099, 1, 1, tzinfo=UTC)
    at = stored(redis_server, queue, work.using(expires=moment).delay().id)
    own = stored(redis_server, queue, work.using(expires=moment, deadline=moment - timedelta(1)).delay().id)
    span = stored(redis_server, queue, work.using(expires=60).delay().id)

    assert at.deadline == int(moment.timestamp()) + 30
    assert own.deadline == int((moment - timedelta(1)).timestamp())
    assert span.deadline == int(span.headers["taskq-expires"]) + 30
