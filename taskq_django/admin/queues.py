"""Queues and how full they are."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from taskq_core import TaskState
from taskq_core.inspector import LISTED_STATES, Inspector
from taskq_django.admin.base import BaseAdmin, RedisAdminMixin
from taskq_django.admin.rows import ListRows
from taskq_django.admin.task_filters import STATE_NAMES
from taskq_django.app import taskq
from taskq_django.models import Queue


def size_column(state: TaskState) -> Any:
    """Return a column with the size of a state, a link to its tasks for who may see them."""

    @admin.display(description=STATE_NAMES[state])
    def size(self: "QueueAdminMixin", queue: Any) -> SafeString | str:
        count = queue.info.sizes[state]
        if not count or not queue.may_view_tasks or state not in LISTED_STATES:
            return str(count)
        address = reverse("admin:taskq_django_task_changelist", current_app=self.admin_site.name)
        query = urlencode({"queue": queue.info.name, "state": str(state)})
        return format_html('<a href="{}?{}">{}</a>', address, query, count)

    return size


class QueueAdminMixin(RedisAdminMixin):
    """The list of queues, to be put over a `ModelAdmin`."""

    list_display = ("name", "is_paused", *(f"size_{state}" for state in TaskState), "latency")
    list_display_links = None

    size_active, size_pending, size_scheduled, size_retry, size_archived, size_completed, size_aggregating = (
        size_column(state)
        for state in (
            *(TaskState.ACTIVE, TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.ARCHIVED),
            *(TaskState.COMPLETED, TaskState.AGGREGATING),
        )
    )

    def get_rows(self, request: HttpRequest) -> ListRows:
        """Return all queues."""
        may_view_tasks = request.user.has_perm("taskq_django.view_task")
        rows = []
        for info in Inspector(taskq).queue_infos():
            queue: Any = Queue(name=info.name)
            queue.info, queue.may_view_tasks = info, may_view_tasks
            rows.append(queue)
        return ListRows(Queue, rows)

    @admin.display(description=_("status"))
    def is_paused(self, queue: Any) -> SafeString | str:
        """Whether workers take its tasks, or why it cannot be counted."""
        if queue.info.problem:
            return format_html('<span title="{}">({})</span>', queue.info.problem, _("damaged: cannot be counted"))
        return f"({_('paused')})" if queue.info.is_paused else ""

    @admin.display(description=_("oldest waits"), empty_value="-")
    def latency(self, queue: Any) -> str:
        """How long the next task to run has been pending."""
        return "" if queue.info.latency is None else f"{queue.info.latency.total_seconds():.1f} s"


@admin.register(Queue)
class QueueAdmin(QueueAdminMixin, BaseAdmin):
    """Queues and how full they are."""
