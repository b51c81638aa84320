"""Tasks by queue and state, and the page of one task."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from taskq_core.inspector import Inspector, QueueInfo, UnreadableTask
from taskq_django.admin.base import BaseAdmin, RedisAdminMixin
from taskq_django.admin.task_filters import STATE_NAMES, QueueFilter, StateFilter
from taskq_django.admin.task_page import SHOWN_BYTES, block, moment, pairs, retries, span, when
from taskq_django.admin.task_rows import TaskRows
from taskq_django.app import taskq
from taskq_django.models import Task

ERROR_CHARS = 100
"""Most characters of an error that the list shows."""


class TaskAdminMixin(RedisAdminMixin):
    """The pages of tasks, to be put over a `ModelAdmin`.

    A list by queue and state, in which arguments are not shown, and a page for each task.
    """

    list_display = ("short_id", "name", "queue", "state", "time", "retries")
    list_filter = (QueueFilter, StateFilter)
    search_fields = ("id",)  # what is searched is said by get_search_results; this shows the form
    search_help_text = _("The whole id of a task.")
    fieldsets = (
        (
            None,
            {"fields": ("task_name", "task_id", "queue", "state", "retries", "last_error", "last_failed_at", "group")},
        ),
        (
            _("Times"),
            {
                "fields": (
                    "next_run_at",
                    "lease_expires_at",
                    "completed_at",
                    "archived_at",
                    "expires_at",
                    "timeout",
                    "deadline",
                    "retention",
                )
            },
        ),
        (_("Data"), {"fields": ("payload", "result")}),
        (_("Headers"), {"fields": ("headers",)}),
    )
    unreadable_fieldsets: Any = ((None, {"fields": ("task_id", "queue", "state", "problem", "message")}),)
    readonly_fields = (
        *("task_name", "task_id", "queue", "state", "retries", "last_error", "last_failed_at", "group", "next_run_at"),
        *("lease_expires_at", "completed_at", "archived_at", "expires_at", "timeout", "deadline", "retention"),
        *("payload", "result", "headers", "problem", "message"),
    )

    # --- rows ---------------------------------------------------------------------------------------------------------

    def queue_infos(self, request: HttpRequest) -> Sequence[QueueInfo]:
        """Return how the queues stand, read once a request."""
        infos: Sequence[QueueInfo] | None = getattr(request, "taskq_queue_infos", None)
        if infos is None:
            infos = Inspector(taskq).queue_infos()
            request.taskq_queue_infos = infos  # type: ignore[attr-defined]  # kept for this request
        return infos

    def get_rows(self, request: HttpRequest) -> TaskRows:
        """Return all tasks but those in groups."""
        return TaskRows(Inspector(taskq), self.queue_infos(request), per_page=self.list_per_page)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the tasks that were searched for."""
        text = search_term.strip()
        return (queryset.narrow(text=text) if text else queryset), False

    # --- permissions --------------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may yet."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may yet."""
        return False

    # --- the page of one task -----------------------------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what there is to say of a task."""
        if obj is None:
            return super().get_fieldsets(request, obj)
        if isinstance(obj.record, UnreadableTask):
            return self.unreadable_fieldsets
        told: list[Any] = []
        for heading, options in self.fieldsets:
            names = [str(name) for name in options["fields"]]
            fields = tuple(name for name in names if getattr(self, name)(obj) not in ("", None))
            if fields:
                told.append((heading, {**options, "fields": fields}))
        return told

    # --- columns and lines --------------------------------------------------------------------------------------------

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

    @admin.display(description=_("name"))
    def task_name(self, task: Task) -> str:
        """The name."""
        return str(task.record.name)

    @admin.display(description=_("id"))
    def task_id(self, task: Task) -> str:
        """The whole id."""
        return str(task.record.id)

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
        return when(record.next_run_at or record.completed_at or record.archived_at or record.lease_expires_at)

    @admin.display(description=_("retries"))
    def retries(self, task: Task) -> str:
        """How often it was retried."""
        return "" if isinstance(task.record, UnreadableTask) else retries(task.record)

    @admin.display(description=_("last error"))
    def last_error(self, task: Task) -> SafeString | str:
        """The text of its last failure."""
        return block(task.record.last_error)

    @admin.display(description=_("failed at"))
    def last_failed_at(self, task: Task) -> str:
        """When that was."""
        return moment(task.record.last_failed_at)

    @admin.display(description=_("group"))
    def group(self, task: Task) -> str:
        """The group it waits in."""
        return str(task.record.group)

    @admin.display(description=_("starts"))
    def next_run_at(self, task: Task) -> str:
        """When it starts, or is tried again."""
        return moment(task.record.next_run_at)

    @admin.display(description=_("lease ends"))
    def lease_expires_at(self, task: Task) -> str:
        """When it counts as lost, unless its worker extends the lease."""
        return moment(task.record.lease_expires_at)

    @admin.display(description=_("completed"))
    def completed_at(self, task: Task) -> str:
        """When it succeeded."""
        return moment(task.record.completed_at)

    @admin.display(description=_("archived"))
    def archived_at(self, task: Task) -> str:
        """When it was archived."""
        return moment(task.record.archived_at)

    @admin.display(description=_("deleted after"))
    def expires_at(self, task: Task) -> str:
        """When it will be deleted."""
        return moment(task.record.expires_at)

    @admin.display(description=_("timeout"))
    def timeout(self, task: Task) -> str:
        """Its longest run."""
        return span(task.record.timeout)

    @admin.display(description=_("deadline"))
    def deadline(self, task: Task) -> str:
        """Its latest moment."""
        return moment(task.record.deadline)

    @admin.display(description=_("kept after success"))
    def retention(self, task: Task) -> str:
        """How long it is kept."""
        return span(task.record.retention)

    @admin.display(description=_("arguments"))
    def payload(self, task: Task) -> SafeString | str:
        """What it is called with."""
        return block(task.record.payload)

    @admin.display(description=_("result"))
    def result(self, task: Task) -> SafeString | str:
        """What it returned."""
        return block(task.record.result)

    @admin.display(description=_("headers"))
    def headers(self, task: Task) -> SafeString | str:
        """What travels with it."""
        return pairs(task.record.headers)

    @admin.display(description=_("problem"))
    def problem(self, task: Task) -> str:
        """Why it cannot be read."""
        return str(task.record.problem)

    @admin.display(description=_("stored bytes"))
    def message(self, task: Task) -> SafeString | str:
        """What stands in Redis instead."""
        return block(task.record.message[:SHOWN_BYTES].hex(" ", -2))


@admin.register(Task)
class TaskAdmin(TaskAdminMixin, BaseAdmin):
    """Tasks by queue and state, and the page of one task."""
