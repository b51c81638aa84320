"""Test periodic tasks in a Django project: system checks, `runworker`, and schedules from the database."""

import asyncio
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Group
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from taskq_core import ConfigurationError, PeriodicTask, Signature
from taskq_core.cli import running
from taskq_core.scheduler import Scheduler, SchedulerListener
from taskq_core.tasks.middleware import Middleware
from taskq_core.tasks.periodic import Firing, FiringOutcome
from taskq_django import periodic, schedule, task, taskq
from taskq_django.app import DjangoTaskQ
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.shop.tasks import greet, restock


def ours() -> list[tuple[str, str]]:
    return [(str(each.id), each.msg) for each in run_checks() if str(each.id).startswith("taskq.")]


@rows(
    ("entry", "check", "expected"),
    [
        ({"task": "shop:greet", "cron": "60 * * * *"}, "taskq.E001", "minute: '60' is outside 0 to 59"),
        ({"task": "shop:greet", "cron": "@daily"}, "taskq.E003", "'name' (in SCHEDULE['nightly'])."),
        ({"task": "shop:gret", "cron": "@daily"}, "taskq.E003", "did you mean 'shop:greet'?"),
    ],
)
def test_the_system_check_reports_errors_in_the_schedule(
    settings: Any, entry: dict[str, Any], check: str, expected: str
) -> None:
    settings.TASKQ = {"SCHEDULE": {"nightly": entry}}

    ((check_id, message),) = ours()

    assert check_id == check
    assert expected in message


def test_a_good_schedule_passes(settings: Any) -> None:
    settings.TASKQ = {"SCHEDULE": {"nightly": {"task": "shop:greet", "cron": "@daily", "kwargs": {"name": "Ada"}}}}

    assert ours() == []
    assert [each.id for each in taskq.periodic_tasks()] == ["nightly"]


@rows(
    ("ours", "zone"),
    [({}, "Europe/Berlin"), ({"TIME_ZONE": "Asia/Tokyo"}, "Asia/Tokyo"), ({"TIME_ZONE": "UTC"}, "UTC")],
)
def test_cron_lines_use_the_time_zone_of_the_project(settings: Any, ours: dict[str, Any], zone: str) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    settings.TASKQ = ours
    entry = PeriodicTask("0 9 * * *", greet.s("Ada"))

    (first,) = entry.upcoming(datetime(2026, 1, 1, tzinfo=UTC), 1, zone=taskq.settings.time_zone)

    assert first.astimezone(ZoneInfo(zone)).hour == 9


@rows(
    ("words", "expected"),
    [
        ([], True),
        (["--with-scheduler"], True),
        (["--no-scheduler"], False),
        (["--burst"], False),
        (["--burst", "--with-scheduler"], True),
    ],
)
@rows("command", [("runworker",), ("taskq", "worker")])
def test_a_worker_runs_a_scheduler_unless_disabled(
    command: tuple[str, ...], words: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def run(app: Any, options: Any, **_: Any) -> int:
        seen.append(running.worker_config(app.settings, options).with_scheduler)
        return 0

    monkeypatch.setattr(running, "run", run)

    call_command(*command, *words, stdout=io.StringIO())

    assert seen == [expected]


@pytest.mark.parametrize("command", [("runscheduler",), ("taskq", "scheduler")])
def test_a_scheduler_that_cannot_start_is_a_command_error(settings: Any, command: tuple[str, ...]) -> None:
    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}

    with pytest.raises(CommandError, match="the scheduler could not start") as caught:
        call_command(*command, "--no-wait", stdout=io.StringIO())

    assert caught.value.returncode == 1


def test_the_shortcuts_use_the_queue_of_the_project() -> None:
    entry = schedule("@daily", greet.s("Ada"), id="shortcut")
    decorated = periodic("@daily", id="decorated")(task(name="shop:nightly")(lambda: None))
    try:
        assert {"shortcut", "decorated"} <= {each.id for each in taskq.periodic_tasks()}
        assert entry.call.task is greet
        assert decorated.name == "shop:nightly"
    finally:
        assert taskq.unschedule("shortcut")
        assert taskq.unschedule("decorated")


@pytest.mark.django_db(transaction=True)
def test_a_provider_may_read_the_database() -> None:
    """The queryset is evaluated while its connections are managed, and they are closed after it."""
    app = DjangoTaskQ()
    Group.objects.create(name="0 8 * * *")

    @app.schedule_provider
    def provide() -> Iterable[PeriodicTask]:
        for group in Group.objects.order_by("pk"):
            assert connection.connection is not None
            yield PeriodicTask(group.name, restock.s(sku="x"))

    async def aprovide() -> list[PeriodicTask]:
        return [PeriodicTask(group.name, restock.s(sku="y")) async for group in Group.objects.order_by("pk")]

    app.schedule_provider(aprovide, every=60)
    first, second = app.timetable.providers

    assert [each.spec for each in first.function()] == ["0 8 * * *"]  # type: ignore[union-attr]
    assert [each.spec for each in asyncio.run(second.function())] == ["0 8 * * *"]  # type: ignore[arg-type]
    assert (first.every_s, second.every_s) == (180, 60)


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
def test_a_middleware_may_read_the_database_when_a_periodic_task_is_enqueued(redis: RedisServer) -> None:
    """The middleware has only a blocking `before_enqueue`, and the scheduler calls it too."""
    Group.objects.create(name="tenant")

    class Tenant(Middleware):
        def enqueue(self, call: Signature[Any]) -> Signature[Any]:
            return call.with_headers({"tenant": Group.objects.get().name})

    class RecordingListener(SchedulerListener):
        def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
            firings.append((outcome, error))
            running.stop()

    firings: list[tuple[FiringOutcome, Exception | None]] = []
    app = DjangoTaskQ()
    app.use(Tenant())
    app.schedule("* * * * * *", app.remote("beat"), id="beat")
    running = Scheduler(app, listener=RecordingListener())

    assert asyncio.run(running.arun()) == 0

    assert firings[0] == (FiringOutcome.ENQUEUED, None)
    app.close()


def test_an_invalid_provider_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a provider must be a function"):
        DjangoTaskQ().schedule_provider([])  # type: ignore[call-overload]
