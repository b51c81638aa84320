"""Schedules that are added, paused, resumed and removed while a scheduler runs."""

from datetime import UTC, datetime, timedelta

import pytest

from taskq_core import ConfigurationError, PeriodicTask, TaskQ
from taskq_core.errors import EntryNotFoundError
from taskq_core.inspector import Inspector
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.scheduler.conftest import Fired, Looker, Runner


async def test_a_schedule_is_added_paused_resumed_and_removed(
    app: TaskQ, start: Runner, looker: Looker, clock: Clock
) -> None:
    """The task has the payload and the options of the schedule; what is missed meanwhile is not caught up."""

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


def test_what_cannot_be_stored_is_refused(app: TaskQ) -> None:
    inspector = Inspector(app)
    task = app.remote("report")
    inspector.add_schedule(PeriodicTask("@hourly", task, id="a"))

    with pytest.raises(ConfigurationError, match=r"a schedule 'a' already; pass replace=True"):
        inspector.add_schedule(PeriodicTask("@daily", task, id="a"))
    with pytest.raises(ConfigurationError, match="cannot have the option deadline="):
        inspector.add_schedule(PeriodicTask("@daily", task, id="b", deadline=datetime(2090, 1, 1, tzinfo=UTC)))
    with pytest.raises(ConfigurationError, match="give the options of task 'report' to PeriodicTask"):
        inspector.add_schedule(PeriodicTask("@daily", task.using(queue="low"), id="b"))
    with pytest.raises(EntryNotFoundError, match="'aa'"):
        inspector.pause_schedule("aa")

    inspector.add_schedule(PeriodicTask("@daily", task, id="a"), replace=True)
    assert [(each.id, each.spec, each.name) for each in inspector.scheduler_entries()] == [("a", "@daily", "report")]


async def test_an_added_schedule_that_cannot_be_used_holds_up_no_other(
    app: TaskQ, start: Runner, redis_server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    Inspector(app).add_schedule(PeriodicTask("* * * * * *", app.remote("beat"), id="beat"))
    redis_server.client.hset("taskq:schedules", "entry:bad", b'{"spec":"never"}')
    fired = Fired()
    await start(listener=fired)
    await clock.advance(5)

    assert fired.outcomes("beat")
    assert "schedule bad, which was added at run time, is skipped" in caplog.text
