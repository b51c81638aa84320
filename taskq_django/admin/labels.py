"""Figures of the dashboard as people read them. Whatever comes from Redis is escaped."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib.admin.utils import quote
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import pgettext_lazy

from taskq_core import OversizedResult
from taskq_core.views import MemberRow
from taskq_core.views import labels as telling
from taskq_core.workflow import StepInfo
from taskq_django.admin.language import told_as_active
from taskq_django.admin.task_rows import key_of
from taskq_django.models import Queue, Task, Workflow

WORKER_STATUSES: Mapping[str, Any] = {
    "new": pgettext_lazy("worker status", "new"),
    "active": pgettext_lazy("worker status", "active"),
    "stopped": pgettext_lazy("worker status", "stopped"),
    "closed": pgettext_lazy("worker status", "closed"),
}


FEW = 10
"""So many rows are seen at once: their lists have no filters, which take the room of columns."""


def number(value: int) -> str:
    """Return a number as people here write it."""
    return number_format(value, use_l10n=True, force_grouping=True)


def per_cent(rate: float | None) -> str:
    """Return a share, 0 to 1; nothing for none."""
    return "" if rate is None else _("%(number)s %%") % {"number": _one_digit(100 * rate)}


def _one_digit(value: float) -> str:
    return number_format(round(value, 1), 1)  # which cuts further digits off by itself


def size(value: int | None) -> str:
    """Return about how many bytes something takes; nothing where that is not known."""
    return "" if value is None else filesizeformat(value)


def span(value: timedelta | None) -> str:
    """Return a span in its two largest units; nothing for none."""
    if value is None:
        return ""
    with told_as_active():
        return telling.span(value, _one_digit)


def step_state(step: StepInfo | MemberRow) -> str:
    """Return the state of a step of a workflow, or of a member of a group."""
    with told_as_active():
        return telling.step_state(step)


def not_stored(result: OversizedResult) -> str:
    """Return why a result is not there: it was too large to be stored."""
    with told_as_active():
        return telling.not_stored(result)


def nowrap(text: str) -> SafeString | str:
    """Return a text that stays on one line; nothing for none."""
    return format_html('<span class="nowrap">{}</span>', text) if text else ""


class Links:
    """Addresses of other pages, as far as this user may see them and this site has them.

    Args:
        request: Who looks.
        site: The admin site.

    Attributes:
        sees_tasks: Whether they may see tasks, with their arguments, errors and results.
    """

    def __init__(self, request: HttpRequest, site: Any) -> None:
        self._site = site
        self.sees_tasks = self._sees(request, Task)
        self._sees_queues = self._sees(request, Queue)
        self._sees_workflows = self._sees(request, Workflow)

    def _sees(self, request: HttpRequest, model: Any) -> bool:
        if not self._site.is_registered(model):
            return False
        return bool(self._site.get_model_admin(model).has_view_permission(request))

    def tasks(self, text: object, **query: str) -> SafeString | str:
        """Return a link to a list of tasks, or the text alone."""
        if not self.sees_tasks:
            return str(text)
        return self._link(text, "task_changelist", query=query)

    def task(self, text: object, queue: str, task_id: str) -> SafeString | str:
        """Return a link to the page of a task, or the text alone."""
        if not self.sees_tasks:
            return str(text)
        return self._link(text, "task_change", quote(key_of(queue, task_id)))

    def queue(self, name: str) -> SafeString | str:
        """Return a link to the page of a queue, or its name alone."""
        return self._link(name, "queue_change", quote(name)) if self._sees_queues and name else name

    def workflow(self, text: object, queue: str, workflow_id: str) -> SafeString | str:
        """Return a link to the page of a workflow, or the text alone."""
        if not self._sees_workflows:
            return str(text)
        return self._link(text, "workflow_change", quote(key_of(queue, workflow_id)))

    def workflows(self, text: object, **query: str) -> SafeString | str:
        """Return a link to a list of workflows; nothing for who may not see them."""
        return self._link(text, "workflow_changelist", query=query) if self._sees_workflows else ""

    def _link(self, text: object, page: str, *args: str, query: Mapping[str, str] | None = None) -> SafeString:
        address = reverse(f"admin:taskq_django_{page}", args=args, current_app=self._site.name)
        return format_html('<a href="{}{}">{}</a>', address, f"?{urlencode(query)}" if query else "", text)
