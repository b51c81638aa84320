"""Workers that live, and what they run."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, pgettext_lazy

from taskq_core.inspector import Inspector
from taskq_core.views import Dashboard, QueueWeight, RunningRow, WorkerRow, WorkersOverview
from taskq_django.admin.base import BaseAdmin, RedisAdminMixin
from taskq_django.admin.labels import FEW, WORKER_STATUSES, Links, number, per_cent, span
from taskq_django.admin.sorting import SortedRows
from taskq_django.admin.task_page import moment, when
from taskq_django.admin.worker_actions import ACTIONS, WorkerActionsMixin
from taskq_django.app import taskq
from taskq_django.models import Worker

SHOWN = 5
"""Most running tasks that the list names of a worker; its own page names all."""


class WorkerStatusFilter(SimpleListFilter):
    """Workers by status."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the statuses there are."""
        there = {worker.status for worker in model_admin.overview(request).workers}
        return [(status, WORKER_STATUSES.get(status, status)) for status in sorted(there)]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the workers of the status."""
        status = self.value()
        return queryset if status is None else queryset.only_if(lambda worker: worker.record.status == status)


class WorkerQueueFilter(SimpleListFilter):
    """Workers that serve a queue."""

    title = _("queue")
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the queues that are served."""
        return [
            (name, name)
            for name in sorted({name for worker in model_admin.overview(request).workers for name in _names(worker)})
        ]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the workers that serve the queue."""
        name = self.value()
        return queryset if name is None else queryset.only_if(lambda worker: name in _names(worker.record))


def _names(worker: WorkerRow) -> list[str]:
    return [queue.name for queue in worker.queues]


class WorkerAdminMixin(WorkerActionsMixin, RedisAdminMixin):
    """The pages of workers, to be put over a `ModelAdmin`."""

    list_display = ("host", "pid", "status", "uptime", "busy", "processed", "failed", "queues", "running")
    list_filter = (WorkerStatusFilter, WorkerQueueFilter)
    actions = ACTIONS
    search_fields = ("host",)  # what is searched is said by get_search_results; this shows the form
    search_help_text = _("Part of the host, or a process id.")
    fieldsets = (
        (None, {"fields": ("host", "pid", "id", "status", "started_at", "uptime")}),
        (_("Work"), {"fields": ("busy", "processed", "failed", "all_queues", "all_running")}),
    )
    readonly_fields = (
        *("host", "pid", "id", "status", "started_at", "uptime", "busy", "processed", "failed"),
        *("all_queues", "all_running"),
    )

    # --- rows ---------------------------------------------------------------------------------------------------------

    def overview(self, request: HttpRequest) -> WorkersOverview:
        """Return the workers that live, read once a request."""
        found: WorkersOverview | None = getattr(request, "taskq_workers", None)
        if found is None:
            found = Dashboard(Inspector(taskq)).workers()
            request.taskq_workers = found  # type: ignore[attr-defined]  # kept for this request
        return found

    def get_rows(self, request: HttpRequest) -> SortedRows:
        """Return all workers that live."""
        links = Links(request, self.admin_site)
        rows = []
        for record in self.overview(request).workers:
            worker: Any = Worker(id=record.id)
            worker.record, worker.links = record, links
            rows.append(worker)
        return SortedRows(Worker, rows)

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Return the filters; of a few workers all are seen at once."""
        return super().get_list_filter(request) if len(self.overview(request).workers) > FEW else ()

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the workers whose host has this part, or whose process id this is."""
        text = search_term.strip().lower()

        def fits(worker: Any) -> bool:
            return text in worker.record.host.lower() or text == str(worker.record.pid)

        return (queryset.only_if(fits) if text else queryset), False

    # --- columns and lines --------------------------------------------------------------------------------------------

    @admin.display(description=_("host"), ordering="host")
    def host(self, worker: Any) -> str:
        """The name of its machine."""
        return worker.record.host or "-"

    @admin.display(description=_("process id"), ordering="pid")
    def pid(self, worker: Any) -> str:
        """Its process id."""
        return str(worker.record.pid)

    @admin.display(description=_("status"), ordering="status")
    def status(self, worker: Any) -> str:
        """What it says of itself."""
        return str(WORKER_STATUSES.get(worker.record.status, worker.record.status))

    @admin.display(description=pgettext_lazy("time", "started"), empty_value="-")
    def started_at(self, worker: Any) -> str:
        """When it started."""
        return moment(worker.record.started_at)

    @admin.display(description=_("uptime"), ordering="uptime", empty_value="-")
    def uptime(self, worker: Any) -> SafeString | str:
        """How long it has lived."""
        record = worker.record
        if record.uptime is None:
            return ""
        return format_html('<span class="nowrap" title="{}">{}</span>', moment(record.started_at), span(record.uptime))

    @admin.display(description=_("concurrency"), ordering="running")
    def busy(self, worker: Any) -> str:
        """How many tasks it runs, of how many at most."""
        record = worker.record
        return _now("%(running)d of %(most)d") % {"running": len(record.running), "most": record.concurrency}

    @admin.display(description=_("processed"), ordering="processed", empty_value="-")
    def processed(self, worker: Any) -> str:
        """How many tasks it has run since it started."""
        return "" if worker.record.processed is None else number(worker.record.processed)

    @admin.display(description=_("failed"), ordering="failed", empty_value="-")
    def failed(self, worker: Any) -> str:
        """How many of these runs failed."""
        return "" if worker.record.failed is None else number(worker.record.failed)

    @admin.display(description=_("queues"), empty_value="-")
    def queues(self, worker: Any) -> SafeString | str:
        """The queues it serves, with their weights."""
        record = worker.record
        text = format_html_join(", ", "{}", ((_queue(worker, each),) for each in record.queues))
        return format_html("{} ({})", text, _now("strict priority")) if record.strict_priority and text else text

    @admin.display(description=_("queues"), empty_value="-")
    def all_queues(self, worker: Any) -> SafeString | str:
        """The queues it serves, and how often it asks each first."""
        record = worker.record
        if not record.queues:
            return ""
        rows = ((worker.links.queue(each.name), each.weight, per_cent(each.share) or "-") for each in record.queues)
        table = format_html(
            '<table class="taskq-table"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>',
            _headings(_now("Queue"), _now("Weight"), _now("Asked first")),
            format_html_join(
                "",
                '<tr><th scope="row">{}</th><td class="taskq-number">{}</td><td class="taskq-number">{}</td></tr>',
                rows,
            ),
        )
        if not record.strict_priority:
            return table
        note = _now("Strict priority: a queue is asked only while those of larger weight are empty.")
        return format_html('{}<div class="help">{}</div>', table, note)

    @admin.display(description=_("running now"), empty_value="-")
    def running(self, worker: Any) -> SafeString | str:
        """What it runs, longest first."""
        tasks = worker.record.running
        shown = format_html_join("", "<li>{}</li>", ((_running(worker, task),) for task in tasks[:SHOWN]))
        more = len(tasks) - SHOWN
        if more > 0:
            rest = ngettext("and %(more)d more", "and %(more)d more", more) % {"more": more}
            shown = format_html("{}<li>{}</li>", shown, rest)
        return format_html('<ul class="taskq-running">{}</ul>', shown) if tasks else ""

    @admin.display(description=_("running now"), empty_value="-")
    def all_running(self, worker: Any) -> SafeString | str:
        """All it runs, longest first, with its times."""
        tasks: Sequence[RunningRow] = worker.record.running
        if not tasks:
            return format_html('<div id="taskq-running" data-taskq-live>{}</div>', _now("Nothing."))
        rows = (
            (
                worker.links.task(task.name or task.task_id, task.queue, task.task_id),
                task.task_id,
                worker.links.queue(task.queue),
                when(task.started_at) or "-",
                span(task.running_for) or "-",
                moment(task.deadline) or "-",
                _overdue(task),
            )
            for task in tasks
        )
        return format_html(
            '<div id="taskq-running" class="taskq-scroll-x" data-taskq-live><table class="taskq-table">'
            "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>",
            _headings(_now("Task"), _now("Id"), _now("Queue"), _now("Since"), _now("For"), _now("Deadline")),
            format_html_join(
                "",
                '<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}{}</td></tr>',
                rows,
            ),
        )


def _headings(*texts: str) -> SafeString:
    return format_html_join("", '<th scope="col">{}</th>', ((text,) for text in texts))


def _queue(worker: Any, queue: QueueWeight) -> SafeString:
    return format_html('<span class="nowrap">{}&nbsp;({})</span>', worker.links.queue(queue.name), queue.weight)


def _running(worker: Any, task: RunningRow) -> SafeString:
    link = worker.links.task(task.name or task.task_id, task.queue, task.task_id)
    since = span(task.running_for)
    said = _now("for %(span)s") % {"span": since} if since else ""
    return format_html(
        '{} <span class="quiet nowrap" title="{}">{}{}</span>', link, moment(task.started_at), said, _overdue(task)
    )


def _overdue(task: RunningRow) -> str:
    return f" ({_now('overdue')})" if task.is_overdue else ""


@admin.register(Worker)
class WorkerAdmin(WorkerAdminMixin, BaseAdmin):
    """Workers that live, and what they run."""
