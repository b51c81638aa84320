"""Tasks that wait in the outbox."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from taskq_django.admin.base import BaseAdmin
from taskq_django.admin.live import LiveMixin
from taskq_django.models import OutboxTask


@admin.register(OutboxTask)
class OutboxTaskAdmin(LiveMixin, BaseAdmin):
    """Tasks that wait to be sent: which, since when, and whether somebody is at it. Their arguments are not shown."""

    list_display = ("name", "task_id", "queue", "created_at", "claimed_until", "size")
    list_filter = ("queue", "name")
    search_fields = ("task_id",)
    fields = ("name", "task_id", "queue", "created_at", "claimed_until", "size")
    readonly_fields = fields
    ordering = ("id",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may: rows are written by enqueueing."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False
