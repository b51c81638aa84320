"""Test schedulers that read periodic tasks from PostgreSQL, in real time, also while PostgreSQL restarts."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections

from taskq_core.scheduler import Scheduler, SchedulerConfig, SchedulerListener, follower, leader
from taskq_core.tasks.periodic import Firing, FiringOutcome
from taskq_django import taskq
from taskq_django.models import PeriodicTask
from taskq_django.schedule_table import DatabaseSchedule
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer
from tests.taskq_django.test_periodic_tasks import make

PATIENCE_S = 60.0


def until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.01)
    return value


class Running(SchedulerListener):
    """A scheduler of the project in a thread, and the tasks that it enqueued."""

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
        """Return the seconds of a row's firings."""
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
    """Read the table many times a second, and allow a long time for running queries at the end."""
    (table,) = taskq.timetable.tables
    monkeypatch.setattr(table, "every_s", 0.05)
    monkeypatch.setattr(follower, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(follower, "FINISH_S", PATIENCE_S)
    monkeypatch.setattr(leader, "ENDING_S", PATIENCE_S)


@contextmanager
def default_database(database: dict[str, Any]) -> Iterator[None]:
    """Replace the default database with another one in all threads."""
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


@pytest.fixture
def database(postgres_server: PostgresServer, transactional_db: None) -> Iterator[None]:
    """An empty table in a PostgreSQL database."""
    with default_database(postgres_server.create(f"periodic_{time.monotonic_ns()}")):
        call_command("migrate", verbosity=0)
        yield


@pytest.mark.redis
@pytest.mark.usefixtures("quick")
class TestTakingUp:
    def test_rows_created_changed_and_deleted_in_any_way(self, database: None, redis: RedisServer) -> None:
        """This includes bulk operations and SQL, which send no signals."""
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
            assert max(running.of(first)) < begun + 2, "the disabled row still fires"

            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM taskq_django_periodictask WHERE name <> 'first'")
            until(lambda: running.knows() == 1)

    def test_runs_are_counted_and_the_next_run_is_stored(self, database: None, redis: RedisServer) -> None:
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
        assert row.last_run_at + second <= row.next_run_at <= latest, (
            "the next run must be the first one after the time of storing"
        )
        assert (daily.total_runs, daily.last_run_at, daily.next_run_at) == (0, None, daily.upcoming(1)[0])
        assert (off.total_runs, off.next_run_at) == (0, None)

    def test_an_invalid_row_does_not_affect_others(
        self, database: None, redis: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The error is logged once, however often the table is read. The row works as soon as it is repaired."""
        broken, good = make("broken", kwargs={}), make("good")
        with caplog.at_level(logging.ERROR, logger="taskq.scheduler"), Running() as running:
            until(lambda: running.of(good))
            make("another", cron="@daily")
            until(lambda: running.knows() == 2)
            PeriodicTask.objects.filter(pk=broken.pk).update(kwargs={"name": "Ada"})
            until(lambda: running.of(broken))

        output = [each.getMessage() for each in caplog.records if "broken" in each.getMessage()]
        assert len(output) == 1
        assert "periodic task 'broken' is invalid and is skipped: task 'shop:greet', parameter 'name'" in output[0]

    def test_entries_in_code_work_beside_rows(self, database: None, redis: RedisServer) -> None:
        row = make()
        taskq.schedule("* * * * * *", taskq.tasks["shop:restock"].s(sku="x"), id="of the code")  # type: ignore[attr-defined]
        try:
            with Running() as running:
                until(lambda: running.of(row) and any(entry == "of the code" for entry, _, _ in running.fired_all))
        finally:
            taskq.unschedule("of the code")

    @pytest.mark.usefixtures("database")
    def test_a_table_that_is_created_while_a_scheduler_runs(
        self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a table, the scheduler only checks from time to time whether it exists."""
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
def test_a_connection_is_reopened_after_a_restart_of_the_database() -> None:
    """The first call after the restart does not fail although its connection was closed."""
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
        assert len(table.read(None)[1]) == 1  # type: ignore[index]  # the table exists


@pytest.mark.redis
@pytest.mark.usefixtures("quick")
@pytest.mark.django_db(transaction=True)
def test_firings_continue_while_the_database_is_down(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """The failure is logged once. When the database is back, firings are counted and changes are picked up again."""
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
                until(lambda: "cannot read the table" in caplog.text)
                server.start()
                until(lambda: "can read the table" in caplog.text)
            PeriodicTask.objects.filter(pk=row.pk).update(enabled=False)
            until(lambda: PeriodicTask.objects.get().next_run_at is None)
            until(lambda: PeriodicTask.objects.get().last_run_at == datetime.fromtimestamp(running.of(row)[-1], UTC))

        assert PeriodicTask.objects.get().total_runs == len(running.of(row))
        runs = running.of(row)
        assert runs == list(range(runs[0], runs[-1] + 1)), "a firing was skipped or repeated"
        assert sum("cannot read the table" in each.getMessage() for each in caplog.records) == 1
