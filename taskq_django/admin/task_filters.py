"""Filters of the list of tasks. Each choice says how many tasks it finds where that is known."""

from datetime import timedelta
from typing import Any, ClassVar

from django.contrib.admin import SimpleListFilter
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from taskq_core import TaskState
from taskq_core.inspector import LISTED_STATES, total_of
from taskq_django.app import taskq

NAME_CHARS = 256
"""Most characters of a type that an address may ask for."""

STATE_NAMES: dict[TaskState, Any] = {
    TaskState.ACTIVE: pgettext_lazy("task state", "active"),
    TaskState.PENDING: pgettext_lazy("task state", "pending"),
    TaskState.SCHEDULED: pgettext_lazy("task state", "scheduled"),
    TaskState.RETRY: pgettext_lazy("task state", "retry"),
    TaskState.ARCHIVED: pgettext_lazy("task state", "archived"),
    TaskState.COMPLETED: pgettext_lazy("task state", "completed"),
    TaskState.AGGREGATING: pgettext_lazy("task state", "aggregating"),
}


def asked_state(request: HttpRequest) -> TaskState | None:
    """Return the state that the list is narrowed to."""
    asked = request.GET.get(StateFilter.parameter_name)
    return next((state for state in LISTED_STATES if state == asked), None)


class KnownValueFilter(SimpleListFilter):
    """A filter that takes a value which is none of its choices for none."""

    def value(self) -> str | None:
        """Return the choice that was made."""
        asked = super().value()
        return asked if any(asked == value for value, _title in self.lookup_choices) else None


class QueueFilter(KnownValueFilter):
    """Tasks of one queue."""

    title = _("queue")
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the queues there are, with their sizes in the state that is asked for."""
        state = asked_state(request)
        infos = model_admin.queue_infos(request)
        return [(info.name, f"{info.name} ({total_of([info], state)})") for info in infos]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the tasks of the queue."""
        return queryset.narrow(queue=self.value())


class StateFilter(KnownValueFilter):
    """Tasks in one state."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states, with the sizes of the queue that is asked for."""
        infos = model_admin.queue_infos(request)
        asked = request.GET.get(QueueFilter.parameter_name)
        chosen = [info for info in infos if info.name == asked] or infos
        return [(str(state), f"{STATE_NAMES[state]} ({total_of(chosen, state)})") for state in LISTED_STATES]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the tasks in the state."""
        value = self.value()
        return queryset.narrow(state=None if value is None else TaskState(value))


class TypeFilter(KnownValueFilter):
    """Tasks of one type: the names that are registered here, and the one that an address asks for."""

    title = _("type")
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the names."""
        asked = request.GET.get(self.parameter_name, "")[:NAME_CHARS]
        return [(name, name) for name in sorted({*taskq.tasks, *([asked] if asked else ())})]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the tasks of the type."""
        return queryset.narrow(name=self.value())


class AgeFilter(KnownValueFilter):
    """Tasks by how long ago it is what their state tells of."""

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
        """Return the spans."""
        return [(value, title) for value, (title, _wanted) in self.choices_by_value.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the tasks of the age."""
        value = self.value()
        return queryset if value is None else queryset.narrow(**self.choices_by_value[value][1])
