"""Schedules that are added, paused, resumed and removed while a scheduler runs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, PeriodicTask, TaskQ
from taskq_core.errors import EntryNotFoundError
from taskq_core.inspector import Inspector, schedules
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.scheduler.conftest import Fired, Looker, Runner


async def test_a_schedule_is_added_paused_resumed_and_removed(
    app: TaskQ, start: Runner, looker: Looker, clock: Clock
) -> None:
    """The task has the payload and the options of the schedule; firings missed in between are not run later."""

    @app.task(name="report", max_retry=9)
    def report(kind: str, days: int = 7) -> None: ...

    inspector, fired = Inspector(app), Fired()
    await start(listener=fired)
    entry = PeriodicTask("@every 10s", report.s("sales"), id="sales", queue="low", retention=timedelta(minutes=1))
    inspector.add_schedule(entry)
    await clock.advance(35)
    assert len(fired.outcomes("sales")) in (2, 3)
    message = looker.pending("low")[0]
    assert (message.type, message.payload, message.retry) == ("report", b'{"kind":"sales"}', 9)
    assert message.retention == 60

    assert inspector.pause_schedule("sales")
    assert not inspector.pause_schedule("sales")
    await clock.advance(3)
    count = len(fired.all)
    await clock.advance(60)
    assert len(fired.all) == count
    (shown,) = inspector.scheduler_entries()
    assert (shown.id, shown.is_paused, shown.is_removable, shown.next_run_at) == ("sales", True, True, None)

    assert inspector.resume_schedule("sales")
    await clock.advance(14)
    assert len(fired.all) - count in (1, 2)
    inspector.remove_schedule("sales")
    await clock.advance(3)
    count = len(fired.all)
    await clock.advance(60)
    assert len(fired.all) == count
    assert looker.raw.hgetall("taskq:schedules") == {}


async def test_a_schedule_of_the_code_is_paused_before_a_scheduler_starts(
    app: TaskQ, start: Runner, clock: Clock
) -> None:
    """So a restart does not end the pause. It cannot be removed."""

    @app.periodic("* * * * * *", id="beat")
    @app.task(name="beat")
    def beat() -> None: ...

    inspector, fired = Inspector(app), Fired()
    first = await start()
    await clock.advance(2)
    inspector.pause_schedule("beat")
    await start.stop(first)

    await start(listener=fired)
    await clock.advance(10)

    assert fired.all == []
    with pytest.raises(ConfigurationError, match="'beat' is declared in code or in a table"):
        inspector.remove_schedule("beat")


def test_a_schedule_that_cannot_be_stored_is_refused(app: TaskQ) -> None:
    inspector = Inspector(app)
    task = app.remote("report")
    inspector.add_schedule(PeriodicTask("@hourly", task, id="a"))

    with pytest.raises(ConfigurationError, match=r"there is already a schedule 'a'; pass replace=True"):
        inspector.add_schedule(PeriodicTask("@daily", task, id="a"))
    with pytest.raises(ConfigurationError, match="cannot have the option deadline="):
        inspector.add_schedule(PeriodicTask("@daily", task, id="b", deadline=datetime(2090, 1, 1, tzinfo=UTC)))
    with pytest.raises(ConfigurationError, match="give the options of task 'report' to PeriodicTask"):
        inspector.add_schedule(PeriodicTask("@daily", task.using(queue="low"), id="b"))
    with pytest.raises(EntryNotFoundError, match="'aa'"):
        inspector.pause_schedule("aa")

    inspector.add_schedule(PeriodicTask("@daily", task, id="a"), replace=True)
    assert [(each.id, each.spec, each.name) for each in inspector.scheduler_entries()] == [("a", "@daily", "report")]


async def test_programs_with_and_without_the_task_fire_an_added_schedule_once(
    app: TaskQ, start: Runner, looker: Looker, redis_server: RedisServer, clock: Clock
) -> None:
    """Its queue is that of the task where it was added, also for a scheduler that does not know the task."""
    author = TaskQ(redis_server.unix_url)

    @author.task(name="report", queue="low", max_retry=7, timeout=90)
    def report() -> None: ...

    Inspector(author).add_schedule(PeriodicTask("@every 10s", report, id="sales"))
    author.close()
    await start()
    await clock.advance(25)

    assert looker.pending("default") == []
    assert {(each.type, each.retry) for each in looker.pending("low")} == {("report", 7)}


async def test_a_listing_shows_the_changed_schedule(app: TaskQ, start: Runner, clock: Clock) -> None:
    """It shows the change even before the schedulers have announced it."""
    inspector, task = Inspector(app), app.remote("report")
    inspector.add_schedule(PeriodicTask("@hourly", task.s(day=1), id="a"))
    await start()
    await clock.advance(15)
    assert inspector.scheduler_entries()[0].next_run_at is not None

    inspector.add_schedule(PeriodicTask("@daily", task.s(day=2), id="a"), replace=True)

    (shown,) = inspector.scheduler_entries()
    assert (shown.spec, shown.payload, shown.is_removable) == ("@daily", b'{"day":2}', True)


def test_only_one_of_several_concurrent_adds_of_an_id_succeeds(app: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector, task = Inspector(app), app.remote("report")
    inspector.add_schedule(PeriodicTask("@hourly", task, id="a"))
    monkeypatch.setattr(schedules, "scheduler_entries", lambda keys: _nothing())  # read before the other has written

    with pytest.raises(ConfigurationError, match="was just added by another program"):
        inspector.add_schedule(PeriodicTask("@daily", task, id="a"))
    monkeypatch.undo()
    assert inspector.scheduler_entries()[0].spec == "@hourly"


def _nothing() -> Iterator[Any]:
    yield from ()
    return []


async def test_an_invalid_added_schedule_does_not_block_others(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    Inspector(app).add_schedule(PeriodicTask("* * * * * *", app.remote("beat"), id="beat"))
    redis_server.client.hset("taskq:schedules", "entry:bad", b'{"spec":"never"}')
    fired = Fired()
    await start(listener=fired)
    await clock.advance(5)

    assert fired.outcomes("beat")
    assert "schedule bad, which was added at run time, is skipped" in caplog.text
