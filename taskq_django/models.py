"""Models for the admin, the outbox, and periodic tasks.

`Queue`, `Task`, `Worker` and `Workflow` have no table, because their data is in Redis. They exist so that the admin
lists them, and so that `migrate` creates the permissions to view them and to act on them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.tasks.periodic import CatchUp
from taskq_core.tasks.schedule_table import ScheduleRow, entry_of, problems
from taskq_django.app import taskq


class NoRows(models.Manager[Any]):
    """A manager without rows that queries no database, for commands such as `dumpdata` that read all models."""

    def get_queryset(self) -> models.QuerySet[Any]:
        """Return an empty query set."""
        return super().get_queryset().none()


class RedisModel(models.Model):
    """A model for the admin whose rows are in Redis.

    Attributes:
        record: The row as the core returns it; None if it was not read.
    """

    objects = NoRows()
    record: Any = None

    class Meta:  # noqa: D106 - Django's own form
        abstract = True
        managed = False
        base_manager_name = "objects"
        default_permissions: ClassVar[tuple[str, ...]] = ("view",)

    def __str__(self) -> str:
        return str(self.pk) if self.record is None else f"{getattr(self.record, 'name', '')} {self.record.id}".strip()


class Queue(RedisModel):
    """A queue, for the admin."""

    name = models.CharField(_("name"), max_length=256, primary_key=True)

    class Meta(RedisModel.Meta):  # noqa: D106 - Django's own form
        default_permissions = ("view", "delete")
        permissions = (("pause_queue", _("Can pause and resume queues")),)
        verbose_name = _("queue")
        verbose_name_plural = _("queues")

    def __str__(self) -> str:
        return self.name


class Task(RedisModel):
    """A task, for the admin.

    Attributes:
        workers: Host and process id of running workers, by the token that tasks store.
        timeline: Its steps. Only its own page reads them.
        hides_payload: Whether the user may not see payloads. The record then has no payload.
        user: Name of the user who sees it.
    """

    id = models.CharField(_("id"), max_length=256, primary_key=True)

    workers: Mapping[str, str] = MappingProxyType({})
    timeline: Any = ()
    hides_payload = False
    user = ""

    class Meta(RedisModel.Meta):  # noqa: D106 - Django's own form
        default_permissions = ("add", "change", "delete", "view")
        permissions = (
            ("run_task", _("Can run and cancel tasks")),
            ("signal_task", _("Can approve tasks and send them signals")),
            ("view_payload", _("Can view arguments and results of tasks")),
        )
        verbose_name = _("task")
        verbose_name_plural = _("tasks")

    @property
    def mark(self) -> str:
        """Generation and state of the task when it was read, and the signal that it waited for; see `read_mark`."""
        wait = getattr(self.record, "wait", None)
        state = f"{self.record.state} {wait.name}#{wait.number}" if wait else str(self.record.state)
        return f"@{self.record.generation} {state}" if self.record.generation else state


class Question(RedisModel):
    """An open question of a task, for the admin.

    Attributes:
        user: Name of the user who sees it.
    """

    id = models.CharField(_("id"), max_length=512, primary_key=True)

    user = ""

    class Meta(RedisModel.Meta):  # noqa: D106 - Django's own form
        verbose_name = _("open question")
        verbose_name_plural = _("open questions")

    def __str__(self) -> str:
        return str(self.pk) if self.record is None else f"{self.record.name} {self.record.task}"

    @property
    def mark(self) -> str:
        """Generation of the task."""
        return f"@{self.record.generation} "


class Worker(RedisModel):
    """A worker process, for the admin."""

    id = models.CharField(_("id"), max_length=256, primary_key=True)

    class Meta(RedisModel.Meta):  # noqa: D106 - Django's own form
        permissions = (("control_worker", _("Can quiet, resume, scale and stop workers")),)
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return self.id if self.record is None else f"{self.record.host}:{self.record.pid}"


class Workflow(RedisModel):
    """A workflow, for the admin."""

    id = models.CharField(_("id"), max_length=256, primary_key=True)

    class Meta(RedisModel.Meta):  # noqa: D106 - Django's own form
        permissions = (("run_workflow", _("Can cancel workflows and retry failed steps")),)
        verbose_name = _("workflow")
        verbose_name_plural = _("workflows")

    @property
    def mark(self) -> str:
        """State of the workflow when it was read."""
        return str(self.record.state)


class OutboxTask(models.Model):
    """A task that waits to be sent to Redis. It was written in the transaction that enqueued it."""

    id = models.BigAutoField(primary_key=True)
    receipt = models.CharField(_("receipt"), max_length=32, unique=True, editable=False)
    queue = models.CharField(_("queue"), max_length=256)
    name = models.CharField(_("task"), max_length=256)
    task_id = models.CharField(_("id"), max_length=256)
    message = models.BinaryField(_("message"))
    size = models.PositiveIntegerField(_("bytes"))
    start_at_s = models.BigIntegerField(_("start"), null=True)
    start_in_ms = models.BigIntegerField(_("start after"), null=True)
    unique_key = models.CharField(_("unique lock"), max_length=1024, default="")
    unique_s = models.BigIntegerField(_("seconds of the unique lock"), default=0)
    unique_rule = models.CharField(_("rule of the unique lock"), max_length=1024, default="", db_default="")
    group = models.CharField(_("group"), max_length=256, default="")
    replicas = models.PositiveSmallIntegerField(_("replicas that confirm"), null=True)
    fsynced = models.BooleanField(_("confirmed on disk"), default=False)
    is_workflow = models.BooleanField(_("part of a workflow"), default=False, db_default=False)
    created_at = models.DateTimeField(_("written"), db_default=Now(), editable=False)
    claim = models.CharField(_("claim"), max_length=32, default="", editable=False)
    claimed_until = models.DateTimeField(_("claimed until"), null=True, editable=False)

    class Meta:  # noqa: D106 - Django's own form
        default_permissions = ("view", "delete")
        verbose_name = _("task in the outbox")
        verbose_name_plural = _("outbox")

    def __str__(self) -> str:
        return f"{self.name} {self.task_id}"


class CatchUpChoices(models.TextChoices):
    """The choices for missed firings, with their labels."""

    SKIP = CatchUp.SKIP.value, _("leave them out")
    ONE = CatchUp.ONE.value, _("enqueue the last one")
    ALL = CatchUp.ALL.value, _("enqueue each of them")


class PeriodicTask(models.Model):
    """A task that schedulers enqueue periodically. It can be edited while they run.

    `full_clean` checks the fields by the core's rules (`taskq_core.tasks.schedule_table`). Schedulers see a change
    within seconds, also one made in SQL. They write `last_run_at`, `next_run_at` and `total_runs`, so `save` does not
    write these fields unless `update_fields` names them.
    """

    SCHEDULER_FIELDS = ("last_run_at", "next_run_at", "total_runs")
    """Fields that schedulers write."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(_("name"), max_length=200, unique=True)
    task = models.CharField(_("task"), max_length=256)
    is_remote = models.BooleanField(_("remote"), default=False)
    cron = models.CharField(_("cron line"), max_length=256, blank=True)
    interval = models.DurationField(_("interval"), null=True, blank=True)
    time_zone = models.CharField(_("time zone"), max_length=64, blank=True)
    kwargs = models.JSONField(_("arguments"), default=dict, blank=True)
    queue = models.CharField(_("queue"), max_length=256, blank=True)
    options = models.JSONField(_("options"), default=dict, blank=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    start_at = models.DateTimeField(_("start"), null=True, blank=True)
    expire_at = models.DateTimeField(_("end"), null=True, blank=True)
    catch_up = models.CharField(_("missed firings"), max_length=8, choices=CatchUpChoices, default=CatchUpChoices.ONE)
    catch_up_window = models.DurationField(_("caught up for"), default=timedelta(hours=1))
    description = models.TextField(_("description"), blank=True)
    last_run_at = models.DateTimeField(_("last run"), null=True, editable=False)
    next_run_at = models.DateTimeField(_("next run"), null=True, editable=False)
    total_runs = models.PositiveBigIntegerField(_("runs"), default=0, db_default=0, editable=False)
    created_at = models.DateTimeField(_("made"), default=timezone.now, db_default=Now(), editable=False)

    code_entry: Any = None
    """The entry in code that this object shows in the admin, or None for a row of the table."""
    is_added = False
    """Whether that entry was added at run time."""
    unreadable: frozenset[str] = frozenset()
    """Fields whose form values could not be read. The form has reported them, so `clean` does not."""

    class Meta:  # noqa: D106 - Django's own form
        default_permissions = ("add", "change", "delete", "view")
        permissions = (("run_periodictask", _("Can run periodic tasks now")),)
        verbose_name = _("periodic task")
        verbose_name_plural = _("periodic tasks")
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def save(self, *, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """Store the row. For an existing row, leave the fields that schedulers write unchanged."""
        is_update = not self._state.adding and kwargs.get("using") in (None, self._state.db)
        if update_fields is None and is_update and not kwargs.get("force_insert"):
            left_out = {*self.SCHEDULER_FIELDS, *self.get_deferred_fields()}
            update_fields = [
                each.name
                for each in self._meta.concrete_fields
                if not each.primary_key and each.attname not in left_out
            ]
        super().save(update_fields=update_fields, **kwargs)

    @property
    def row(self) -> ScheduleRow:
        """The values of this row, as a record of the core."""
        values = {each.name: getattr(self, each.name) for each in fields(ScheduleRow)}
        return ScheduleRow(**values | {name: _aware(values[name]) for name in _MOMENTS})

    @property
    def entry(self) -> Any:
        """The `taskq_core.PeriodicTask` that schedulers use for this row.

        Raises:
            ConfigurationError, TaskArgumentsError: The row is invalid. It was written without `full_clean`, or its
                task has changed since.
        """
        return self.code_entry or entry_of(self.row, taskq.tasks, taskq.remote)

    def upcoming(self, count: int = 5, *, after: datetime | None = None) -> list[datetime]:
        """Return the next firings after a moment, which is now by default. Return an empty list if disabled.

        Raises:
            ConfigurationError, TaskArgumentsError: The row is invalid, as for `entry`.
        """
        if not self.enabled:
            return []
        moment = _aware(after) or utc_datetime(SYSTEM_CLOCK.time())
        found: list[datetime] = self.entry.upcoming(moment, count, zone=taskq.settings.time_zone)
        return found

    def clean(self) -> None:
        """Check the fields by the core's rules, and report each error at its field."""
        super().clean()
        must_fire_after = utc_datetime(SYSTEM_CLOCK.time()) if self._state.adding else None
        found = problems(self.row, taskq.tasks, taskq.remote, zone=taskq.settings.time_zone, now=must_fire_after)
        for name in ("start_at", "expire_at"):
            value = getattr(self, name)
            if value is not None and not _YEARS[0] <= value.year <= _YEARS[1]:
                facts = {"first": _YEARS[0], "last": _YEARS[1]}
                found[name] = gettext("Give a year from %(first)d to %(last)d.") % facts
        for name in self.unreadable:  # the form has already reported them
            found.pop(name, None)
        if "interval" in self.unreadable and not self.cron:
            found.pop("cron", None)
        if found:
            raise ValidationError(found)


def _aware(moment: datetime | None) -> datetime | None:
    """Return a moment with its time zone. Without `USE_TZ`, Django's moments have none."""
    if moment is None or timezone.is_aware(moment):
        return moment
    return timezone.make_aware(moment, timezone.get_default_timezone())


_YEARS = (2, 9998)
"""First and last year of a moment that every time zone can show."""
_MOMENTS = ("start_at", "expire_at", "created_at")
