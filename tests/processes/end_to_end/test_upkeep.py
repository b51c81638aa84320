"""Test the periodic tasks of the example project with a real database, storage and Redis."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from taskq_core.wire import SchedulerEnqueueEvent
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]


class Studio:
    """The example project in a separate folder with a separate Redis."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.folder = folder
        self.server = server
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "OTEL_"))}
        self.environment = {
            **kept,
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "PYTHONPATH": str(ROOT),
            "STUDIO_DATA": str(folder),
            "TASKQ_URL": server.url,
            "TASKQ_ENQUEUE_TIMEOUT": "30",  # long enough for a busy machine
        }

    def manage(self, *arguments: str) -> str:
        return self._run(str(ROOT / "example_project" / "manage.py"), *arguments)

    def run(self, code: str) -> Any:
        """Run a program that prints JSON."""
        setup = "import django, json; django.setup()\n"
        return json.loads(self._run("-c", setup + textwrap.dedent(code)))

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            (sys.executable, *arguments),
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory, session_redis_server: RedisServer) -> Path:
    """A folder with an empty database of the example."""
    folder = tmp_path_factory.mktemp("migrated")
    Studio(folder, session_redis_server).manage("migrate", "--verbosity", "0")
    return folder


@pytest.fixture
def studio(migrated: Path, tmp_path: Path, redis_server: RedisServer) -> Studio:
    shutil.copytree(migrated, tmp_path, dirs_exist_ok=True)
    return Studio(tmp_path, redis_server)


def test_the_schedule_of_the_example(studio: Studio) -> None:
    assert studio.run("""
        from taskq_django import taskq
        print(json.dumps({each.id: [each.call.task.name, each.spec, each.payload.decode()]
                          for each in taskq.periodic_tasks()}))
    """) == {
        "backup:database": ["backup:database", "0 2 * * *", "{}"],
        "cleanup:old_data": ["cleanup:old_data", "0 * * * *", '{"retention_days":30}'],
        "health:check": ["health:check", "*/5 * * * *", "{}"],
    }


def test_a_backup_is_a_complete_database_and_old_backups_are_deleted(studio: Studio) -> None:
    left_s = 86_400 - time.time() % 86_400
    if left_s <= 60:
        time.sleep(left_s)  # the name of a backup contains the day, so do not cross midnight
    folder = studio.folder / "backups"
    folder.mkdir()
    for day in range(1, 16):
        (folder / f"studio-2001-01-{day:02d}.sqlite3").write_bytes(b"old")

    name = studio.run("""
        from example_project.studio.models import Customer
        from example_project.upkeep.tasks import backup_database
        Customer.objects.create(name="Ada", email="ada@example.com")
        first = backup_database()
        Customer.objects.create(name="Bob", email="bob@example.com")
        assert backup_database() == first
        print(json.dumps(first))
    """)

    with sqlite3.connect(folder / name) as copy:
        assert copy.execute("SELECT name FROM studio_customer ORDER BY id").fetchall() == [("Ada",), ("Bob",)]
    copy.close()
    left = sorted(path.name for path in folder.iterdir())
    assert len(left) == 14, "only the newest backups and no unfinished file must be left"
    assert (left[0], left[-1]) == ("studio-2001-01-03.sqlite3", name)


def test_old_data_is_deleted_and_young_data_kept(studio: Studio) -> None:
    assert studio.run("""
        from datetime import timedelta
        from django.contrib.sessions.models import Session
        from django.utils import timezone
        from example_project.upkeep.models import HealthCheck
        from example_project.upkeep.tasks import cleanup_old_data
        now = timezone.now()
        for days, count in ((29, 3), (31, 1200)):
            made = HealthCheck.objects.bulk_create(
                [HealthCheck(part="x", is_healthy=True, took_ms=1) for _ in range(count)])
            HealthCheck.objects.filter(pk__gte=made[0].pk).update(checked_at=now - timedelta(days=days))
        Session.objects.create(session_key="old", session_data="", expire_date=now - timedelta(seconds=1))
        Session.objects.create(session_key="new", session_data="", expire_date=now + timedelta(hours=1))
        found = cleanup_old_data(retention_days=30)
        print(json.dumps([found, HealthCheck.objects.count(), Session.objects.count()]))
    """) == [{"checks": 1200, "sessions": 1}, 3, 1]


