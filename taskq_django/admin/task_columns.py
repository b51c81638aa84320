"""The columns of the list of tasks. They depend on the state by which the list is filtered."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from taskq_core import TaskInfo, TaskState
from taskq_core.inspector import UnreadableTask
from taskq_django.admin.columns import column
from taskq_django.admin.filters import selected_state
from taskq_django.admin.formats import (
    arguments_line,
    nowrap,
    nowrap_span,
    per_cent,
    sees_payloads,
    state_name,
    waiting,
    when,
)
from taskq_django.admin.live import MixinBase
from taskq_django.admin.task_rows import duration
from taskq_django.models import Task

ERROR_CHARS = 100
"""Maximum number of characters of an error in the list."""
_FIRST, _RUN = ("short_id", "name", "call", "queue"), ("started", "duration", "run_by", "attempt_count")
COLUMNS: dict[TaskState | None, tuple[str, ...]] = {
    None: (*_FIRST, "state", "enqueued", *_RUN),
    TaskState.ACTIVE: (*_FIRST, "progress_bar", "enqueued", *_RUN),
    TaskState.PENDING: (*_FIRST, "pending", "enqueued", "attempt_count"),
    TaskState.SCHEDULED: (*_FIRST, "enqueued", "starts", "attempt_count"),
    TaskState.RETRY: (*_FIRST, "enqueued", "failed", "next_attempt", *_RUN[1:]),
    TaskState.ARCHIVED: (*_FIRST, "archived", "enqueued", *_RUN),
    TaskState.COMPLETED: (*_FIRST, "completed", "deleted", "enqueued", *_RUN),
}
"""Columns by state; None for all states together."""


class TaskColumns(MixinBase):
    """The columns of tasks: those of `columns` by state, unless a subclass sets `list_display`."""

    columns = COLUMNS
    list_display: Any = ()

    queue = column(_("queue"), "queue", ordering="queue")
    enqueued = column(_("enqueued"), "enqueued_at", when, ordering="enqueued")
    pending = column(_("pending since"), "pending_since", when, ordering="pending")
    started = column(pgettext_lazy("time", "started"), "last_started_at", when, ordering="started")
    next_attempt = column(_("next attempt"), "next_run_at", when, ordering="next_run")
    failed = column(pgettext_lazy("time", "failed"), "last_failed_at", when, ordering="failed")
    archived = column(pgettext_lazy("time", "archived"), "archived_at", when, ordering="ended")
    completed = column(pgettext_lazy("time", "completed"), "completed_at", when, ordering="ended")
    deleted = column(pgettext_lazy("time", "deleted"), "expires_at", when, ordering="deleted")

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns for the selected state, without arguments that the user may not see."""
        columns = self.list_display or self.columns[selected_state(request)]
        return columns if sees_payloads(request) else [each for each in columns if each != "call"]

    @admin.display(description=_("id"), ordering="id")
    def short_id(self, task: Task) -> SafeString:
        """Return the beginning of the id, with the whole id as its title."""
        return format_html('<span title="{}">{}</span>', task.record.id, Truncator(task.record.id).chars(9))

    @admin.display(description=_("name"), ordering="name")
    def name(self, task: Task) -> SafeString:
        """Return the name, which may break after a dot, and the first line of the last error."""
        record = task.record
        if isinstance(record, UnreadableTask):
            name, error = f"({_('unreadable')})", record.problem
        else:
            name = record.name
            # The error of an earlier run of a completed task is on its page.
            error = "" if record.state is TaskState.COMPLETED else record.last_error.partition("\n")[0]
        shown = format_html_join(SafeString(".<wbr>"), "{}", ((part,) for part in name.split(".")))
        if not error:
            return shown
        line = Truncator(error).chars(ERROR_CHARS)
        return format_html('{}<div class="quiet taskq-error">{}</div>', shown, line)

    @admin.display(description=_("state"), ordering="state")
    def state(self, task: Task) -> SafeString | str:
        """Return the state, and the start of a scheduled task or the next attempt."""
        name, ahead = state_name(task.record.state), self.starts(task)
        return format_html('{}<div class="quiet">{}</div>', name, ahead) if ahead else name

    @admin.display(description=_("arguments"), empty_value="-")
    def call(self, task: Task) -> SafeString | str:
        """Return the beginning of the arguments."""
        return arguments_line(getattr(task.record, "payload", b""))

    @admin.display(description=_("duration"), ordering="duration", empty_value="-")
    def duration(self, task: Task) -> SafeString | str:
        """Return how long the task has been running, or how long its last run took."""
        return nowrap_span(duration(task.record)) if isinstance(task.record, TaskInfo) else ""

    @admin.display(description=_("worker"), ordering="worker", empty_value="-")
    def run_by(self, task: Task) -> SafeString | str:
        """Return host and process id of its worker or last worker. A stopped worker is shown by its token."""
        token = getattr(task.record, "last_worker", "")
        if not token:
            return ""
        return format_html('<span class="nowrap" title="{}">{}</span>', token, task.workers.get(token, token[:8]))

    @admin.display(description=_("progress"), empty_value="-")
    def progress_bar(self, task: Task) -> SafeString | str:
        """Return the progress last reported by the task."""
        progress = getattr(task.record, "progress", None)
        if progress is None or progress.fraction is None:
            return "" if progress is None else str(progress)
        bar = '<progress value="{}" max="1" title="{}"></progress> <span class="nowrap">{}</span>'
        return format_html(bar, f"{progress.fraction:.3f}", str(progress), per_cent(progress.fraction))

    @admin.display(description=_("attempts"), ordering="attempts", empty_value="-")
    def attempt_count(self, task: Task) -> SafeString | str:
        """Return the number of attempts so far, and the maximum."""
        record = task.record
        return nowrap(f"{record.attempts_made}/{record.max_retry + 1}") if isinstance(record, TaskInfo) else ""

    @admin.display(description=pgettext_lazy("time", "starts"), ordering="next_run", empty_value="-")
    def starts(self, task: Task) -> SafeString | str:
        """Return the start of a waiting task."""
        if getattr(task.record, "waits_for_limit", False):
            return str(_("waits for a limit"))
        return waiting(getattr(task.record, "wait", None)) or when(getattr(task.record, "next_run_at", None))
