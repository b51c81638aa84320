"""Filters of the lists of tasks and workflows. Each choice shows its number of rows if that is known."""

from datetime import timedelta
from typing import Any, ClassVar

from django.contrib.admin import SimpleListFilter
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext

from taskq_core import TaskState
from taskq_core.inspector import LISTED_STATES, total_of
from taskq_core.workflow import WorkflowState
from taskq_django.admin.formats import state_name
from taskq_django.app import taskq

NAME_CHARS = 256
"""Maximum length of a task type in an address."""


def selected_state(request: HttpRequest) -> TaskState | None:
    """Return the state by which a list of tasks is filtered."""
    selected = request.GET.get(StateFilter.parameter_name)
    return next((state for state in LISTED_STATES if state == selected), None)


class RowFilter(SimpleListFilter):
    """A filter of the list. Its choice sets fields of the filter for reading rows. Unknown values are ignored."""

    field: ClassVar[str]

    def value(self) -> str | None:
        """Return the chosen value, None without a choice."""
        selected = super().value()
        return selected if any(selected == value for value, _title in self.lookup_choices) else None

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the rows that match the chosen value, or all rows if nothing is chosen."""
        value = self.value()
        return queryset if value is None else queryset.narrow(**self.narrowed(value))

    def narrowed(self, value: str) -> dict[str, Any]:
        """Return the fields that a choice sets in the filter for reading rows."""
        return {self.field: value}


class QueueFilter(RowFilter):
    """Filters tasks by queue."""

    title = _("queue")
    parameter_name = field = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the queues, with their sizes in the chosen state."""
        state = selected_state(request)
        infos = model_admin.queue_infos(request)
        return [(info.name, f"{info.name} ({total_of([info], state)})") for info in infos]


class StateFilter(RowFilter):
    """Filters tasks by state."""

    title = _("state")
    parameter_name = field = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states, with the sizes of the chosen queue."""
        infos = model_admin.queue_infos(request)
        selected = request.GET.get(QueueFilter.parameter_name)
        chosen = [info for info in infos if info.name == selected] or infos
        return [(state.value, f"{state_name(state)} ({total_of(chosen, state)})") for state in LISTED_STATES]

    def narrowed(self, value: str) -> dict[str, Any]:
        """Return the state."""
        return {"state": TaskState(value)}


class TypeFilter(RowFilter):
    """Filters tasks by type. The choices are the registered names, and the name in the address."""

    title = _("type")
    parameter_name, field = "type", "name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the names."""
        selected = request.GET.get(self.parameter_name, "")[:NAME_CHARS]
        return [(name, name) for name in sorted({*taskq.tasks, *([selected] if selected else ())})]


class AgeFilter(RowFilter):
    """Filters tasks by age: the time since they entered their state."""

    title = _("age")
    parameter_name = "age"
    choices_by_value: ClassVar[dict[str, tuple[Any, dict[str, timedelta]]]] = {
        "1h": (_("Past hour"), {"newer_than": timedelta(hours=1)}),
        "1d": (_("Past 24 hours"), {"newer_than": timedelta(days=1)}),
        "7d": (_("Past 7 days"), {"newer_than": timedelta(days=7)}),
        "over-1h": (_("Over an hour"), {"older_than": timedelta(hours=1)}),
        "over-1d": (_("Over 24 hours"), {"older_than": timedelta(days=1)}),
        "over-7d": (_("Over 7 days"), {"older_than": timedelta(days=7)}),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the age ranges."""
        return [(value, title) for value, (title, _narrowed) in self.choices_by_value.items()]

    def narrowed(self, value: str) -> dict[str, Any]:
        """Return the bound of the chosen age range, as a field of the filter."""
        return self.choices_by_value[value][1]


class WorkflowQueueFilter(RowFilter):
    """Filters workflows by home queue."""

    title = _("home queue")
    parameter_name = field = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the home queues, with their numbers of workflows."""
        counts = model_admin.workflow_counts(request)
        return [(each.queue, f"{each.queue} ({each.running + each.ended})") for each in counts]


class WorkflowStateFilter(RowFilter):
    """Filters workflows by state."""

    title = _("state")
    parameter_name = field = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        running = sum(each.running for each in model_admin.workflow_counts(request))
        names = [(state.value, pgettext("workflow state", state.value)) for state in WorkflowState]
        return [(state, f"{name} ({running})" if state == WorkflowState.RUNNING else name) for state, name in names]

    def narrowed(self, value: str) -> dict[str, Any]:
        """Return the state."""
        return {"state": WorkflowState(value)}
