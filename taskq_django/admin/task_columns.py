"""The columns of the list of tasks, which fit the state that the list is narrowed to. Arguments are in none of them."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from taskq_core import TaskState
from taskq_core.inspector import UnreadableTask
from taskq_django.admin.base import MixinBase
from taskq_django.admin.task_filters import STATE_NAMES, asked_state
from taskq_django.admin.task_page import retries, when
from taskq_django.models import Task

ERROR_CHARS = 100
"""Most characters of an error that the list shows."""
COLUMNS: dict[TaskState | None, tuple[str, ...]] = {
    None: ("short_id", "name", "queue", "state", "time", "retries"),
    TaskState.ACTIVE: ("short_id", "name", "queue", "lease_ends", "retries"),
    TaskState.PENDING: ("short_id", "name", "queue", "retries"),
    TaskState.SCHEDULED: ("short_id", "name", "queue", "starts", "retries"),
    TaskState.RETRY: ("short_id", "name", "queue", "next_attempt", "retries", "failed"),
    TaskState.ARCHIVED: ("short_id", "name", "queue", "archived", "retries", "failed"),
    TaskState.COMPLETED: ("short_id", "name", "queue", "completed", "deleted_after", "retries"),
}
"""Columns by state; None for all states together."""


class TaskColumns(MixinBase):
    """The columns: those of `columns` by state, unless a subclass has a `list_display` of its own."""

    columns = COLUMNS
    list_display: Any = ()

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns that fit the state."""
        return self.list_display or self.columns[asked_state(request)]

    @admin.display(description=_("id"))
    def short_id(self, task: Task) -> SafeString:
        """The start of the id; the whole of it behind it."""
        return format_html('<span title="{}">{}</span>', task.record.id, Truncator(task.record.id).chars(12))

    @admin.display(description=_("name"))
    def name(self, task: Task) -> SafeString | str:
        """The name, with the first line of the last error."""
        record = task.record
        if isinstance(record, UnreadableTask):
            name, error = f"({_('unreadable')})", record.problem
        else:
            name, error = record.name, record.last_error.partition("\n")[0]
        if not error:
            return name
        line = Truncator(error).chars(ERROR_CHARS)
        return format_html('{}<div class="quiet taskq-error">{}</div>', name, line)

    @admin.display(description=_("queue"))
    def queue(self, task: Task) -> str:
        """Its queue."""
        return str(task.record.queue)

    @admin.display(description=_("state"))
    def state(self, task: Task) -> str:
        """Its state."""
        return str(STATE_NAMES[task.record.state])

    @admin.display(description=_("time"), empty_value="-")
    def time(self, task: Task) -> SafeString | str:
        """The time its state tells of."""
        record = task.record
        if isinstance(record, UnreadableTask):
            return ""
        if record.waits_for_limit:
            return str(_("waits for a limit"))
        return when(record.next_run_at or record.completed_at or record.archived_at)

    @admin.display(description=_("retries"), empty_value="-")
    def retries(self, task: Task) -> str:
        """How often it was retried."""
        return "" if isinstance(task.record, UnreadableTask) else retries(task.record)

    @admin.display(description=pgettext_lazy("time", "starts"), empty_value="-")
    def starts(self, task: Task) -> SafeString | str:
        """When it starts."""
        if getattr(task.record, "waits_for_limit", False):  # one that cannot be read tells nothing
            return str(_("waits for a limit"))
        return _when(task, "next_run_at")

    @admin.display(description=_("next attempt"), empty_value="-")
    def next_attempt(self, task: Task) -> SafeString | str:
        """When it is tried again."""
        return _when(task, "next_run_at")

    @admin.display(description=_("lease ends"), empty_value="-")
    def lease_ends(self, task: Task) -> SafeString | str:
        """When it counts as lost, unless its worker extends the lease."""
        return _when(task, "lease_expires_at")

    @admin.display(description=pgettext_lazy("time", "failed"), empty_value="-")
    def failed(self, task: Task) -> SafeString | str:
        """When it failed last."""
        return _when(task, "last_failed_at")

    @admin.display(description=pgettext_lazy("time", "archived"), empty_value="-")
    def archived(self, task: Task) -> SafeString | str:
        """When it was archived."""
        return _when(task, "archived_at")

    @admin.display(description=pgettext_lazy("time", "completed"), empty_value="-")
    def completed(self, task: Task) -> SafeString | str:
        """When it succeeded."""
        return _when(task, "completed_at")

    @admin.display(description=pgettext_lazy("time", "deleted"), empty_value="-")
    def deleted_after(self, task: Task) -> SafeString | str:
        """When it will be deleted."""
        return _when(task, "expires_at")


def _when(task: Task, name: str) -> SafeString | str:
    return when(getattr(task.record, name, None))  # one that cannot be read has no times
