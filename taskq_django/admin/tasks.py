"""Tasks by queue and state, and the page of one task."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, reverse
from django.utils.translation import gettext as _

from taskq_core import BrokerError, ConfigurationError, TaskInfo, TaskNotFoundError
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import Inspector, UnreadableTask
from taskq_django.admin.base import ReadOnlyAdmin
from taskq_django.admin.task_list import STATE_NAMES, TaskList, object_id
from taskq_django.admin.task_page import moment, retries, roughly, sections_of
from taskq_django.app import taskq
from taskq_django.models import Task


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