def test_the_health_check_task_fails_if_something_is_unhealthy(studio: Studio) -> None:
    found, error, stored = studio.run("""
        from pathlib import Path
        from django.conf import settings
        from example_project.upkeep.models import HealthCheck
        from example_project.upkeep.tasks import check_health
        found = check_health()
        Path(settings.MEDIA_ROOT, "health").rmdir()
        Path(settings.MEDIA_ROOT, "health").write_text("a file where the folder should be")
        error = ""
        try:
            check_health()
        except RuntimeError as failure:
            error = str(failure)
        stored = [[each.part, each.is_healthy] for each in HealthCheck.objects.order_by("id")]
        print(json.dumps([found, error, stored]))
    """)

    assert found == {"database": True, "redis": True, "storage": True}
    assert error.startswith("storage: ")
    assert stored == [
        ["database", True],
        ["redis", True],
        ["storage", True],
        ["database", True],
        ["redis", True],
        ["storage", False],
    ]


def test_a_customer_is_welcomed_once_in_24_hours(studio: Studio) -> None:
    """This is so also after the mail was sent. Mails to other customers do not count."""
    first, again, other, ttl = studio.run("""
        from example_project.studio.models import Customer
        from example_project.studio.welcome import welcome_again
        from taskq_core.inspector import Inspector
        from taskq_core.worker import Worker, WorkerConfig
        from taskq_django import taskq
        ada = Customer.objects.create(name="Ada", email="ada@example.com")
        bob = Customer.objects.create(name="Bob", email="bob@example.com")
        first = welcome_again(ada)
        waiting = welcome_again(ada)
        import contextlib, io
        with contextlib.redirect_stdout(io.StringIO()):  # the mail
            Worker(taskq, WorkerConfig.from_settings(taskq.settings, burst=True)).run()
        sent = welcome_again(ada)
        other = welcome_again(bob)
        info = Inspector(taskq).task("critical", first.id)
        kept_s = (info.expires_at - info.completed_at).total_seconds()
        print(json.dumps([first.id, [waiting, sent], other.id, kept_s]))
    """)

    assert (first, again, other) == ("welcome:1", [None, None], "welcome:2")
    assert ttl - 24 * 3600 in (0, 1)  # the worker's clock says when it completed, Redis's clock when it expires


def test_a_worker_runs_all_tasks_and_the_due_schedules(studio: Studio) -> None:
    """`runworker` has a scheduler. The test sets the last firings of its entries to a time long ago.

    The scheduler catches up with the hourly entry. For others this depends on the time of day, so the test enqueues
    their tasks.
    """
    studio.run("""
        from taskq_core.scheduler.entries import EntryBook
        from taskq_django import taskq
        import time
        book = EntryBook(taskq.runtime.keys, zone="UTC")
        book.replace(0, taskq.periodic_tasks())
        import redis
        raw = redis.from_url(taskq.settings.url)
        for entry in book.entries.values():
            before = entry.schedule.next_after(int(time.time()) - 2 * 86_400)
            raw.set(entry.queue.tick(entry.key), f"{before}:")
        from example_project.upkeep.tasks import backup_database, check_health
        backup_database.using(task_id="backup").delay()
        check_health.using(task_id="health").delay()
        print(json.dumps(None))
    """)
    began = datetime.now(UTC)
    log = studio.folder / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            (sys.executable, str(ROOT / "example_project" / "manage.py"), "runworker"),
            cwd=ROOT,
            env=studio.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        raw: Any = studio.server.client
        deadline = time.monotonic() + 60

        def is_done(queue: str, task_id: str) -> bool:
            return raw.zscore(f"asynq:{{{queue}}}:completed", task_id) is not None

        def cleaned() -> bool:
            history = raw.zrange("asynq:scheduler_history:cleanup:old_data", 0, -1)
            return any(is_done("low", SchedulerEnqueueEvent.decode(each).task_id) for each in history)

        while not (cleaned() and is_done("low", "backup") and is_done("critical", "health")):
            assert worker.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)  # the other process sends no event
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0, log.read_text()
    assert "scheduler    off" not in log.read_text()
    backups = {path.name for path in (studio.folder / "backups").glob("studio-*.sqlite3")}
    assert backups
    assert backups <= {f"studio-{day:%Y-%m-%d}.sqlite3" for day in (began, datetime.now(UTC))}, (
        "more than one backup per day"
    )
    assert raw.keys("asynq:schedulers*") == []


def test_two_processes_of_runscheduler(studio: Studio) -> None:
    for command in (("runscheduler",), ("taskq", "scheduler")):
        process = subprocess.Popen(
            (sys.executable, str(ROOT / "example_project" / "manage.py"), *command),
            cwd=ROOT,
            env={**studio.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            lines = []
            while (line := process.stdout.readline()) and line != "ready\n":
                lines.append(line)
            assert line == "ready\n", process.stderr.read() if process.stderr else ""
            assert lines[0].startswith("taskq scheduler ")
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        assert process.returncode == 0
