"""Periodic tasks in the database: what a row may say, and how schedulers of this process and of others take it up."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections, transaction

from taskq_core.periodic import EntryRuns, Firing, FiringOutcome
from taskq_core.scheduler import Scheduler, SchedulerConfig, SchedulerListener, follower, leader
from taskq_django import task, taskq
from taskq_django.models import PeriodicTask
from taskq_django.schedule_table import DatabaseSchedule
from tests.postgres_server import PostgresServer, find_postgres
from tests.redis_server import RedisServer
from tests.taskq_django.depot.models import Parcel

PATIENCE_S = 60.0
NEEDS_POSTGRES = pytest.mark.skipif(find_postgres() is None, reason="no PostgreSQL on this machine")


@task(name="periodic:send")
def send(parcel: Parcel, after: date | None = None) -> None: ...


def until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.01)
    return value


def make(name: str = "hello", **given: Any) -> PeriodicTask:
    standard = {"task": "shop:greet", "kwargs": {"name": "Ada"}, "cron": "" if "interval" in given else "* * * * * *"}
    return PeriodicTask.objects.create(name=name, **{**standard, **given})


def wrong(**given: Any) -> dict[str, list[str]]:
    """Return what `full_clean` says of a row."""
    standard = {"name": "x", "task": "shop:greet", "kwargs": {"name": "Ada"}}
    if "interval" not in given:
        standard["cron"] = "0 9 * * *"
    with pytest.raises(ValidationError) as caught:
        PeriodicTask(**{**standard, **given}).full_clean()
    return caught.value.message_dict


class Running(SchedulerListener):
    """A scheduler of the project in a thread, and what it has enqueued."""

    def __init__(self) -> None:
        self.fired_all: list[tuple[str, int, FiringOutcome]] = []
        self._started = threading.Event()
        self._scheduler: Scheduler | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        async def run() -> None:
            self._scheduler = Scheduler(taskq, SchedulerConfig(leader_lease=1), listener=self)
            await self._scheduler.arun()

        asyncio.run(run())

    def started(self, scheduler: Any) -> None:
        self._started.set()

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        self.fired_all.append((firing.entry.id, int(firing.at.timestamp()), outcome))

    def of(self, row: PeriodicTask) -> list[int]:
        """Seconds for which a row's tasks were enqueued."""
        name = f"{row.name}#{row.pk}"
        return [at_s for entry, at_s, outcome in self.fired_all if (entry, outcome) == (name, FiringOutcome.ENQUEUED)]

    def knows(self) -> int:
        assert self._scheduler is not None
        return self._scheduler.entry_count

    def __enter__(self) -> "Running":
        self._thread.start()
        assert self._started.wait(PATIENCE_S)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._scheduler is not None
        self._scheduler.stop()
        self._thread.join(PATIENCE_S)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is looked at many times a second, however slow it is, and what is under way at the end has its time."""
    (table,) = taskq.timetable.tables
    monkeypatch.setattr(table, "every_s", 0.05)
    monkeypatch.setattr(follower, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(follower, "FAREWELL_S", PATIENCE_S)
    monkeypatch.setattr(leader, "ENDING_S", PATIENCE_S)


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.create("periodic")
        yield server


@contextmanager
def default_database(database: dict[str, Any]) -> Iterator[None]:
    """Let another database take the place of the default one, in all threads."""
    connection.close()
    kept = connections.settings[DEFAULT_DB_ALIAS]
    configured = connections.configure_settings({DEFAULT_DB_ALIAS: database})[DEFAULT_DB_ALIAS]
    connections.settings[DEFAULT_DB_ALIAS] = configured
    own = connections[DEFAULT_DB_ALIAS]
    del connections[DEFAULT_DB_ALIAS]
    try:
        yield
    finally:
        connections[DEFAULT_DB_ALIAS].close()
        connections.settings[DEFAULT_DB_ALIAS] = kept
        connections[DEFAULT_DB_ALIAS] = own


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=NEEDS_POSTGRES)])
def database(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[str]:
    """An empty table in a database of each kind."""
    if request.param == "sqlite":
        yield "sqlite"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with default_database(server.database("periodic")):
        call_command("migrate", verbosity=0)
        PeriodicTask.objects.all().delete()
        yield "postgresql"


class TestRules:
    """The core's, told beside each field."""

    pytestmark = pytest.mark.django_db

    @pytest.mark.parametrize(
        ("given", "field", "told"),
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
    def test_a_mistake_is_told_beside_its_field(self, given: dict[str, Any], field: str, told: str) -> None:
        found = wrong(**given)

        assert list(found) == [field]
        assert told in found[field][0]

    def test_names_are_unique(self) -> None:
        make("daily")

        assert "name" in wrong(name="daily")

    def test_a_task_of_another_program_has_to_be_declared(self) -> None:
        row = PeriodicTask(name="x", task="go:report", is_remote=True, cron="@daily", kwargs={"any": 1})

        row.full_clean()

        assert "declared remote" in wrong(task="go:report")["task"][0]

    def test_an_instance_of_a_model_is_given_by_its_primary_key(self) -> None:
        kwargs = {"parcel": 7, "after": "2030-01-31"}
        row = PeriodicTask(name="x", task="periodic:send", cron="@daily", kwargs=kwargs)

        row.full_clean()

        assert row.entry.payload == b'{"parcel":7,"after":"2030-01-31"}'
        assert "kwargs" in wrong(task="periodic:send", kwargs={"parcel": "seven"})

    def test_what_is_over_can_still_be_edited(self) -> None:
        row = make(expire_at=datetime(2020, 1, 1, tzinfo=UTC))

        row.description = "it was fine"
        row.full_clean()

        assert row.upcoming() == []

    def test_an_interval_is_counted_from_when_the_row_was_made(self) -> None:
        row = make(interval=timedelta(seconds=90), created_at=datetime(2030, 1, 1, tzinfo=UTC))

        assert row.upcoming(2, after=datetime(2030, 1, 1, 0, 2, tzinfo=UTC)) == [
            datetime(2030, 1, 1, 0, 3, tzinfo=UTC),
            datetime(2030, 1, 1, 0, 4, 30, tzinfo=UTC),
        ]

    @pytest.mark.django_db(transaction=True)
    def test_a_project_without_time_zones(self, settings: Any) -> None:
        """Its moments have none; they are those of the setting `TIME_ZONE`, as everywhere in Django."""
        settings.USE_TZ, settings.TIME_ZONE = False, "Europe/Berlin"
        row = make(interval=timedelta(hours=1), start_at=datetime(2030, 1, 1, 12), created_at=datetime(2030, 1, 1))  # noqa: DTZ001

        assert row.upcoming(1, after=datetime(2030, 1, 1, 12, 30)) == [datetime(2030, 1, 1, 12, tzinfo=UTC)]  # noqa: DTZ001
        table = DatabaseSchedule()
        table.record([EntryRuns(run_key=row.row.run_key, count=2, last=datetime(2030, 1, 1, 12, tzinfo=UTC))])
        row.refresh_from_db()
        assert (row.last_run_at, row.total_runs) == (datetime(2030, 1, 1, 13), 2)  # noqa: DTZ001


class TestSaving:
    pytestmark = pytest.mark.django_db

    def test_what_schedulers_write_is_theirs(self) -> None:
        """A form that was open while a task ran does not set its count back."""
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

    def test_a_part_of_a_row_is_saved_as_a_part(self) -> None:
        make(description="kept")
        part = PeriodicTask.objects.only("name").get()
        PeriodicTask.objects.update(description="of somebody else")

        part.name = "other"
        part.save()

        row = PeriodicTask.objects.get()
        assert (row.name, row.description) == ("other", "of somebody else")


@pytest.mark.redis
@pytest.mark.usefixtures("quick")
class TestTakingUp:
    def test_rows_made_changed_and_deleted_by_any_means(self, database: str, redis: RedisServer) -> None:
        """Also by what sends no signal: bulk operations and SQL."""
        with Running() as running:
            assert running.knows() == 0
            first = make("first")
            until(lambda: running.of(first))
            PeriodicTask.objects.bulk_create(
                [
                    PeriodicTask(name=f"bulk {number}", task="shop:restock", kwargs={"sku": "x"}, cron="@daily")
                    for number in "12"
                ]
            )
            until(lambda: running.knows() == 3)

            PeriodicTask.objects.filter(pk=first.pk).update(enabled=False)
            bulk = PeriodicTask.objects.get(name="bulk 1")
            with connection.cursor() as cursor:
                cursor.execute("UPDATE taskq_django_periodictask SET cron = '* * * * * *' WHERE name = 'bulk 1'")
            begun = until(lambda: running.of(bulk))[0]
            until(lambda: running.of(bulk)[-1] >= begun + 2)
            assert max(running.of(first)) < begun + 2, "it is disabled"

            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM taskq_django_periodictask WHERE name <> 'first'")
            until(lambda: running.knows() == 1)

    def test_runs_are_counted_and_the_next_one_is_noted(self, database: str, redis: RedisServer) -> None:
        row, daily = make(), make("daily", cron="@daily", start_at=datetime(2100, 1, 1, tzinfo=UTC))
        off = make("off", enabled=False)
        with Running() as running:
            until(lambda: len(running.of(row)) >= 3)
            until(lambda: PeriodicTask.objects.get(pk=daily.pk).next_run_at)
        second = timedelta(seconds=1)
        latest = datetime.now(UTC) + second
        for each in (row, daily, off):
            each.refresh_from_db()

        assert row.total_runs == len(running.of(row))
        assert row.last_run_at == datetime.fromtimestamp(running.of(row)[-1], UTC)
        assert row.last_run_at + second <= row.next_run_at <= latest, "the one after the moment at which it was noted"
        assert (daily.total_runs, daily.last_run_at, daily.next_run_at) == (0, None, daily.upcoming(1)[0])
        assert (off.total_runs, off.next_run_at) == (0, None)

    def test_a_row_that_cannot_be_used_holds_up_no_other(
        self, database: str, redis: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is told once, however often the table is read; and it works as soon as it is mended."""
        broken, good = make("broken", kwargs={}), make("good")
        with caplog.at_level(logging.ERROR, logger="taskq.scheduler"), Running() as running:
            until(lambda: running.of(good))
            make("another", cron="@daily")
            until(lambda: running.knows() == 2)
            PeriodicTask.objects.filter(pk=broken.pk).update(kwargs={"name": "Ada"})
            until(lambda: running.of(broken))

        said = [each.getMessage() for each in caplog.records if "broken" in each.getMessage()]
        assert len(said) == 1
        assert "periodic task 'broken' cannot be used and is left out: task 'shop:greet', parameter 'name'" in said[0]

    def test_entries_of_the_code_stay_beside_them(self, database: str, redis: RedisServer) -> None:
        row = make()
        taskq.schedule("* * * * * *", taskq.tasks["shop:restock"].s(sku="x"), id="of the code")  # type: ignore[attr-defined]
        try:
            with Running() as running:
                until(lambda: running.of(row) and any(entry == "of the code" for entry, _, _ in running.fired_all))
        finally:
            taskq.unschedule("of the code")

    @pytest.mark.usefixtures("database")
    def test_a_table_that_is_made_while_a_scheduler_runs(
        self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without one, nothing but its absence is looked at, and that seldom."""
        monkeypatch.setattr("taskq_django.schedule_table.MISSING_S", 0.1)
        with connection.schema_editor() as editor:
            editor.delete_model(PeriodicTask)
        try:
            with Running() as running:
                assert running.knows() == 0
                with connection.schema_editor() as editor:
                    editor.create_model(PeriodicTask)
                make("late", cron="@daily")
                until(lambda: running.knows() == 1)
        finally:
            if PeriodicTask._meta.db_table not in connection.introspection.table_names():
                with connection.schema_editor() as editor:
                    editor.create_model(PeriodicTask)


@pytest.mark.django_db(transaction=True)
class TestTable:
    def test_a_look_at_what_has_not_changed_is_one_query(self, django_assert_num_queries: Any) -> None:
        make()
        table = DatabaseSchedule()
        first = table.read(None)
        assert first is not None

        with django_assert_num_queries(1):
            assert table.read(first[0]) is None
        PeriodicTask.objects.update(total_runs=5, description="told to people alone")
        assert table.read(first[0]) is None

    def test_a_missing_table_costs_nothing(self, django_assert_num_queries: Any) -> None:
        with connection.schema_editor() as editor:
            editor.delete_model(PeriodicTask)
        try:
            table = DatabaseSchedule()
            assert table.read(None) == (0, [])
            with django_assert_num_queries(0):
                assert table.read(0) is None
                table.note_next()
        finally:
            with connection.schema_editor() as editor:
                editor.create_model(PeriodicTask)

    def test_a_database_that_the_router_refuses_is_not_asked(
        self, settings: Any, django_assert_num_queries: Any
    ) -> None:
        make()
        settings.DATABASE_ROUTERS = ["tests.taskq_django.test_checks.NotHere"]
        try:
            table = DatabaseSchedule()
            with django_assert_num_queries(0):
                assert table.read(None) == (0, [])
                table.record([])
                table.note_next()
        finally:
            settings.DATABASE_ROUTERS = []

    def test_runs_are_added_once_however_often_they_come(self) -> None:
        row = make()
        table = DatabaseSchedule()
        noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
        first = EntryRuns(run_key=row.row.run_key, count=3, last=noon)
        second = EntryRuns(run_key=row.row.run_key, count=2, last=noon + timedelta(minutes=1))

        for told in (first, first, second, first, second):
            table.record([told])

        row.refresh_from_db()
        assert (row.total_runs, row.last_run_at) == (5, second.last)

    def test_runs_of_another_row_of_the_same_number_do_not_count(self) -> None:
        """Of a project with a table of its own that shares the queue, or from before the database was made anew."""
        row = make()
        other = EntryRuns(run_key=f"{row.pk}-1", count=3, last=datetime(2030, 1, 1, tzinfo=UTC))

        DatabaseSchedule().record([other, EntryRuns(run_key="999-5", count=1, last=other.last)])

        row.refresh_from_db()
        assert row.total_runs == 0

    def test_a_change_in_this_process_is_told_when_it_is_committed(self) -> None:
        told: list[int] = []
        stop = DatabaseSchedule().watch(lambda: told.append(PeriodicTask.objects.count()))
        try:
            with transaction.atomic():
                row = make()
                assert told == []
            assert told == [1]
            row.delete()
            assert told == [1, 0]
        finally:
            stop()
        make("after the end")
        assert told == [1, 0]


@NEEDS_POSTGRES
@pytest.mark.django_db(transaction=True)
def test_a_connection_from_before_a_restart_is_opened_anew() -> None:
    """The first call after it finds the old one dead, and does not fail for that."""
    with PostgresServer() as server, default_database({**server.create("restarted"), "CONN_MAX_AGE": None}):
        call_command("migrate", verbosity=0)
        make()
        table = DatabaseSchedule()
        first = table.read(None)
        assert first is not None
        server.stop()
        with pytest.raises(OperationalError):
            table.read(first[0])
        server.start()
        assert table.read(first[0]) is None
        server.stop()
        server.start()

        assert table.read(first[0]) is None
        assert len(table.read(None)[1]) == 1  # type: ignore[index]  # there is one


@NEEDS_POSTGRES
@pytest.mark.redis
@pytest.mark.usefixtures("quick")
@pytest.mark.django_db(transaction=True)
def test_firings_go_on_while_the_database_is_down(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once. What ran meanwhile is counted when the database is back, and changes are taken up again."""
    with PostgresServer() as server, default_database(server.create("away")):
        call_command("migrate", verbosity=0)
        row = make()
        with Running() as running:
            until(lambda: running.of(row))
            connection.close()
            with caplog.at_level(logging.WARNING, logger="taskq.scheduler"):
                server.stop()
                count = len(running.of(row))
                until(lambda: len(running.of(row)) >= count + 4)
                until(lambda: "cannot be read" in caplog.text)
                server.start()
                until(lambda: "can be read again" in caplog.text)
            PeriodicTask.objects.filter(pk=row.pk).update(enabled=False)
            until(lambda: PeriodicTask.objects.get().next_run_at is None)
            until(lambda: PeriodicTask.objects.get().last_run_at == datetime.fromtimestamp(running.of(row)[-1], UTC))

        assert PeriodicTask.objects.get().total_runs == len(running.of(row))
        runs = running.of(row)
        assert runs == list(range(runs[0], runs[-1] + 1)), "each second once"
        assert sum("cannot be read" in each.getMessage() for each in caplog.records) == 1
