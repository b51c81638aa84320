"""Queues: how they stand, what they did, and what can be done to them."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, ngettext_lazy

from taskq_core import BrokerError, ConfigurationError, TaskState
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import Inspector
from taskq_core.views import DAYS_CHOICES, Dashboard, QueuesOverview, QueueStatus
from taskq_django.admin.actions import confirmed_action
from taskq_django.admin.base import BaseAdmin, RedisAdminMixin
from taskq_django.admin.charts import history_chart
from taskq_django.admin.labels import FEW, Links
from taskq_django.admin.line_charts import POINTS, RECENT
from taskq_django.admin.queue_actions import READ, DeleteForm, EmptyForm, Stopwatch, each, empty
from taskq_django.admin.queue_columns import DAYS_VAR, STATUS_NAMES, QueueColumns, days_text
from taskq_django.admin.rows import Rows
from taskq_django.admin.sorting import SortedRows
from taskq_django.admin.task_filters import STATE_NAMES
from taskq_django.app import taskq
from taskq_django.models import Queue


class QueueStatusFilter(SimpleListFilter):
    """Queues by status."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the statuses, with how many queues have each."""
        queues = model_admin.overview(request).queues
        counts = {status: sum(row.status is status for row in queues) for status in QueueStatus}
        return [(status.value, f"{STATUS_NAMES[status]} ({count})") for status, count in counts.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the queues of the status."""
        status = self.value()
        return queryset if status is None else queryset.only_if(lambda queue: queue.record.status == status)


class QueueAdminMixin(QueueColumns, RedisAdminMixin):
    """The pages of queues, to be put over a `ModelAdmin`: a list, and a page for each with its past."""

    list_display = ("name", "status", "tasks", "latency", "memory", "processed_today", "failed_today", "error_rate")
    list_filter = (QueueStatusFilter,)
    search_fields = ("name",)  # what is searched is said by get_search_results; this shows the form
    search_help_text = _("Part of the name of a queue.")
    actions = ("pause", "resume", "empty", "delete_selected")
    fieldsets = (
        (None, {"fields": ("name", "status", "problem", "workflows", "buttons")}),
        (_("Tasks"), {"fields": ("bar", "sizes", "groups", "latency", "memory")}),
        (_("Runs"), {"fields": ("today", "total", "recent", "history")}),
        (_("Task types"), {"fields": ("types",)}),
    )
    readonly_fields = (
        *(
            "name",
            "status",
            "problem",
            "workflows",
            "buttons",
            "bar",
            "sizes",
            "groups",
            "latency",
            "memory",
            "today",
            "total",
        ),
        *("recent", "history", "types"),
    )

    # --- rows ---------------------------------------------------------------------------------------------------------

    def dashboard(self) -> Dashboard:
        """Return what reads the queues."""
        return Dashboard(Inspector(taskq))

    def overview(self, request: HttpRequest) -> QueuesOverview:
        """Return how the queues stand, read once a request."""
        found: QueuesOverview | None = getattr(request, READ, None)
        if found is None:
            found = self.dashboard().queues()
            setattr(request, READ, found)
        return found

    def get_rows(self, request: HttpRequest) -> Rows:
        """Return all queues."""
        links = Links(request, self.admin_site)
        found = self.overview(request)
        largest = max((row.size for row in found.queues), default=0)
        return SortedRows(Queue, [self._row(row, links, largest) for row in found.queues])

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Return the filters; of a few queues all are seen at once, and their figures need the room."""
        return super().get_list_filter(request) if len(self.overview(request).queues) > FEW else ()

    def _row(self, record: Any, links: Links, largest: int) -> Queue:
        queue: Any = Queue(name=record.name)
        queue.record, queue.links, queue.largest = record, links, largest
        return queue  # type: ignore[no-any-return]  # a Queue with what its columns need

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the queues whose name has this part."""
        text = search_term.strip().lower()
        return (queryset.only_if(lambda queue: text in queue.name.lower()) if text else queryset), False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return one queue in full, None if it is not there (any more)."""
        try:
            detail = self.dashboard().queue(object_id, days=asked_days(request))
        except QueueNotFoundError:
            return None
        queue: Any = self._row(detail.queue, Links(request, self.admin_site), detail.queue.size)
        queue.detail, queue.days = detail, asked_days(request)
        (queue.recent,) = self.dashboard().samples((object_id,), span=RECENT, points=POINTS)
        queue.action_links = self.action_links(request, queue)
        return queue

    # --- the list -----------------------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, with the past of all queues together as `taskq_history` for its template."""
        context = dict(extra_context or {})
        if request.method == "GET" and self.has_view_or_change_permission(request):
            try:
                context["taskq_history"] = self._past(request)
            except (BrokerError, ConfigurationError) as error:
                return self.render_trouble(request, error)
        return super().changelist_view(request, context)

    def _past(self, request: HttpRequest) -> SafeString:
        days = asked_days(request)
        names = [row.name for row in self.overview(request).queues]
        past = self.dashboard().history(names, days=days)
        choices = []
        for choice in DAYS_CHOICES:
            query = request.GET.copy()
            query[DAYS_VAR] = str(choice)
            choices.append((f"?{query.urlencode()}", days_text(choice), choice == days))
        return history_chart(past, key="taskq-history", heading=_now("Runs by day, all queues"), choices=choices)

    # --- actions ------------------------------------------------------------------------------------------------------

    @confirmed_action(
        description=_("Pause selected %(verbose_name_plural)s"),
        button=_("Pause"),
        question=ngettext_lazy(
            "Pause %(count)d queue? Workers take no more tasks of it; what runs goes on.",
            "Pause %(count)d queues? Workers take no more tasks of them; what runs goes on.",
            "count",
        ),
        permissions=["pause"],
    )
    def pause(self, request: HttpRequest, queues: Rows, *, seen: Any) -> None:
        """Keep workers from taking tasks."""
        inspector = Inspector(taskq)

        def act(name: str) -> str:
            inspector.pause(name)
            return _now("Paused.")

        if done := each(request, queues, act):
            text = ngettext("%(count)d queue was paused.", "%(count)d queues were paused.", len(done))
            self.message_user(request, text % {"count": len(done)}, messages.SUCCESS)

    @confirmed_action(
        description=_("Resume selected %(verbose_name_plural)s"),
        button=_("Resume"),
        question=ngettext_lazy(
            "Resume %(count)d queue? Workers take its tasks again.",
            "Resume %(count)d queues? Workers take their tasks again.",
            "count",
        ),
        permissions=["pause"],
    )
    def resume(self, request: HttpRequest, queues: Rows, *, seen: Any) -> None:
        """Let workers take tasks again."""
        inspector = Inspector(taskq)

        def act(name: str) -> str:
            inspector.resume(name)
            return _now("Resumed.")

        if done := each(request, queues, act):
            text = ngettext("%(count)d queue was resumed.", "%(count)d queues were resumed.", len(done))
            self.message_user(request, text % {"count": len(done)}, messages.SUCCESS)

    def empty_form(self, request: HttpRequest, data: Any) -> EmptyForm:
        """Return the form that asks which tasks to delete, with how many the chosen queues have of each state."""
        queues = self.overview(request).queues
        if request.POST.get("select_across") != "1":
            match = request.resolver_match
            own = [] if match is None else [unquote(each) for each in (match.kwargs.get("object_id"),) if each]
            names = own or request.POST.getlist(ACTION_CHECKBOX_NAME)
            queues = [row for row in queues if row.name in names]
        return EmptyForm(data, QueuesOverview(queues=queues).sizes)

    @confirmed_action(
        description=_("Empty selected %(verbose_name_plural)s"),
        button=_("Empty"),
        question=ngettext_lazy(
            "Delete all tasks of %(count)d queue that are in the states chosen here? They cannot be brought back.",
            "Delete all tasks of %(count)d queues that are in the states chosen here? They cannot be brought back.",
            "count",
        ),
        permissions=["delete"],
        form="empty_form",
        is_destructive=True,
    )
    def empty(self, request: HttpRequest, queues: Rows, *, seen: Any, states: Sequence[str]) -> None:
        """Delete all tasks of some states."""
        inspector, watch = Inspector(taskq), Stopwatch()
        chosen = [TaskState(state) for state in states]
        deleted = 0

        def act(name: str) -> str:
            nonlocal deleted
            count = empty(inspector, name, chosen, watch)
            deleted += count
            names = ", ".join(str(STATE_NAMES[state]) for state in chosen)
            text = ngettext("Deleted %(count)d task: %(states)s.", "Deleted %(count)d tasks: %(states)s.", count)
            return text % {"count": count, "states": names}

        if each(request, queues, act, watch=watch):
            text = ngettext("%(count)d task was deleted.", "%(count)d tasks were deleted.", deleted)
            self.message_user(request, text % {"count": deleted}, messages.SUCCESS)

    @confirmed_action(
        description=_("Delete selected %(verbose_name_plural)s"),
        button=_("Delete"),
        question=ngettext_lazy(
            "Delete %(count)d queue with its counters and all that belongs to it?",
            "Delete %(count)d queues with their counters and all that belongs to them?",
            "count",
        ),
        permissions=["delete"],
        form=DeleteForm,
        is_destructive=True,
    )
    def delete_selected(self, request: HttpRequest, queues: Rows, *, seen: Any, force: bool) -> None:
        """Delete queues, those with tasks in them only if that is said."""
        inspector, watch = Inspector(taskq), Stopwatch()

        def act(name: str) -> str:
            count = inspector.remove_queue(name, force=force, progress=watch.progress)
            text = ngettext("Deleted with %(count)d task.", "Deleted with %(count)d tasks.", count)
            return text % {"count": count}

        if done := each(request, queues, act, watch=watch, is_deletion=True):
            text = ngettext("%(count)d queue was deleted.", "%(count)d queues were deleted.", len(done))
            self.message_user(request, text % {"count": len(done)}, messages.SUCCESS)

    def action_links(self, request: HttpRequest, obj: Any) -> list[tuple[str, str]]:
        """Return the actions that make sense for this queue; to delete it the page has a button already."""
        needless = ("delete_selected", "pause" if obj.record.is_paused else "resume")
        links = zip(self._allowed(request), super().action_links(request, obj), strict=True)
        return [link for name, link in links if name not in needless]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what there is to say of a queue; what cannot be told of this one is left out."""
        if obj is None:
            return self.fieldsets
        left_out = {
            *(() if obj.record.problem else ("problem",)),
            *(() if self.workflows(obj) else ("workflows",)),
            *(() if obj.action_links else ("buttons",)),
            *(() if obj.detail.types else ("types",)),
        }
        told = []
        for heading, options in self.fieldsets:
            fields = tuple(name for name in options["fields"] if name not in left_out)
            if fields:
                told.append((heading, {**options, "fields": fields}))
        return told


def asked_days(request: HttpRequest) -> int:
    """Return how many days of the past are asked for; 30 unless it is one of the choices."""
    asked = request.GET.get(DAYS_VAR)
    return next((days for days in DAYS_CHOICES if str(days) == asked), 30)


@admin.register(Queue)
class QueueAdmin(QueueAdminMixin, BaseAdmin):
    """Queues: how they stand, what they did, and what can be done to them."""

    change_list_template = "admin/taskq_django/queue_list.html"
