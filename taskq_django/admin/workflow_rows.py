"""Read workflows as rows of the admin."""

from collections.abc import Callable, Sequence
from typing import Any

from django.utils.translation import gettext as _

from taskq_core.errors import BrokerReplyError, QueueNotFoundError, WorkflowDamagedError, WorkflowNotFoundError
from taskq_core.inspector import Inspector
from taskq_core.views import (
    WORKFLOWS_MAX,
    Dashboard,
    WorkflowCounts,
    WorkflowFilter,
    WorkflowRow,
    WorkflowSearch,
)
from taskq_core.workflow import WorkflowState
from taskq_django.admin.formats import Links, key_of, parts_of
from taskq_django.admin.rows import FilteredRows
from taskq_django.app import taskq
from taskq_django.models import Workflow


def read_workflow(key: str) -> Any:
    """Return the row of a workflow with all its steps as `detail`, None if it does not exist.

    A damaged workflow has None as `detail`, and the reason as `problem`.
    """
    queue, workflow_id = parts_of(key)
    row: Any = Workflow(id=key)
    row.detail, row.problem = None, ""
    try:
        row.detail = Dashboard(Inspector(taskq)).workflow(queue, workflow_id)
    except (QueueNotFoundError, WorkflowNotFoundError):
        return None
    except (WorkflowDamagedError, BrokerReplyError) as error:
        if isinstance(error, BrokerReplyError) and "WRONGTYPE" not in str(error):
            raise
        row.problem = str(error)
        facts: dict[str, Any] = {"name": "", "state": WorkflowState.DAMAGED, "created_at": None, "ended_at": None}
    else:
        info = row.detail.graph.info
        facts = {name: getattr(info, name) for name in ("name", "state", "created_at", "ended_at")}
        facts |= {"steps": info.total, "steps_ended": info.ended, "steps_failed": row.detail.failures}
    row.record = WorkflowRow(queue=queue, id=workflow_id, **facts)
    return row


class WorkflowRows(FilteredRows):
    """Workflows.

    Args:
        count_workflows: Returns the number of workflows of each queue, which it reads once per request.
        links: Links to other pages.
        cursor, searches: As in `FilteredRows`.
    """

    def __init__(
        self,
        count_workflows: Callable[[], Sequence[WorkflowCounts]],
        links: Links,
        *,
        cursor: str | None,
        searches: dict[object, Any],
    ) -> None:
        super().__init__(Workflow, WorkflowFilter(), cursor=cursor, searches=searches)
        self._count_workflows = count_workflows
        self._links = links
        self._dashboard = Dashboard(Inspector(taskq))

    def size(self) -> int:
        """Return the number of workflows, or of the workflows found by a search."""
        return len(self.search.rows) if self.wanted.looks_inside else self.wanted.size(self._count_workflows())

    def read(self, start: int, stop: int) -> Sequence[Any]:
        """Read workflows."""
        if self.wanted.looks_inside:
            return [self._row(record) for record in self.search.rows[start:stop]]
        counts = self._count_workflows()
        return [
            self._row(record)
            for skip in range(start, stop, WORKFLOWS_MAX)
            for record in self._dashboard.list_workflows(
                counts, self.wanted, skip=skip, count=min(WORKFLOWS_MAX, stop - skip)
            )
        ]

    def _row(self, record: WorkflowRow) -> Any:
        row: Any = Workflow(id=key_of(record.queue, record.id))
        row.record, row.links = record, self._links
        return row

    def pick(self, keys: Sequence[str]) -> Sequence[Any]:
        """Read workflows by their keys. The filter does not apply."""
        return [row for row in map(read_workflow, keys) if row is not None]

    @property
    def note(self) -> str:  # type: ignore[override]  # computed here
        """Text about the progress of a search, or about an empty list."""
        if self.wanted.looks_inside:
            return self.search_note()
        text = _("No workflows here. An ended workflow is kept for a day, or for its own retention.")
        return "" if self.count() else text

    def run_search(self, cursor: str | None) -> WorkflowSearch:
        """Search workflows from a cursor."""
        return self._dashboard.search_workflows(self._count_workflows(), self.wanted, cursor=cursor)
