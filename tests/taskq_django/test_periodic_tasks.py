"""Test periodic tasks in the database: validation of rows, and their pickup by a scheduler."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import connection, transaction

from taskq_core.scheduler import Scheduler, SchedulerConfig, SchedulerListener, follower, leader
from taskq_core.service.calls import Caller
from taskq_core.tasks.periodic import EntryRuns, Firing, FiringOutcome
from taskq_django import task, taskq
from taskq_django.models import PeriodicTask
from taskq_django.schedule_table import EVERY_S, MISSING_S, DatabaseSchedule
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.depot.models import Parcel


@task(name="periodic:send")
def send(parcel: Parcel, after: date | None = None) -> None: ...


def make(name: str = "hello", **given: Any) -> PeriodicTask:
    standard = {"task": "shop:greet", "kwargs": {"name": "Ada"}, "cron": "" if "interval" in given else "* * * * * *"}
    return PeriodicTask.objects.create(name=name, **{**standard, **given})


amake = sync_to_async(make)


def wrong(**given: Any) -> dict[str, list[str]]:
    """Return the errors that `full_clean` reports for a row."""
    standard = {"name": "x", "task": "shop:greet", "kwargs": {"name": "Ada"}}
    if "interval" not in given:
        standard["cron"] = "0 9 * * *"
    with pytest.raises(ValidationError) as caught:
        PeriodicTask(**{**standard, **given}).full_clean()
    return caught.value.message_dict


class TestRules:
    """The core's errors are reported for each field."""

    pytestmark = pytest.mark.django_db

    @rows(
        ("given", "field", "expected"),
        [
            ({"cron": "0 0 30 2 *"}, "cron", "it never fires"),
            ({"cron": "61 * * * *"}, "cron", "minute: '61' is outside 0 to 59"),
            ({"cron": ""}, "cron", "give either a cron line or an interval"),
            ({"interval": timedelta(0)}, "interval", "from 1 second"),
            ({"time_zone": "Mars/Base"}, "time_zone", "no time zone 'Mars/Base'"),
            ({"task": "shop:gret"}, "task", "did you mean 'shop:greet'?"),
            ({"kwargs": {"nam": "Ada"}}, "kwargs", "name"),
            ({"options": {"max_retry": "many"}}, "options", "max_retry must be a whole number"),
            ({"queue": "\n"}, "queue", "queue name"),
            ({"catch_up_window": timedelta(-1)}, "catch_up_window", "must be 0 or more"),
            (
                {"start_at": datetime(2030, 1, 2, tzinfo=UTC), "expire_at": datetime(2030, 1, 1, tzinfo=UTC)},
                "expire_at",
                "start must be before expire",
            ),
            ({"expire_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expire_at", "it never fires before it expires"),
        ],
    )
    def test_an_error_names_its_field(self, given: dict[str, Any], field: str, expected: str) -> None:
        found = wrong(**given)

        assert list(found) == [field]
        assert expected in found[field][0]

    def test_names_are_unique(self) -> None:
        make("daily")

        assert "name" in wrong(name="daily")

    def test_a_task_of_another_program_must_be_declared(self) -> None:
        row = PeriodicTask(name="x", task="go:report", is_remote=True, cron="@daily", kwargs={"any": 1})

        row.full_clean()

        assert "declared remote" in wrong(task="go:report")["task"][0]

    def test_an_instance_of_a_model_is_given_by_its_primary_key(self) -> None:
        kwargs = {"parcel": 7, "after": "2030-01-31"}
        row = PeriodicTask(name="x", task="periodic:send", cron="@daily", kwargs=kwargs)

        row.full_clean()

        assert row.entry.payload == b'{"parcel":7,"after":"2030-01-31"}'
        assert "kwargs" in wrong(task="periodic:send", kwargs={"parcel": "seven"})

    def test_a_row_that_ended_can_still_be_edited(self) -> None:
        row = make(expire_at=datetime(2020, 1, 1, tzinfo=UTC))

        row.description = "it was fine"
        row.full_clean()

        assert row.upcoming() == []

    def test_an_interval_starts_at_the_creation_of_the_row(self) -> None:
        row = make(interval=timedelta(seconds=90), created_at=datetime(2030, 1, 1, tzinfo=UTC))

        assert row.upcoming(2, after=datetime(2030, 1, 1, 0, 2, tzinfo=UTC)) == [
            datetime(2030, 1, 1, 0, 3, tzinfo=UTC),
            datetime(2030, 1, 1, 0, 4, 30, tzinfo=UTC),
        ]

    @pytest.mark.django_db(transaction=True)
    def test_rows_work_in_a_project_without_time_zones(self, settings: Any) -> None:
        """Naive times are in the time zone of the setting `TIME_ZONE`."""
        settings.USE_TZ, settings.TIME_ZONE = False, "Europe/Berlin"
        row = make(interval=timedelta(hours=1), start_at=datetime(2030, 1, 1, 12), created_at=datetime(2030, 1, 1))  # noqa: DTZ001

        assert row.upcoming(1, after=datetime(2030, 1, 1, 12, 30)) == [datetime(2030, 1, 1, 12, tzinfo=UTC)]  # noqa: DTZ001
        table = DatabaseSchedule()
        table.record([EntryRuns(run_key=row.row.run_key, count=2, last=datetime(2030, 1, 1, 12, tzinfo=UTC))])
        row.refresh_from_db()
        assert (row.last_run_at, row.total_runs) == (datetime(2030, 1, 1, 13), 2)  # noqa: DTZ001


class TestSaving:
    pytestmark = pytest.mark.django_db

    def test_saving_a_row_keeps_the_fields_that_schedulers_write(self) -> None:
        """A form that was open during a run does not reset the count of runs."""
        row = make()
        opened = PeriodicTask.objects.get()
        PeriodicTask.objects.update(total_runs=7, last_run_at=datetime(2030, 1, 1, tzinfo=UTC))

        opened.description = "edited"
        opened.save()

        row.refresh_from_db()
        assert (row.description, row.total_runs) == ("edited", 7)
        row.total_runs = 0
        row.save(update_fields=["total_runs"])
        assert PeriodicTask.objects.get().total_runs == 0

    def test_saving_a_row_with_deferred_columns_keeps_them(self) -> None:
        make(description="kept")
        part = PeriodicTask.objects.only("name").get()
        PeriodicTask.objects.update(description="of somebody else")

        part.name = "other"
        part.save()

        row = PeriodicTask.objects.get()
        assert (row.name, row.description) == ("other", "of somebody else")


class Fired(SchedulerListener):
    """Records what a scheduler enqueued."""

    def __init__(self) -> None:
        self.all: list[tuple[str, int]] = []

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        assert outcome is FiringOutcome.ENQUEUED, error
        self.all.append((firing.entry.id, int(firing.at.timestamp())))

    def of(self, row: PeriodicTask) -> list[int]:
        """Return the scheduled seconds for which tasks of a row were enqueued."""
        return [at_s for entry, at_s in self.all if entry == f"{row.name}#{row.pk}"]


@asynccontextmanager
async def scheduling(clock: Clock, listener: SchedulerListener) -> AsyncIterator[Scheduler]:
    """Run the project's scheduler until the end of the block."""
    clock.settle_waits_for(Caller, "__call__")  # the scheduler reads and writes the table in threads
    scheduler = Scheduler(taskq, SchedulerConfig(), listener=listener)
    running = asyncio.create_task(scheduler.arun())
    await clock.advance(1)
    try:
        yield scheduler
    finally:
        scheduler.stop()
        await running


def rows_of(table: DatabaseSchedule, seen: object) -> tuple[object, list[str]]:
    """Read a table that has changed since `seen`. Return the new version and the names of its entries."""
    found = table.read(seen)
    assert found is not None
    return found[0], [entry.id.partition("#")[0] for entry in found[1]]


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fix the polling interval and count the last runs, however slow the database is."""
    monkeypatch.setattr(follower, "LONGEST_PAUSE_S", EVERY_S)
    monkeypatch.setattr(follower, "FINISH_S", 60.0)
    monkeypatch.setattr(leader, "ENDING_S", 60.0)


@pytest.mark.redis
@pytest.mark.usefixtures("steady")
@pytest.mark.django_db(transaction=True)
class TestScheduling:
    async def test_runs_are_counted_and_the_next_run_is_stored(self, redis: RedisServer, clock: Clock) -> None:
        """Entries from code remain."""
        row = await amake(cron="* * * * *")
        daily = await amake("daily", cron="@daily", start_at=datetime(2100, 1, 1, tzinfo=UTC))
        off = await amake("off", enabled=False)
        taskq.schedule("* * * * *", taskq.tasks["shop:restock"].s(sku="x"), id="of the code")  # type: ignore[attr-defined]
        fired = Fired()
        try:
            async with scheduling(clock, fired) as scheduler:
                assert scheduler.entry_count == 4, "three rows and one of the code"
                await clock.advance(180)
        finally:
            taskq.unschedule("of the code")
        for each in (row, daily, off):
            await each.arefresh_from_db()

        runs = fired.of(row)
        assert len(runs) >= 3
        assert runs == list(range(runs[0], runs[-1] + 60, 60)), "each minute once"
        assert [at_s for entry, at_s in fired.all if entry == "of the code"] == runs
        assert row.total_runs == len(runs)
        assert row.last_run_at == datetime.fromtimestamp(runs[-1], UTC)
        latest = datetime.fromtimestamp(clock.time(), UTC) + timedelta(minutes=1)
        assert row.last_run_at < row.next_run_at <= latest, "not the first run after the recorded one"
        assert (daily.total_runs, daily.last_run_at, daily.next_run_at) == (0, None, daily.upcoming(1)[0])
        assert (off.total_runs, off.next_run_at) == (0, None)

    async def test_a_running_scheduler_applies_changed_rows(self, redis: RedisServer, clock: Clock) -> None:
        """This includes changes without a signal: a disabled row stops enqueueing, and a deleted row is forgotten."""
        first = await amake("first")
        fired = Fired()
        async with scheduling(clock, fired) as scheduler:
            await clock.advance(10)
            assert fired.of(first)
            await PeriodicTask.objects.filter(pk=first.pk).aupdate(enabled=False)
            await PeriodicTask.objects.abulk_create(
                [PeriodicTask(name="bulk", task="shop:restock", kwargs={"sku": "x"}, cron="* * * * * *")]
            )
            await clock.advance(2 * EVERY_S)
            count, bulk = len(fired.of(first)), await PeriodicTask.objects.aget(name="bulk")
            await clock.advance(5)
            assert len(fired.of(bulk)) >= 5
            await PeriodicTask.objects.filter(pk=bulk.pk).adelete()
            await clock.advance(2 * EVERY_S)

            assert scheduler.entry_count == 1
            assert len(fired.of(first)) == count


@pytest.mark.django_db(transaction=True)
class TestReading:
    def test_the_scheduler_notices_every_kind_of_change(self) -> None:
        """This includes changes without a signal: bulk operations and SQL."""
        table = DatabaseSchedule()
        seen, names = rows_of(table, None)
        assert names == []
        make("first")
        seen, names = rows_of(table, seen)
        assert names == ["first"]
        PeriodicTask.objects.bulk_create(
            [PeriodicTask(name=name, task="shop:restock", kwargs={"sku": "x"}, cron="@daily") for name in ("b1", "b2")]
        )
        seen, names = rows_of(table, seen)
        assert names == ["first", "b1", "b2"]

        with connection.cursor() as cursor:
            cursor.execute("UPDATE taskq_django_periodictask SET cron = '*/5 * * * *' WHERE name = 'b1'")
        found = table.read(seen)
        assert found is not None
        assert found[1][1].spec == "*/5 * * * *"

        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM taskq_django_periodictask WHERE name <> 'first'")
        assert rows_of(table, found[0])[1] == ["first"]

    def test_an_invalid_row_does_not_affect_others(self, caplog: pytest.LogCaptureFixture) -> None:
        """The error is logged once, however often the table is read. The row works as soon as it is repaired."""
        broken = make("broken", kwargs={})
        make("good")
        table = DatabaseSchedule()
        seen, names = rows_of(table, None)
        assert names == ["good"]
        make("another", cron="@daily")
        seen, names = rows_of(table, seen)
        assert names == ["good", "another"]
        PeriodicTask.objects.filter(pk=broken.pk).update(kwargs={"name": "Ada"})
        assert rows_of(table, seen)[1] == ["broken", "good", "another"]

        (message,) = [each.getMessage() for each in caplog.records if "broken" in each.getMessage()]
        assert "periodic task 'broken' is invalid and is skipped: task 'shop:greet', parameter 'name'" in message

    def test_a_table_that_is_created_later_is_read(self, clock: Clock, django_assert_num_queries: Any) -> None:
        """While the table is missing, the scheduler checks rarely whether it exists."""
        with connection.schema_editor() as editor:
            editor.delete_model(PeriodicTask)
        try:
            table = DatabaseSchedule()
            assert table.read(None) == (0, [])
            with django_assert_num_queries(0):
                assert table.read(0) is None
                table.record_next_firings()
        finally:
            with connection.schema_editor() as editor:
                editor.create_model(PeriodicTask)
        make("late", cron="@daily")
        assert table.read(0) is None, "it is looked for once a minute"

        clock.skip(MISSING_S)

        assert rows_of(table, 0)[1] == ["late"]


@pytest.mark.django_db(transaction=True)
class TestTable:
    def test_polling_an_unchanged_table_takes_one_query(self, django_assert_num_queries: Any) -> None:
        make()
        table = DatabaseSchedule()
        first = table.read(None)
        assert first is not None

        with django_assert_num_queries(1):
            assert table.read(first[0]) is None
        PeriodicTask.objects.update(total_runs=5, description="told to people alone")
        assert table.read(first[0]) is None

    def test_a_database_that_the_router_excludes_is_not_queried(
        self, settings: Any, django_assert_num_queries: Any
    ) -> None:
        make()
        settings.DATABASE_ROUTERS = ["tests.taskq_django.test_checks.NotHere"]
        try:
            table = DatabaseSchedule()
            with django_assert_num_queries(0):
                assert table.read(None) == (0, [])
                table.record([])
                table.record_next_firings()
        finally:
            settings.DATABASE_ROUTERS = []

    def test_repeated_reports_of_a_run_are_counted_once(self) -> None:
        row = make()
        table = DatabaseSchedule()
        noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
        first = EntryRuns(run_key=row.row.run_key, count=3, last=noon)
        second = EntryRuns(run_key=row.row.run_key, count=2, last=noon + timedelta(minutes=1))

        for runs in (first, first, second, first, second):
            table.record([runs])

        row.refresh_from_db()
        assert (row.total_runs, row.last_run_at) == (5, second.last)

    def test_runs_of_another_database_do_not_count_for_a_row_with_the_same_key(self) -> None:
        """Such runs come from another project on the same queue, or from an earlier database."""
        row = make()
        other = EntryRuns(run_key=f"{row.pk}-1", count=3, last=datetime(2030, 1, 1, tzinfo=UTC))

        DatabaseSchedule().record([other, EntryRuns(run_key="999-5", count=1, last=other.last)])

        row.refresh_from_db()
        assert row.total_runs == 0

    def test_a_change_in_this_process_is_announced_after_the_commit(self) -> None:
        announced: list[int] = []
        stop = DatabaseSchedule().watch(lambda: announced.append(PeriodicTask.objects.count()))
        try:
            with transaction.atomic():
                row = make()
                assert announced == []
            assert announced == [1]
            row.delete()
            assert announced == [1, 0]
        finally:
            stop()
        make("after the end")
        assert announced == [1, 0]
