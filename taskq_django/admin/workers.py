"""The admin pages of running workers: their tasks, and requests to them."""

from typing import Any

from django.contrib import admin, messages
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop, ngettext, ngettext_lazy, override, pgettext, pgettext_lazy

from taskq_core.errors import WorkerNotFoundError
from taskq_core.inspector import Inspector, WorkerAction, WorkerProcess
from taskq_core.settings import CONCURRENCY_MAX
from taskq_core.views import Dashboard
from taskq_django.admin.actions import AdminForm, confirmed_action
from taskq_django.admin.base import BaseAdmin, RedisAdminMixin
from taskq_django.admin.columns import column
from taskq_django.admin.formats import Links, moment, number, render, span
from taskq_django.admin.rows import ListRows, Rows, row_of
from taskq_django.app import taskq
from taskq_django.models import Worker

SHOWN = 5
"""Maximum number of running tasks of a worker in the list. Its own page shows all of them."""


class ScaleForm(AdminForm):
    """Asks for the new concurrency of workers."""

    columns = {  # noqa: RUF012 - constant, as in Django's own forms
        "concurrency": models.PositiveIntegerField(
            _("Tasks at a time"), validators=[MinValueValidator(1), MaxValueValidator(CONCURRENCY_MAX)]
        )
    }


