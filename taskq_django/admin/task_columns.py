"""The columns of the list of tasks. They depend on the state by which the list is filtered."""

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
from taskq_django.admin.labels import nowrap, per_cent, span
from taskq_django.admin.task_filters import STATE_NAMES, asked_state
from taskq_django.admin.task_order import duration
from taskq_django.admin.task_page import when
from taskq_django.models import Task

ERROR_CHARS = 100
"""Most characters of an error that the list shows."""
ARGUMENTS_CHARS = 60
"""Maximum characters of arguments in the list. The page of a task shows all of them."""
COLUMNS: dict[TaskState | None, tuple[str, ...]] = {
    None: ("short_id", "name", "call", "queue", "state", "enqueued", "started", "duration", "run_by", "attempt_count"),
    TaskState.ACTIVE: (
        *("short_id", "name", "call", "queue", "progress_bar", "enqueued", "started", "duration", "run_by"),
        "attempt_count",
    ),
    TaskState.PENDING: ("short_id", "name", "call", "queue", "enqueued", "attempt_count"),
    TaskState.SCHEDULED: ("short_id", "name", "call", "queue", "enqueued", "starts", "attempt_count"),
    TaskState.RETRY: (
        *("short_id", "name", "call", "queue", "enqueued", "failed", "next_attempt", "duration", "run_by"),
        "attempt_count",
    ),
    TaskState.ARCHIVED: (
        *("short_id", "name", "call", "queue", "archived", "enqueued", "started", "duration", "run_by"),
        "attempt_count",
    ),
    TaskState.COMPLETED: (
        *("short_id", "name", "call", "queue", "completed", "enqueued", "started", "duration", "run_by"),
        "attempt_count",
    ),
}
"""Columns by state; None for all states together."""


class TaskColumns(MixinBase):
    """The columns: those of `columns` by state, unless a subclass has a `list_display` of its own."""

    columns = COLUMNS
    list_display: Any = ()

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns that fit the state."""
        return self.list_display or self.columns[asked_state(request)]

    @admin.display(description=_("id"), ordering="id")
    def short_id(self, task: Task) -> SafeString:
        """The start of the id; the whole of it behind it."""
        return format_html('<span title="{}">{}</span>', task.record.id, Truncator(task.record.id).chars(9))

    @admin.display(description=_("name"), ordering="name")
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

    @admin.display(description=_("queue"), ordering="queue")
    def queue(self, task: Task) -> str:
        """Its queue."""
        return str(task.record.queue)

    @admin.display(description=_("state"), ordering="state")
    def state(self, task: Task) -> SafeString | str:
        """Its state, with the next start of a scheduled task or a retry."""
        name, ahead = STATE_NAMES[task.record.state], self.starts(task)
        return format_html('{}<div class="quiet">{}</div>', name, ahead) if ahead else str(name)

    @admin.display(description=_("arguments"), empty_value="-")
    def call(self, task: Task) -> SafeString | str:
        """The beginning of its arguments."""
        record = task.record
        if isinstance(record, UnreadableTask) or not record.payload:
            return ""
        text = record.payload[: 4 * ARGUMENTS_CHARS + 1].decode("utf-8", "replace")
        return format_html('<code class="taskq-arguments">{}</code>', Truncator(text).chars(ARGUMENTS_CHARS))

    @admin.display(description=_("enqueued"), ordering="enqueued", empty_value="-")
    def enqueued(self, task: Task) -> SafeString | str:
        """When it was enqueued."""
        return _when(task, "enqueued_at")

    @admin.display(description=pgettext_lazy("time", "started"), ordering="started", empty_value="-")
    def started(self, task: Task) -> SafeString | str:
        """When its current or last run began."""
        return "" if isinstance(task.record, UnreadableTask) else when(task.record.last_started_at)

    @admin.display(description=_("duration"), ordering="duration", empty_value="-")
    def duration(self, task: Task) -> SafeString | str:
        """How long it has been running, or how long its last run took."""
        return "" if isinstance(task.record, UnreadableTask) else nowrap(span(duration(task.record)))

    @admin.display(description=_("worker"), ordering="worker", empty_value="-")
    def run_by(self, task: Task) -> SafeString | str:
        """Host and process id of the worker that runs it or ran it last; its token if it has ended."""
        token = "" if isinstance(task.record, UnreadableTask) else task.record.last_worker
        if not token:
            return ""
        return format_html('<span class="nowrap" title="{}">{}</span>', token, task.workers.get(token, token[:8]))

    @admin.display(description=_("progress"), empty_value="-")
    def progress_bar(self, task: Task) -> SafeString | str:
        """The progress that the task reported last."""
        progress = getattr(task.record, "progress", None)
        if progress is None:
            return ""
        if progress.fraction is None:
            return str(progress)
        bar = '<progress value="{}" max="1" title="{}"></progress> <span class="nowrap">{}</span>'
        return format_html(bar, f"{progress.fraction:.3f}", str(progress), per_cent(progress.fraction))

    @admin.display(description=_("attempts"), ordering="attempts", empty_value="-")
    def attempt_count(self, task: Task) -> SafeString | str:
        """Number of attempts so far, and the maximum."""
        record = task.record
        if isinstance(record, UnreadableTask):
            return ""
        return nowrap(f"{record.attempts_made}/{record.max_retry + 1}")

    @admin.display(description=pgettext_lazy("time", "starts"), ordering="next_run", empty_value="-")
    def starts(self, task: Task) -> SafeString | str:
        """When it starts."""
        if getattr(task.record, "waits_for_limit", False):  # one that cannot be read tells nothing
            return str(_("waits for a limit"))
        return _when(task, "next_run_at")

    @admin.display(description=_("next attempt"), ordering="next_run", empty_value="-")
    def next_attempt(self, task: Task) -> SafeString | str:
        """When it is tried again."""
        return _when(task, "next_run_at")

    @admin.display(description=pgettext_lazy("time", "failed"), ordering="failed", empty_value="-")
    def failed(self, task: Task) -> SafeString | str:
        """When it failed last."""
        return _when(task, "last_failed_at")

    @admin.display(description=pgettext_lazy("time", "archived"), ordering="ended", empty_value="-")
    def archived(self, task: Task) -> SafeString | str:
        """When it was archived."""
        return _when(task, "archived_at")

    @admin.display(description=pgettext_lazy("time", "completed"), ordering="ended", empty_value="-")
    def completed(self, task: Task) -> SafeString | str:
        """When it succeeded."""
        return _when(task, "completed_at")


def _when(task: Task, name: str) -> SafeString | str:
    return when(getattr(task.record, name, None))  # one that cannot be read has no times
