"""What the admin shows. No table stands behind these models: the data is in Redis.

They exist so that the admin lists them and so that `migrate` creates the permissions to view them.
"""

from typing import Any

from django.db import models
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
        default_permissions = ("view",)
        verbose_name = _("queue")
        verbose_name_plural = _("queues")

    def __str__(self) -> str:
        return self.name


class Task(models.Model):
    """A task, for the admin."""

    id = models.CharField(_("id"), max_length=256, primary_key=True)

    objects = NoRows()

    class Meta:  # noqa: D106 - Django's own form
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view",)
        verbose_name = _("task")
        verbose_name_plural = _("tasks")

    def __str__(self) -> str:
        return self.id