class WorkerAdminMixin(RedisAdminMixin):
    """The pages of workers, as a mixin for a `ModelAdmin`."""

    list_display = ("host", "pid", "status", "uptime", "busy", "processed", "failed", "queues", "running")
    actions = ("quiet", "resume", "scale", "stop")
    search_fields = ("host",)
    search_help_text = _("Part of the host or of the name of a queue, a status, or a process id.")
    fieldsets = (
        (None, {"fields": ("host", "pid", "id", "status", "started_at", "uptime")}),
        (_("Work"), {"fields": ("busy", "processed", "failed", "all_queues", "all_running")}),
    )

    # --- rows ---------------------------------------------------------------------------------------------------------

    def get_rows(self, request: HttpRequest) -> ListRows:
        """Return all running workers."""
        links = Links(request, self.admin_site)
        found = Dashboard(Inspector(taskq)).workers().workers
        return ListRows(Worker, [row_of(Worker, record.id, record, links=links) for record in found], _is_match)

    # --- columns and lines --------------------------------------------------------------------------------------------

    host = column(_("host"), "host", ordering="host")
    pid = column(_("process id"), "pid", str, ordering="pid")
    status = column(_("status"), "status", lambda status: pgettext("worker status", status), ordering="status")
    started_at = column(pgettext_lazy("time", "started"), "started_at", moment)
    processed = column(_("processed"), "processed", number, ordering="processed")
    failed = column(_("failed"), "failed", number, ordering="failed")

    @admin.display(description=_("uptime"), ordering="uptime", empty_value="-")
    def uptime(self, worker: Any) -> SafeString | str:
        """Return the time since the worker started."""
        record = worker.record
        if record.uptime is None:
            return ""
        return format_html('<span class="nowrap" title="{}">{}</span>', moment(record.started_at), span(record.uptime))

    @admin.display(description=_("concurrency"), ordering="running")
    def busy(self, worker: Any) -> str:
        """Return the number of running tasks, and the maximum."""
        record = worker.record
        return _now("%(running)d of %(most)d") % {"running": len(record.running), "most": record.concurrency}

    @admin.display(description=_("queues"), empty_value="-")
    def queues(self, worker: Any) -> SafeString | str:
        """Return the queues of the worker with their weights."""
        record = worker.record
        queues = ((worker.links.queue(each.name), each.weight) for each in record.weights)
        text = format_html_join(", ", '<span class="nowrap">{}&nbsp;({})</span>', queues)
        return format_html("{} ({})", text, _now("strict priority")) if record.strict_priority and text else text

    @admin.display(description=_("queues"), empty_value="-")
    def all_queues(self, worker: Any) -> SafeString | str:
        """Return a table of the queues of the worker: weights, and how often each is checked first."""
        queues = [(worker.links.queue(each.name), each) for each in worker.record.weights]
        return render("worker_queues.html", queues=queues, worker=worker.record) if queues else ""

    @admin.display(description=_("running now"), empty_value="-")
    def running(self, worker: Any) -> SafeString | str:
        """Return the running tasks of the worker, the longest running first."""
        tasks = self._tasks(worker)
        more = max(0, len(tasks) - SHOWN)
        return render("worker_running.html", tasks=tasks[:SHOWN], more=more) if tasks else ""

    @admin.display(description=_("running now"))
    def all_running(self, worker: Any) -> SafeString:
        """Return all running tasks of the worker with their times, the longest running first."""
        return render("worker_tasks.html", tasks=self._tasks(worker))

    def _tasks(self, worker: Any) -> list[tuple[Any, SafeString | str, SafeString | str]]:
        links: Links = worker.links
        return [
            (task, links.task(task.name or task.task_id, task.queue, task.task_id), links.queue(task.queue))
            for task in worker.record.running
        ]

    # --- actions ------------------------------------------------------------------------------------------------------

    def has_control_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may send requests to workers."""
        return self.allows(request, "control")

    @confirmed_action(
        description=_("Quiet selected %(verbose_name_plural)s"),
        button=_("Quiet"),
        question=ngettext_lazy(
            "Stop %(count)d worker from taking new tasks? Its running tasks continue.",
            "Stop %(count)d workers from taking new tasks? Their running tasks continue.",
            "count",
        ),
        permissions=["control"],
    )
    def quiet(self, request: HttpRequest, workers: Rows, *, shown_marks: Any) -> None:
        """Stop workers from taking new tasks."""
        self._send(request, workers, WorkerAction.QUIET, gettext_noop("Asked to take no new tasks."))

    @confirmed_action(
        description=_("Resume selected %(verbose_name_plural)s"),
        button=_("Resume"),
        question=ngettext_lazy(
            "Let %(count)d worker take tasks again?", "Let %(count)d workers take tasks again?", "count"
        ),
        permissions=["control"],
    )
    def resume(self, request: HttpRequest, workers: Rows, *, shown_marks: Any) -> None:
        """Let workers take tasks again."""
        self._send(request, workers, WorkerAction.RESUME, gettext_noop("Asked to take tasks again."))

    @confirmed_action(
        description=_("Scale selected %(verbose_name_plural)s"),
        button=_("Scale"),
        question=ngettext_lazy(
            "Change how many tasks %(count)d worker runs at a time, until it restarts?",
            "Change how many tasks each of %(count)d workers runs at a time, until it restarts?",
            "count",
        ),
        permissions=["control"],
        form=ScaleForm,
    )
    def scale(self, request: HttpRequest, workers: Rows, *, shown_marks: Any, concurrency: int) -> None:
        """Change the concurrency of workers."""
        self._send(request, workers, WorkerAction.SCALE, gettext_noop("Asked to change its concurrency."), concurrency)

    @confirmed_action(
        description=_("Stop selected %(verbose_name_plural)s"),
        button=_("Stop"),
        question=ngettext_lazy(
            "Stop %(count)d worker? Running tasks get time to finish. All processes of its supervisor stop.",
            "Stop %(count)d workers? Running tasks get time to finish. All processes of their supervisors stop.",
            "count",
        ),
        permissions=["control"],
        is_destructive=True,
    )
    def stop(self, request: HttpRequest, workers: Rows, *, shown_marks: Any) -> None:
        """Stop workers gracefully."""
        self._send(request, workers, WorkerAction.STOP, gettext_noop("Asked to stop."))

    def _send(
        self, request: HttpRequest, workers: Rows, action: WorkerAction, entry: str, concurrency: int | None = None
    ) -> None:
        """Send a request to workers and log it."""
        found = list(workers)
        ids = [str(each.pk) for each in found]
        try:
            reached = {each.id for each in Inspector(taskq).control_workers(action, ids, concurrency=concurrency)}
        except WorkerNotFoundError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        if not reached:
            self.message_user(request, _now("No worker received the request."), messages.ERROR)
            return
        for worker in found:
            with override(None):  # write log entries untranslated, as Django does
                self.log_change(request, worker, _now(entry))
        text = ngettext(
            "The request was sent to %(count)d worker.", "The request was sent to %(count)d workers.", len(reached)
        )
        self.message_user(request, text % {"count": len(reached)}, messages.SUCCESS)


def _is_match(worker: WorkerProcess, text: str) -> bool:
    """Return whether host or queue of a worker contain a text, or its process id or status is the text."""
    parts = [worker.host, *worker.queues]
    return any(text in part.lower() for part in parts) or text in (str(worker.pid), worker.status)


@admin.register(Worker)
class WorkerAdmin(WorkerAdminMixin, BaseAdmin):
    """Running workers, their tasks, and requests to them."""
