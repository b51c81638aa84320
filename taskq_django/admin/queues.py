"""Queues and how full they are."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, reverse
from django.utils.translation import gettext as _

from taskq_core import BrokerError, ConfigurationError
from taskq_core.inspector import Inspector
from taskq_django.admin.base import ReadOnlyAdmin
from taskq_django.admin.task_list import STATE_NAMES, PlainList
from taskq_django.app import taskq
from taskq_django.models import Queue


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
