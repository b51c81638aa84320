"""Read and update the table of periodic tasks for schedulers. `taskq_core.tasks.schedule_table` defines the rules.

Every two seconds one query reads the columns that define the entries, and its result is compared with the previous one.
So any change is noticed, also one made in SQL, and no clocks have to agree. Columns that schedulers write are not
compared. A table that the router does not allow in its database is not read. If a table does not exist, a warning in
the log says so once a minute.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connections, router, transaction
from django.db.models import F, Q
from django.db.models.signals import post_delete, post_save
from django.utils import timezone

from taskq_core import PeriodicTask as Entry
from taskq_core import TaskQError
from taskq_core.tasks.periodic import EntryRuns
from taskq_django.middleware import on_healthy_connections
from taskq_django.models import PeriodicTask
from taskq_django.tables import explained, has_table, migrate_command

T = TypeVar("T")
logger = logging.getLogger("taskq.scheduler")

EVERY_S = 2.0
"""Seconds between two reads of the table."""
MISSING_S = 60.0
"""Seconds between two checks for the table while it is missing."""
BATCH = 100
"""Maximum number of rows that are updated in one transaction."""
_DEFINING = tuple(
    each.attname
    for each in PeriodicTask._meta.concrete_fields
    if each.name not in (*PeriodicTask.SCHEDULER_FIELDS, "description")
)
"""Columns that a scheduler reads to make the entry of a row. A change of any of them changes the entry."""
_WHEN = ("enabled", "cron", "interval", "time_zone", "start_at", "expire_at")
"""Fields that decide when a row fires."""


def schedule_alias() -> str | None:
    """Return the database that the router writes periodic tasks to, or None if the router allows no table there."""
    alias: str = router.db_for_write(PeriodicTask)
    if connections[alias].settings_dict["ENGINE"] == "django.db.backends.dummy":
        return None
    return alias if router.allow_migrate_model(alias, PeriodicTask) else None


class DatabaseSchedule:
    """Reads periodic tasks from a Django database. Implements the core's `ScheduleTable`."""

    every_s = EVERY_S

    def __init__(self) -> None:
        self._is_there = False
        self._looked_at: float | None = None
        self._troubles: dict[int, str] = {}

    def read(self, last_version: object) -> tuple[object, list[Entry]] | None:
        """Return the version of the table and the entries of all usable rows, or None if nothing has changed."""
        alias = schedule_alias()
        if alias is None or not self._find_table(alias):
            return None if last_version == 0 else (0, [])
        try:
            with explained(alias, PeriodicTask):
                return _reached(partial(self._read, alias, last_version))
        except Exception:
            self._is_there = False  # the table may have been deleted, so look for it again
            raise

    def record(self, runs: Sequence[EntryRuns]) -> None:
        """Add runs to the rows that do not count them yet. See `ScheduleTable.record`."""
        alias = schedule_alias()
        if alias is not None:
            for start in range(0, len(runs), BATCH):
                with explained(alias, PeriodicTask):
                    _reached(partial(_record, alias, runs[start : start + BATCH]))

    def record_next_firings(self) -> None:
        """Store the next firing of each row if it has changed. See `ScheduleTable.record_next_firings`."""
        alias = schedule_alias()
        if alias is not None and self._is_there:
            with explained(alias, PeriodicTask):
                _reached(partial(_record_next_firings, alias))

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call a function after a save or deletion in this process has committed. See `ScheduleTable.watch`."""

        def call_after_commit(*, using: str, **_: Any) -> None:
            transaction.on_commit(changed, using=using, robust=True)

        for signal in (post_save, post_delete):
            signal.connect(call_after_commit, sender=PeriodicTask, weak=False)

        def stop() -> None:
            for signal in (post_save, post_delete):
                signal.disconnect(call_after_commit, sender=PeriodicTask)

        return stop

    def _find_table(self, alias: str) -> bool:
        now = time.monotonic()
        if not self._is_there and (self._looked_at is None or now - self._looked_at >= MISSING_S):
            self._is_there = _reached(partial(has_table, alias, PeriodicTask))
            self._looked_at = None if self._is_there else now
            if not self._is_there:
                logger.warning(
                    "database %r has no table of periodic tasks, so the scheduler reads none from there; run %s",
                    alias,
                    migrate_command(alias),
                )
        return self._is_there

    def _read(self, alias: str, seen: object) -> tuple[object, list[Entry]] | None:
        rows = PeriodicTask.objects.using(alias).order_by("pk")
        sql, parameters = rows.values_list(*_DEFINING).query.get_compiler(alias).as_sql()
        with connections[alias].cursor() as cursor:
            cursor.execute(sql, parameters)
            found = cursor.fetchall()
        version = hash(repr(found)) or 1  # the version is never 0, which stands for a missing table
        return None if version == seen else (version, self._entries(rows))

    def _entries(self, rows: Any) -> list[Entry]:
        """Convert rows to entries. An invalid row is skipped and logged once."""
        entries: list[Entry] = []
        troubles: dict[int, str] = {}
        for row in rows:
            try:
                entries.append(row.entry)
            except (TaskQError, ValueError, TypeError) as error:
                troubles[row.pk] = str(error)
                if self._troubles.get(row.pk) != troubles[row.pk]:
                    logger.error("periodic task %r is invalid and is skipped: %s", row.name, error)
        self._troubles = troubles
        return entries


def _reached(function: Callable[[], T]) -> T:
    """Call a function with healthy connections. Call it again if the database had closed the connection."""
    call = on_healthy_connections(function)
    try:
        return call()
    except (OperationalError, InterfaceError):  # the database closed the connection after the check
        return call()


def _record(alias: str, runs: Sequence[EntryRuns]) -> None:
    keys = {int(each.run_key.partition("-")[0]): each for each in runs}
    with transaction.atomic(using=alias):
        rows = PeriodicTask.objects.using(alias)
        for row in rows.filter(pk__in=keys):
            runs_of_row = keys[row.pk]
            last = _stored(runs_of_row.last)
            if row.row.run_key == runs_of_row.run_key:
                uncounted = rows.filter(Q(last_run_at=None) | Q(last_run_at__lt=last), pk=row.pk)
                uncounted.update(
                    total_runs=F("total_runs") + runs_of_row.count, last_run_at=last, next_run_at=_next(row)
                )


def _record_next_firings(alias: str) -> None:
    with transaction.atomic(using=alias):
        rows = PeriodicTask.objects.using(alias)
        for row in rows.all():
            upcoming = _next(row)
            if row.next_run_at != upcoming:
                as_read = {name: getattr(row, name) for name in _WHEN}
                rows.filter(pk=row.pk, **as_read).update(next_run_at=upcoming)


def _next(row: PeriodicTask) -> datetime | None:
    try:
        found = row.upcoming(1)
    except (TaskQError, ValueError, TypeError):
        return None  # the scheduler's log and the admin report the error
    return _stored(found[0]) if found else None


def _stored(moment: datetime) -> datetime:
    """Return a moment as Django stores it: without `USE_TZ` it has no time zone."""
    return moment if settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())
