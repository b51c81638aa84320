"""Filters of the list of workflows. Each choice says how many it finds where that is known."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from taskq_core.workflow import WorkflowState
from taskq_django.admin.task_filters import KnownValueFilter
from taskq_django.admin.workflow_labels import WORKFLOW_STATES


class WorkflowQueueFilter(KnownValueFilter):
    """Workflows whose home is one queue."""

    title = _("home queue")
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the queues that are home to any, with how many."""
        counts = model_admin.workflow_counts(request)
        return [(each.queue, f"{each.queue} ({each.running + each.ended})") for each in counts]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the workflows of the queue."""
        return queryset.narrow(queue=self.value())


class WorkflowStateFilter(KnownValueFilter):
    """Workflows by how they stand."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        running = sum(each.running for each in model_admin.workflow_counts(request))
        return [
            (state.value, f"{name} ({running})" if state is WorkflowState.RUNNING else str(name))
            for state, name in WORKFLOW_STATES.items()
        ]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the workflows in the state."""
        value = self.value()
        return queryset if value is None else queryset.narrow(state=WorkflowState(value))
