"""Test a scheduler that follows a table of periodic tasks: the changes it picks up, its reports, and failures."""

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from taskq_core import TaskQ
from taskq_core.scheduler import Scheduler, SchedulerConfig
from taskq_core.tasks.periodic import EntryRuns, FiringOutcome, PeriodicTask
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.scheduler.conftest import HOUR, PATIENCE_S, Fired, Looker, Runner, until

ENQUEUED = FiringOutcome.ENQUEUED


class Table:
    """A table in memory."""

    every_s = 2.0

    def __init__(self, *entries: PeriodicTask) -> None:
        self.entries = list(entries)
        self.version = 0
        self.reads = 0
        self.trouble: Exception | None = None
        self.refuses_runs = False
        self.hangs: dict[str, threading.Event] = {}
        self.hanging = 0
        self.totals: dict[str, int] = {}
        self.lasts: dict[str, datetime] = {}
        self.noting = threading.Lock()  # a call that was given up goes on beside the next
        self.next_noted = 0
        self.watchers: list[Callable[[], None]] = []

    def set(self, *entries: PeriodicTask) -> None:
        self.entries = list(entries)
        self.version += 1

    def hang(self, what: str) -> threading.Event:
        """Let calls hang until the event is set: those by which the table is "read", or "written"."""
        self.hangs[what] = event = threading.Event()
        return event

    def _answer(self, what: str) -> None:
        if event := self.hangs.get(what):
            self.hanging += 1
            event.wait(600)
            self.hanging -= 1
        if self.trouble is not None:
            raise self.trouble

    def read(self, last_version: object) -> tuple[object, list[PeriodicTask]] | None:
        self._answer("read")
        self.reads += 1
        return None if last_version == self.version else (self.version, self.entries)

    def record(self, runs: Sequence[EntryRuns]) -> None:
        self._answer("written")
        if self.refuses_runs:
            raise OSError("read-only")
        with self.noting:
            for each in runs:
                known = self.lasts.get(each.run_key)
                if known is None or known < each.last:
                    self.totals[each.run_key] = self.totals.get(each.run_key, 0) + each.count
                    self.lasts[each.run_key] = each.last

    def record_next_firings(self) -> None:
        self._answer("written")
        self.next_noted += 1

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(changed)
        return lambda: self.watchers.remove(changed)


