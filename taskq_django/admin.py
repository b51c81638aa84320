"""Queues and tasks in Django's admin, to look at.

Staff with the permission to view them see a list of tasks by queue and state, a page for each task and a list of
queues. Nothing can be changed here. Arguments and results are on a task's own page only. When Redis does not answer,
the pages say so.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from taskq_core import BrokerError, ConfigurationError, TaskInfo, TaskNotFoundError
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import Inspector, UnreadableTask
from taskq_django.admin_detail import moment, retries, roughly, sections_of
from taskq_django.admin_list import STATE_NAMES, PlainList, TaskList, object_id
from taskq_django.app import taskq
from taskq_django.models import OutboxTask, Queue, Task

if TYPE_CHECKING:
    BaseAdmin = admin.ModelAdmin[Any]
else:
    BaseAdmin = admin.ModelAdmin  # Django's own class takes no parameter


class ReadOnlyAdmin(BaseAdmin):
    """Pages of a model without a table: nothing can be added, changed or deleted."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False

    def _page(self, route: str, view: Callable[..., HttpResponseBase], suffix: str) -> URLPattern:
        def checked(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            if not self.has_view_permission(request):
                raise PermissionDenied
            return view(request, **kwargs)

        name = f"{self.opts.app_label}_{self.opts.model_name}_{suffix}"
        return path(route, self.admin_site.admin_view(require_safe(checked)), name=name)

    def _render(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        request.current_app = self.admin_site.name  # as Django's own admin does, for the links
        shared = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "has_view_permission": True,
            "has_add_permission": False,
            "is_popup": False,
        }
        return TemplateResponse(request, f"admin/taskq_django/{template}", {**shared, **context})

    def _render_trouble(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Say what is wrong. With status 200: what failed is not this site, and its operators can read it here."""
        return self._render(
            request,
            "trouble.html",
            {"title": capfirst(self.opts.verbose_name_plural), "cl": PlainList(self.opts), "trouble": str(error)},
        )


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    """Tasks by queue and state, and the page of one task."""

    list_per_page = 50

    def get_urls(self) -> list[URLPattern]:
        """The list and the page of one task."""
        return [
            self._page("", self._list, "changelist"),
            self._page("<path:object_id>/change/", self._detail, "change"),
        ]

    def _list(self, request: HttpRequest) -> HttpResponse:
        try:
            tasks = TaskList(request, self.opts, Inspector(taskq), per_page=self.list_per_page)
        except (BrokerError, ConfigurationError) as error:
            return self._render_trouble(request, error)
        context = {"title": _("Tasks"), "cl": tasks, "rows": [self._row(task) for task in tasks.tasks]}
        return self._render(request, "task_list.html", context)

    def _detail(self, request: HttpRequest, object_id: str) -> HttpResponse:
        quoted_queue, _slash, quoted_id = object_id.partition("/")
        queue, task_id = unquote(quoted_queue), unquote(quoted_id)
        try:
            task = Inspector(taskq).task(queue, task_id)
        except (QueueNotFoundError, TaskNotFoundError) as error:
            raise Http404(_("There is no such task (any more).")) from error
        except (BrokerError, ConfigurationError) as error:
            return self._render_trouble(request, error)
        title = _("Unreadable task") if isinstance(task, UnreadableTask) else task.name
        context = {"title": title, "original": task.id, "sections": sections_of(task), "task": task}
        return self._render(request, "task_detail.html", context)

    def _row(self, task: TaskInfo | UnreadableTask) -> dict[str, Any]:
        """What the list says of a task; its arguments are not among it."""
        row = {
            "id": task.id,
            "url": reverse(
                "admin:taskq_django_task_change",
                args=[object_id(task.queue, task.id)],
                current_app=self.admin_site.name,
            ),
            "queue": task.queue,
            "state": STATE_NAMES[task.state],
        }
        if isinstance(task, UnreadableTask):
            return {**row, "problem": task.problem}
        when = task.next_run_at or task.completed_at or task.archived_at or task.lease_expires_at
        return {
            **row,
            "name": task.name,
            "retries": retries(task),
            "when": when,
            "exactly": moment(when),
            "roughly": roughly(when),
            "last_error": task.last_error.partition("\n")[0],
        }


@admin.register(Queue)
class QueueAdmin(ReadOnlyAdmin):
    """Queues and how full they are."""

    def get_urls(self) -> list[URLPattern]:
        """The list."""
        return [self._page("", self._list, "changelist")]

    def _list(self, request: HttpRequest) -> HttpResponse:
        try:
            infos = Inspector(taskq).queue_infos()
        except (BrokerError, ConfigurationError) as error:
            return self._render_trouble(request, error)
        rows = [{"info": info, "sizes": [(state, info.sizes[state]) for state in STATE_NAMES]} for info in infos]
        tasks_url = ""
        if request.user.has_perm("taskq_django.view_task"):
            tasks_url = reverse("admin:taskq_django_task_changelist", current_app=self.admin_site.name)
        context = {"title": _("Queues"), "cl": PlainList(self.opts), "rows": rows, "states": STATE_NAMES}
        return self._render(request, "queue_list.html", {**context, "tasks_url": tasks_url})


@admin.register(OutboxTask)
class OutboxTaskAdmin(BaseAdmin):
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
