"""The admin pages of queues: their tasks and history, and actions on them."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import DELETION
from django.contrib.admin.utils import unquote
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, ngettext_lazy, pgettext

from taskq_core import TaskState
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import LISTED_STATES, Inspector
from taskq_core.views import DAYS_CHOICES, STATES, Dashboard, QueuesOverview, QueueStatus
from taskq_django.admin.actions import AdminForm, Deadline, row_action
from taskq_django.admin.base import BaseAdmin, RedisAdminMixin
from taskq_django.admin.charts import POINTS, RECENT, history_chart, recent_charts, state_bar
from taskq_django.admin.columns import column
from taskq_django.admin.formats import (
    Links,
    nowrap_span,
    number,
    per_cent,
    render,
    size,
    state_name,
)
from taskq_django.admin.rows import ListRows, is_across, once, row_of
from taskq_django.app import taskq
from taskq_django.models import Queue

DAYS_VAR = "days"
DELETABLE = tuple(state for state in STATES if state is not TaskState.ACTIVE)


class QueueColumns:
    """Columns and fields of queues. A row has a `record`, `links` and the size of the `largest` queue.

    On the page of one queue it also has a `detail`, the number of `days` of the history, and the `series` of samples of
    the last hour.
    """

    latency = column(_("latency"), "latency", nowrap_span, ordering="latency")
    memory = column(_("memory"), "memory", size, ordering="memory")
    processed_today = column(_("processed today"), "processed_today", number, ordering="processed_today")
    failed_today = column(_("failed today"), "failed_today", number, ordering="failed_today")
    error_rate = column(_("error rate"), "error_rate", per_cent, ordering="error_rate")
    problem = column(_("problem"), "problem")
    groups = column(_("groups"), "groups", number)

    @admin.display(description=_("status"), ordering="status")
    def status(self, queue: Any) -> SafeString | str:
        """Return whether workers run the tasks of the queue, or that the queue is damaged."""
        record = queue.record
        name = pgettext("queue status", record.status.value)
        if record.status is QueueStatus.RUNNING:
            return name
        kind = record.status.value.replace(" ", "-")
        return format_html('<strong class="taskq-{}" title="{}">{}</strong>', kind, record.problem, name)

    @admin.display(description=_("tasks by state"), ordering="size")
    def tasks(self, queue: Any) -> SafeString:
        """Return the number of tasks, a bar that can be compared with other queues, and the number in each state."""
        counts = [
            (f"fill-{state}", _count(queue, state), state_name(state)) for state in STATES if queue.record.sizes[state]
        ]
        return render("queue_tasks.html", size=queue.record.size, bar=self._bar(queue), counts=counts)

    @admin.display(description=_("size"))
    def bar(self, queue: Any) -> SafeString:
        """Return the number of tasks, with a bar of their states."""
        return render("queue_tasks.html", size=queue.record.size, bar=self._bar(queue))

    def _bar(self, queue: Any) -> SafeString:
        return state_bar(queue.name, queue.record.sizes, whole=queue.largest)

    @admin.display(description=_("workflows"))
    def workflows(self, queue: Any) -> SafeString | str:
        """Return a link to the workflows with this home queue."""
        found: SafeString | str = queue.links.workflows(_("Workflows of this queue"), queue=queue.name)
        return found

    @admin.display(description=_("by state"))
    def sizes(self, queue: Any) -> SafeString:
        """Return the number of tasks by state."""
        rows = [(f"fill-{state}", capfirst(state_name(state)), _count(queue, state)) for state in STATES]
        return render("queue_sizes.html", rows=rows)

    @admin.display(description=_("today"))
    def today(self, queue: Any) -> str:
        """Return the number of runs since midnight UTC."""
        return _runs(queue.record.processed_today, queue.record.failed_today, queue.record.error_rate)

    @admin.display(description=_("total"))
    def total(self, queue: Any) -> str:
        """Return the number of runs since the queue exists."""
        return _runs(queue.record.processed, queue.record.failed, None)

    @admin.display(description=_("last hour"))
    def recent(self, queue: Any) -> SafeString:
        """Return charts of runs and latency in the last hour."""
        return recent_charts(queue.series)

    @admin.display(description=_("by day"))
    def history(self, queue: Any) -> SafeString:
        """Return a chart of the runs by day."""
        choices = [(f"?{DAYS_VAR}={each}", days_text(each), each == queue.days) for each in DAYS_CHOICES]
        return history_chart(queue.detail.days, key="taskq-history", heading=_now("Runs by day"), choices=choices)

    @admin.display(description=_("by type"))
    def types(self, queue: Any) -> SafeString | str:
        """Return the number of tasks by type."""
        types = queue.detail.types
        if not types:
            return ""
        rows = [(each, state_bar(each.name, each.sizes, whole=types[0].size)) for each in types]
        return render("queue_types.html", rows=rows, detail=queue.detail)


def days_text(days: int) -> str:
    """Return the text of a number of days."""
    return ngettext("%(count)d day", "%(count)d days", days) % {"count": days}


def _count(queue: Any, state: TaskState) -> SafeString | str:
    count = queue.record.sizes[state]
    if not count or state not in LISTED_STATES:
        return number(count)
    found: SafeString | str = queue.links.tasks(number(count), queue=queue.name, state=state.value)
    return found


def _runs(processed: int, failed: int, rate: float | None) -> str:
    text = _now("%(processed)s processed, %(failed)s failed") % {
        "processed": number(processed),
        "failed": number(failed),
    }
    return f"{text} ({per_cent(rate)})" if rate is not None else text


class EmptyForm(AdminForm):
    """States of the tasks to delete, each with the number of tasks in the selected queues."""

    states = forms.MultipleChoiceField(
        label=_("States"),
        widget=forms.CheckboxSelectMultiple,
        help_text=_("Running tasks are not deleted."),
    )

    def __init__(self, modeladmin: Any, request: HttpRequest, data: Any = None, rows: Any = ()) -> None:
        super().__init__(modeladmin, request, data, rows)
        queues = modeladmin.overview(request).queues
        if not is_across(request):
            match = request.resolver_match
            own = [] if match is None else [unquote(match.kwargs["object_id"])] if "object_id" in match.kwargs else []
            names = own or request.POST.getlist(ACTION_CHECKBOX_NAME)
            queues = [row for row in queues if row.name in names]
        sizes = QueuesOverview(queues=queues).sizes
        field: Any = self.fields["states"]
        field.choices = [
            (state.value, f"{capfirst(state_name(state))} ({number(sizes[state])})") for state in DELETABLE
        ]


class DeleteForm(AdminForm):
    """Whether to delete a queue that is not empty."""

    force = forms.BooleanField(
        label=_("Delete their tasks as well"),
        required=False,
        help_text=_(
            "Otherwise a queue is deleted only if all its tasks have succeeded. A queue with running tasks is never "
            "deleted."
        ),
    )


class QueueAdminMixin(QueueColumns, RedisAdminMixin):
    """The pages of queues, as a mixin for a `ModelAdmin`: a list, and a page for each queue with its history."""

    list_display = ("name", "status", "tasks", "latency", "memory", "processed_today", "failed_today", "error_rate")
    search_fields = ("name",)
    search_help_text = _("Part of the name of a queue.")
    actions = ("pause", "resume", "empty", "delete_selected")
    fieldsets = (
        (None, {"fields": ("name", "status", "problem", "workflows", "buttons")}),
        (_("Tasks"), {"fields": ("bar", "sizes", "groups", "latency", "memory")}),
        (_("Runs"), {"fields": ("today", "total", "recent", "history")}),
        (_("Task types"), {"fields": ("types",)}),
    )

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may pause and resume queues."""
        return self.allows(request, "pause")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def dashboard(self) -> Dashboard:
        """Return the dashboard, which reads the queues."""
        return Dashboard(Inspector(taskq))

    def overview(self, request: HttpRequest) -> QueuesOverview:
        """Return the queues. A page reads them once. An action reads them again, because it may have changed them."""
        if request.method != "GET":
            return self.dashboard().queues()
        return once(request, "overview", self.dashboard().queues)

    def get_rows(self, request: HttpRequest) -> ListRows:
        """Return all queues."""
        links = Links(request, self.admin_site)
        found = self.overview(request).queues
        largest = max((row.size for row in found), default=0)
        rows = [row_of(Queue, record.name, record, links=links, largest=largest) for record in found]
        return ListRows(Queue, rows, lambda record, text: text in record.name.lower())

    def read_one(self, request: HttpRequest, key: str) -> Any:
        """Return one queue with its history, None if it does not exist."""
        queue: Any = Queue(name=key)
        queue.days = selected_days(request)
        try:
            queue.detail = self.dashboard().queue(key, days=queue.days)
        except QueueNotFoundError:
            return None
        (queue.series,) = self.dashboard().samples((key,), span=RECENT, points=POINTS)
        queue.record, queue.largest = queue.detail.queue, queue.detail.queue.size
        return queue

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, with the history of all queues together as `taskq_history` for its template."""
        context = dict(extra_context or {})
        if request.method == "GET" and self.has_view_or_change_permission(request):
            days = selected_days(request)
            history = self.dashboard().history([row.name for row in self.overview(request).queues], days=days)
            choices = []
            for choice in DAYS_CHOICES:
                query = request.GET.copy()
                query[DAYS_VAR] = str(choice)
                choices.append((f"?{query.urlencode()}", days_text(choice), choice == days))
            heading = _now("Runs by day, all queues")
            context["taskq_history"] = history_chart(history, key="taskq-history", heading=heading, choices=choices)
        return super().changelist_view(request, context)

    # --- actions ------------------------------------------------------------------------------------------------------

    def offers(self, action: str, obj: Any) -> bool:
        """Return whether the page of a queue has a button for an action. Django's own button deletes the queue."""
        return action not in ("delete_selected", "pause" if obj.record.is_paused else "resume")

    @row_action(
        description=_("Pause selected %(verbose_name_plural)s"),
        button=_("Pause"),
        question=ngettext_lazy(
            "Pause %(count)d queue? Workers start no more of its tasks; running tasks continue.",
            "Pause %(count)d queues? Workers start no more of their tasks; running tasks continue.",
            "count",
        ),
        report=ngettext_lazy("%(count)d queue was paused.", "%(count)d queues were paused.", "count"),
        permissions=["pause"],
    )
    def pause(self, queue: Queue, deadline: Deadline) -> tuple[str, int]:
        """Pause a queue."""
        Inspector(taskq).pause(queue.name)
        return _now("Paused."), 1

    @row_action(
        description=_("Resume selected %(verbose_name_plural)s"),
        button=_("Resume"),
        question=ngettext_lazy(
            "Resume %(count)d queue? Workers start its tasks again.",
            "Resume %(count)d queues? Workers start their tasks again.",
            "count",
        ),
        report=ngettext_lazy("%(count)d queue was resumed.", "%(count)d queues were resumed.", "count"),
        permissions=["pause"],
    )
    def resume(self, queue: Queue, deadline: Deadline) -> tuple[str, int]:
        """Resume a queue."""
        Inspector(taskq).resume(queue.name)
        return _now("Resumed."), 1

    @row_action(
        description=_("Empty selected %(verbose_name_plural)s"),
        button=_("Empty"),
        question=ngettext_lazy(
            "Delete all tasks of %(count)d queue in the states chosen here? They cannot be restored.",
            "Delete all tasks of %(count)d queues in the states chosen here? They cannot be restored.",
            "count",
        ),
        report=ngettext_lazy("%(count)d task was deleted.", "%(count)d tasks were deleted.", "count"),
        permissions=["delete"],
        form=EmptyForm,
        is_destructive=True,
    )
    def empty(self, queue: Queue, deadline: Deadline, *, states: Sequence[str]) -> tuple[str, int]:
        """Delete all tasks of a queue in some states."""
        inspector = Inspector(taskq)
        count = 0
        for state in map(TaskState, states):
            is_grouped = state is TaskState.AGGREGATING
            for group in [each.name for each in inspector.groups(queue.name)] if is_grouped else [None]:
                count += inspector.delete_all(queue.name, state, group=group, progress=deadline.progress)
        text = ngettext("Deleted %(count)d task: %(states)s.", "Deleted %(count)d tasks: %(states)s.", count)
        return text % {"count": count, "states": ", ".join(states)}, count

    @row_action(
        description=_("Delete selected %(verbose_name_plural)s"),
        button=_("Delete"),
        question=ngettext_lazy(
            "Delete %(count)d queue with its counters and all its other data?",
            "Delete %(count)d queues with their counters and all their other data?",
            "count",
        ),
        report=ngettext_lazy("%(count)d queue was deleted.", "%(count)d queues were deleted.", "count"),
        permissions=["delete"],
        form=DeleteForm,
        is_destructive=True,
        flag=DELETION,
    )
    def delete_selected(self, queue: Queue, deadline: Deadline, *, force: bool) -> tuple[str, int]:
        """Delete a queue. `force` also deletes it if it has unfinished tasks."""
        count = Inspector(taskq).remove_queue(queue.name, force=force, progress=deadline.progress)
        text = ngettext("Deleted with %(count)d task.", "Deleted with %(count)d tasks.", count)
        return text % {"count": count}, 1


def selected_days(request: HttpRequest) -> int:
    """Return the number of days of the history in the address, by default 30."""
    selected = request.GET.get(DAYS_VAR)
    return next((days for days in DAYS_CHOICES if str(days) == selected), 30)


@admin.register(Queue)
class QueueAdmin(QueueAdminMixin, BaseAdmin):
    """Queues: their tasks and history, and actions on them."""

    change_list_template = "admin/taskq_django/queue_list.html"
