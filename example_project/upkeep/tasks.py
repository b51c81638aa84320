"""Define the periodic tasks of the studio. `runworker` and `runscheduler` each run a scheduler that enqueues them.

The schedules of `backup:database` and `health:check` are in this file. `cleanup:old_data` is in the setting `SCHEDULE`,
where the operator decides how long data is kept.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from example_project.upkeep.models import HealthCheck
from taskq_core import SkipRetry
from taskq_core.inspector import Inspector
from taskq_django import periodic, task, taskq

BACKUPS_KEPT = 14
DELETED_AT_ONCE = 500


@periodic("0 2 * * *", id="backup:database", window=timedelta(hours=12))
@task(name="backup:database", queue="low", timeout=600, max_retry=3)
def backup_database() -> str:
    """Copy the database into a file named after the day, and return its name. A second run on a day replaces the file.

    SQLite copies page by page, so the site can read and write meanwhile. If no scheduler runs at two in the morning,
    the `window` lets a scheduler catch up on the backup until two in the afternoon.
    """
    if connection.vendor != "sqlite":
        raise SkipRetry(f"this backup can only copy SQLite, not {connection.vendor}")
    folder = Path(settings.BACKUP_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    backup = folder / f"studio-{timezone.now():%Y-%m-%d}.sqlite3"
    unfinished = backup.with_suffix(f".{uuid4().hex}.part")
    try:
        connection.ensure_connection()
        with closing(sqlite3.connect(unfinished)) as copy:
            connection.connection.backup(copy, pages=1000)
            (verdict,) = copy.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise RuntimeError(f"the copy of the database is damaged: {verdict}")
        unfinished.replace(backup)  # so that a file with this name is always a complete backup
    finally:
        unfinished.unlink(missing_ok=True)
    for old in sorted(folder.glob("studio-*.sqlite3"))[:-BACKUPS_KEPT]:
        old.unlink(missing_ok=True)
    return backup.name


@task(name="cleanup:old_data", queue="low", timeout=300)
def cleanup_old_data(retention_days: int) -> dict[str, int]:
    """Delete health checks that are older than `retention_days`, and expired sessions. Return their numbers."""
    if retention_days < 1:
        raise SkipRetry("retention_days must be at least 1")
    old_checks = HealthCheck.objects.filter(checked_at__lt=timezone.now() - timedelta(days=retention_days))
    ended_sessions = Session.objects.filter(expire_date__lt=timezone.now())
    return {"checks": delete_in_parts(old_checks), "sessions": delete_in_parts(ended_sessions)}


def delete_in_parts(rows: QuerySet) -> int:
    """Delete rows in small batches, so that no visitor waits long for the database. Return their number."""
    deleted = 0
    while keys := list(rows.order_by("pk").values_list("pk", flat=True)[:DELETED_AT_ONCE]):
        count, _ = rows.model.objects.filter(pk__in=keys).delete()
        deleted += count
    return deleted


@periodic("*/5 * * * *", id="health:check", catch_up="skip")
@task(name="health:check", queue="critical", timeout=30, max_retry=0)
def check_health() -> dict[str, bool]:
    """Check the database, Redis and the storage, and store the results. The task fails if a part is not healthy."""
    checks = [look_at("database", use_database), look_at("redis", use_redis), look_at("storage", use_storage)]
    if any(check.part == "database" and check.is_healthy for check in checks):
        HealthCheck.objects.bulk_create(checks)
    ill = [str(check) for check in checks if not check.is_healthy]
    if ill:
        raise RuntimeError("; ".join(ill))
    return {check.part: check.is_healthy for check in checks}


def look_at(part: str, use: Callable[[], None]) -> HealthCheck:
    """Call `use`, which tries a part of the system, and return the result of the check."""
    started = time.monotonic()
    problem = ""
    try:
        use()
    except Exception as error:  # any error means that the part is not healthy
        problem = f"{type(error).__name__}: {error}"[:200]
    took_ms = round((time.monotonic() - started) * 1000, 3)
    return HealthCheck(part=part, is_healthy=not problem, problem=problem, took_ms=took_ms)


def use_database() -> None:
    """Read from the database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()


def use_redis() -> None:
    """Read from Redis."""
    Inspector(taskq).queues()


def use_storage() -> None:
    """Write a file, read it and delete it."""
    content = uuid4().bytes
    name = default_storage.save(f"health/{uuid4().hex}.bin", ContentFile(content))
    try:
        with default_storage.open(name) as file:
            if file.read() != content:
                raise OSError("the content of the file differs from the written content")
    finally:
        default_storage.delete(name)