@pytest.fixture(autouse=True)
def _in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is under way when a scheduler ends has its time."""
    monkeypatch.setattr("taskq_core.scheduler.follower.FINISH_S", PATIENCE_S)
    monkeypatch.setattr("taskq_core.scheduler.leader.ENDING_S", PATIENCE_S)


@pytest.fixture
def work(app: TaskQ) -> "Callable[..., PeriodicTask]":
    @app.task(name="work")
    def work() -> None: ...

    def entry(spec: str = "* * * * * *", key: str = "1", is_paused: bool = False, **options: object) -> PeriodicTask:
        entry = PeriodicTask(spec, work.s(), id=f"row#{key}", **options)  # type: ignore[arg-type]
        entry.run_key, entry.is_paused = key, is_paused
        return entry

    return entry


async def test_the_scheduler_follows_changes_of_the_table(
    app: TaskQ, start: Runner, looker: Looker, work: Callable[..., PeriodicTask], clock: Clock
) -> None:
    table = Table()
    app.timetable.tables.append(table)
    fired = Fired()
    scheduler = await start(listener=fired)
    await clock.advance(3)
    await until(lambda: table.reads > 1)
    assert scheduler.entry_count == 0

    table.set(work())
    await clock.advance(6)
    await until(lambda: len(fired.outcomes("row#1")) >= 2)
    table.set(work(key="2"))
    await clock.advance(6)
    await until(lambda: fired.outcomes("row#2"))
    last = max(at_s for entry_id, at_s, _ in fired.all if entry_id == "row#1")
    await clock.advance(4)

    assert {each for each, _, _ in fired.all} == {"row#1", "row#2"}
    assert max(at_s for entry_id, at_s, _ in fired.all if entry_id == "row#1") == last
    assert scheduler.entry_count == 1


async def test_every_run_and_the_next_firing_are_recorded_in_the_table(
    app: TaskQ, start: Runner, looker: Looker, work: Callable[..., PeriodicTask], clock: Clock
) -> None:
    table = Table(work())
    app.timetable.tables.append(table)
    fired = Fired()
    scheduler = await start(listener=fired)
    await clock.advance(6)
    await until(lambda: len(fired.all) >= 3 and table.next_noted >= 1)
    await start.stop(scheduler)

    assert table.totals == {"1": len(fired.all)} == {"1": len(looker.pending())}
    assert table.lasts == {"1": datetime.fromtimestamp(fired.all[-1][1], UTC)}
    assert table.watchers == []


async def test_a_change_in_this_process_applies_at_once(
    app: TaskQ, start: Runner, work: Callable[..., PeriodicTask]
) -> None:
    """The scheduler does not wait for its next read of the table."""
    table = Table()
    table.every_s = 600
    app.timetable.tables.append(table)
    scheduler = await start()
    await until(lambda: table.watchers and table.reads == 1)

    table.set(work())
    await asyncio.to_thread(table.watchers[0])

    await until(lambda: scheduler.entry_count == 1)


async def test_a_paused_entry_enqueues_nothing_and_has_no_catch_up(
    app: TaskQ, start: Runner, looker: Looker, work: Callable[..., PeriodicTask], clock: Clock
) -> None:
    """Its mark moves on, so that no scheduler, whenever it starts, takes the firings for missed ones."""
    table = Table(work(is_paused=True, catch_up="all"), work(key="2"))
    app.timetable.tables.append(table)
    fired = Fired()
    await start(listener=fired)
    begun_s = looker.now_s()
    await clock.advance(6)
    await until(lambda: len(fired.outcomes("row#2")) >= 3)
    assert fired.outcomes("row#1") == []
    assert looker.mark(table.entries[0]) > begun_s
    await until(lambda: [each.id for each in looker.entries()] == ["row#2"], "shown, and again after it expired")
    await until(lambda: table.totals)
    assert table.totals.keys() == {"2"}

    passed_s = looker.mark(table.entries[0])
    table.set(work(catch_up="all"), work(key="2"))
    await clock.advance(6)
    await until(lambda: fired.outcomes("row#1"))

    assert min(each for entry_id, each, _ in fired.all if entry_id == "row#1") > passed_s


async def test_missed_firings_of_a_paused_entry_are_omitted(
    app: TaskQ, start: Runner, looker: Looker, work: Callable[..., PeriodicTask], clock: Clock
) -> None:
    paused = work(is_paused=True, catch_up="all", window=9 * HOUR)
    looker.set_mark(paused, looker.now_s() - HOUR)
    table = Table(paused)
    app.timetable.tables.append(table)
    fired = Fired()
    await start(listener=fired)

    await clock.advance(2)
    await until(lambda: looker.mark(paused) >= looker.now_s() - 1)

    assert looker.pending() == []
    assert fired.all == []


async def test_no_firing_waits_for_a_table_that_fails(
    app: TaskQ,
    start: Runner,
    looker: Looker,
    work: Callable[..., PeriodicTask],
    caplog: pytest.LogCaptureFixture,
    clock: Clock,
) -> None:
    """The failure is logged once. Firings in between are counted afterwards, and changes are picked up."""
    table = Table(work())
    app.timetable.tables.append(table)
    fired = Fired()
    scheduler = await start(listener=fired)
    await clock.advance(3)
    await until(lambda: len(fired.all) >= 1)
    with caplog.at_level(logging.WARNING, logger="taskq.scheduler"):
        table.trouble = OSError("the database is away")
        count = len(fired.all)
        await clock.advance(10)
        await until(lambda: len(fired.all) >= count + 3 and "cannot read the table" in caplog.text)
        table.entries = [work(), work("@every 1h", "2")]
        table.version += 1
        table.trouble = None
        await clock.advance(40)
        await until(lambda: scheduler.entry_count == 2)
    await start.stop(scheduler)

    said = [each.getMessage() for each in caplog.records if "table of periodic tasks" in each.getMessage()]
    assert (
        said.count(
            "cannot read the table of periodic tasks: the database is away; the entries of the last read stay in force"
        )
        == 1
    )
    assert said.count("the scheduler can read the table of periodic tasks again") == 1
    assert table.totals["1"] == len(fired.all) == len(looker.pending())


async def test_a_scheduler_starts_without_its_table(
    app: TaskQ, start: Runner, looker: Looker, work: Callable[..., PeriodicTask], clock: Clock
) -> None:
    """It does what it knows of, and catches up with the rows as each says once it can read them."""
    row = work("@every 1h", "2")
    looker.set_mark(row, looker.now_s() - HOUR)
    table = Table(row)
    table.trouble = OSError("the database is away")
    app.timetable.tables.append(table)
    app.schedule("* * * * * *", app.tasks["work"], id="own")  # type: ignore[arg-type]  # registered by the fixture
    fired = Fired()
    await start(listener=fired)
    await clock.advance(10)
    await until(lambda: len(fired.outcomes("own")) >= 2)
    assert fired.outcomes("row#2") == []

    table.trouble = None
    await clock.advance(40)
    await until(lambda: fired.outcomes("row#2") == [ENQUEUED])

    await until(lambda: table.totals == {"2": 1})


@pytest.mark.parametrize("what", ["read", "written"])
async def test_no_firing_waits_for_a_table_that_hangs(
    app: TaskQ,
    start: Runner,
    work: Callable[..., PeriodicTask],
    caplog: pytest.LogCaptureFixture,
    what: str,
    clock: Clock,
) -> None:
    """The scheduler waits for a call, gives up on a call that never returns, and the next call works."""
    table = Table(work())
    app.timetable.tables.append(table)
    fired = Fired()
    scheduler = await start(listener=fired)
    await clock.advance(3)
    await until(lambda: len(fired.all) >= 1)
    waited_for = table.hang(what)
    await until(lambda: table.hanging == 1, "a call hangs", meanwhile=lambda: clock.skip(0.5))
    count = len(fired.all)
    await clock.advance(5)
    await until(lambda: len(fired.all) >= count + 2)
    assert table.hanging == 1
    assert "did not end" not in caplog.text

    given_up = table.hang(what)
    waited_for.set()
    verb = "read" if what == "read" else "write"
    told = rf"cannot {verb} the table .* did not end within 30 s"
    await until(lambda: re.search(told, caplog.text) and table.hanging == 1, meanwhile=lambda: clock.skip(0.5))
    table.hangs.clear()
    table.set(work("@every 1h", "2"))
    await clock.advance(40)
    await until(lambda: scheduler.entry_count == 1 and f"the scheduler can {verb} the table" in caplog.text)

    assert table.hanging == 1, "the thread of the call that was given up is still in it"
    assert await start.stop(scheduler) == 0
    given_up.set()


async def test_the_next_leader_records_runs_that_the_last_one_did_not(
    app: TaskQ,
    start: Runner,
    looker: Looker,
    redis_server: RedisServer,
    work: Callable[..., PeriodicTask],
    clock: Clock,
) -> None:
    """The new leader does not wait for its next firing."""
    entry = work("@every 1h")
    looker.set_mark(entry, looker.now_s() - HOUR)
    table = Table(entry)
    app.timetable.tables.append(table)
    fired = Fired()
    first = Scheduler(app, SchedulerConfig(), listener=fired)
    table.refuses_runs = True
    running = asyncio.create_task(first.arun())
    await until(lambda: fired.outcomes("row#1") == [ENQUEUED])
    first.stop()
    assert await running == 0
    assert table.totals == {}
    table.refuses_runs = False

    await start()
    await clock.advance(5)
    await until(lambda: table.totals == {"1": 1})

    assert len(looker.pending()) == 1


async def test_a_firing_without_a_run_is_not_counted_and_advances_the_next_firing(
    app: TaskQ, start: Runner, looker: Looker, work: Callable[..., PeriodicTask], clock: Clock
) -> None:
    """An example is a firing whose id is taken by the task of an earlier firing."""
    table = Table(work(task_id="one"))
    app.timetable.tables.append(table)
    fired = Fired()
    await start(listener=fired)
    await clock.advance(6)
    await until(lambda: len(fired.all) >= 3)
    noted = table.next_noted
    await clock.advance(6)
    await until(lambda: table.next_noted > noted)

    assert fired.outcomes("row#1")[:3] == [ENQUEUED, FiringOutcome.ID_TAKEN, FiringOutcome.ID_TAKEN]
    assert table.totals == {"1": 1}


async def test_a_scheduler_records_all_runs_at_its_end(
    app: TaskQ, start: Runner, looker: Looker, work: Callable[..., PeriodicTask]
) -> None:
    """The scheduler first repeats the report of a scheduler that died, and then sends newer reports."""
    entry = work("@every 1h")
    now_s = looker.now_s()
    looker.set_mark(entry, now_s - HOUR)
    looker.raw.hset(looker.keys.queue("default").runs, "1", f"2:{now_s - 60}:5:{now_s - 120}")
    table = Table(entry)
    table.refuses_runs = True
    app.timetable.tables.append(table)
    fired = Fired()
    scheduler = await start(listener=fired)
    await until(lambda: fired.outcomes("row#1") == [ENQUEUED])
    table.refuses_runs = False

    await start.stop(scheduler)

    assert table.totals == {"1": 5 + 2 + 1}


async def test_repeated_runs_are_counted_once(
    app: TaskQ, start: Runner, looker: Looker, work: Callable[..., PeriodicTask], clock: Clock
) -> None:
    """The table noted them, and the scheduler died before it could say so to Redis."""
    entry = work("@every 1h")
    looker.set_mark(entry, looker.now_s() - HOUR)
    table = Table(entry)
    app.timetable.tables.append(table)
    key = looker.keys.queue("default").runs
    last_s = looker.now_s() - timedelta(hours=3).seconds
    table.totals, table.lasts = {"1": 5}, {"1": datetime.fromtimestamp(last_s, UTC)}
    looker.raw.hset(key, "1", f"0:0:5:{last_s}")

    await start()
    await clock.advance(5)
    await until(lambda: table.totals != {"1": 5})
    await until(lambda: not looker.raw.exists(key))

    assert table.totals == {"1": 6}
