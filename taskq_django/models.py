"""What the admin shows, and the outbox.

No table stands behind `Queue`, `Task` and `Worker`: their data is in Redis. They exist so that the admin lists them and
so that `migrate` creates the permissions to view them and to act on them.
"""

from typing import Any

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class NoRows(models.Manager[Any]):
    """Finds nothing, and asks no database: commands such as `dumpdata` go over all models."""

    def get_queryset(self) -> models.QuerySet[Any]:
        """Return an empty query set."""
        return super().get_queryset().none()


class Queue(models.Model):
    """A queue, for the admin."""

    name = models.CharField(_("name"), max_length=256, primary_key=True)

    objects = NoRows()

    class Meta:  # noqa: D106 - Django's own form
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view", "delete")
        permissions = (("pause_queue", _("Can pause and resume queues")),)
        verbose_name = _("queue")
        verbose_name_plural = _("queues")

    def __str__(self) -> str:
        return self.name


class Task(models.Model):
    """A task, for the admin.

    Attributes:
        record: What stands in Redis, as the inspector tells it; None if that was not asked.
    """

    id = models.CharField(_("id"), max_length=256, primary_key=True)

    objects = NoRows()
    record: Any = None

    class Meta:  # noqa: D106 - Django's own form
        managed = False
        base_manager_name = "objects"
        default_permissions = ("add", "change", "delete", "view")
        permissions = (("run_task", _("Can run and cancel tasks")),)
        verbose_name = _("task")
        verbose_name_plural = _("tasks")

    def __str__(self) -> str:
        if self.record is None:
            return self.id
        return f"{getattr(self.record, 'name', '')} {self.record.id}".strip()

    @property
    def mark(self) -> str:
        """How it stood when it was read: its state."""
        return str(self.record.state)


class Worker(models.Model):
    """A worker process, for the admin."""

    id = models.CharField(_("id"), max_length=256, primary_key=True)

    objects = NoRows()

    class Meta:  # noqa: D106 - Django's own form
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view",)
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return self.id


class OutboxTask(models.Model):
    """A task that waits to be sent to Redis, written in the transaction of the data it belongs to."""

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
    group = models.CharField(_("group"), max_length=256, default="")
    replicas = models.PositiveSmallIntegerField(_("replicas that confirm"), null=True)
    fsynced = models.BooleanField(_("confirmed on disk"), default=False)
    created_at = models.DateTimeField(_("written"), db_default=Now(), editable=False)
    claim = models.CharField(_("claim"), max_length=32, default="", editable=False)
    claimed_until = models.DateTimeField(_("claimed until"), null=True, editable=False)

    class Meta:  # noqa: D106 - Django's own form
        default_permissions = ("view", "delete")
        verbose_name = _("task in the outbox")
        verbose_name_plural = _("outbox")

    def __str__(self) -> str:
        return f"{self.name} {self.task_id}"
