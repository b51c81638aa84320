"""Workflows as rows of the admin: what a list asks for, and where it is read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from django.utils.translation import gettext as _

from taskq_core import ConfigurationError
from taskq_core.errors import BrokerReplyError, QueueNotFoundError, WorkflowDamagedError, WorkflowNotFoundError
from taskq_core.inspector import Inspector
from taskq_core.views import (
    WORKFLOW_SCAN_MAX,
    WORKFLOWS_MAX,
    Dashboard,
    WorkflowCounts,
    WorkflowDetail,
    WorkflowFilter,
    WorkflowRow,
    WorkflowSearch,
)
from taskq_core.workflow import WorkflowState
from taskq_django.admin.labels import Links
from taskq_django.admin.rows import Rows
from taskq_django.admin.task_rows import key_of, parts_of
from taskq_django.app import taskq
from taskq_django.models import Workflow


def row_of(record: WorkflowRow, links: Links) -> Any:
    """Return the row of a workflow."""
    row: Any = Workflow(id=key_of(record.queue, record.id))
    row.record, row.links = record, links
    return row


def read_one(key: str, links: Links) -> Any:
    """Return the row of a workflow with all its steps as `detail`, None if it is not there (any more).

    One that is damaged has no `detail`, and its `problem` says why.
    """
    queue, workflow_id = parts_of(key)
    detail: WorkflowDetail | None = None
    problem = ""
    try:
        detail = Dashboard(Inspector(taskq)).workflow(queue, workflow_id)
    except (QueueNotFoundError, WorkflowNotFoundError):
        return None
    except (WorkflowDamagedError, BrokerReplyError) as error:
        if isinstance(error, BrokerReplyError) and "WRONGTYPE" not in str(error):
            raise
        problem = str(error)
        state = WorkflowState.DAMAGED
        record = WorkflowRow(queue=queue, id=workflow_id, name="", state=state, created_at=None, ended_at=None)
    else:
        info = detail.graph.info
        record = WorkflowRow(
            queue=queue,
            id=workflow_id,
            name=info.name,
            state=info.state,
            created_at=info.created_at,
            ended_at=info.ended_at,
            steps=info.total,
            steps_ended=info.ended,
            steps_failed=detail.failures,
        )
    row = row_of(record, links)
    row.detail, row.problem = detail, problem
    return row


class WorkflowRows(Rows):
    """Workflows that are wanted.

    Args:
        read_counts: Returns how many there are of each queue, read once a request.
        links: Addresses of other pages.
        wanted: Which workflows.
        cursor: Where a search goes on, None at the start.
        searches: What was searched for these rows already; shared by all that are made of them.
    """

    def __init__(
        self,
        read_counts: Callable[[], Sequence[WorkflowCounts]],
        links: Links,
        *,
        wanted: WorkflowFilter | None = None,
        cursor: str | None = None,
        searches: dict[Any, WorkflowSearch] | None = None,
    ) -> None:
        super().__init__(Workflow)
        self._read_counts = read_counts
        self._links = links
        self.wanted = wanted or WorkflowFilter()
        self._cursor = cursor
        self._dashboard = Dashboard(Inspector(taskq))
        self._searches = {} if searches is None else searches

    def narrow(self, **wanted: Any) -> "WorkflowRows":
        """Return those that are wanted besides."""
        return WorkflowRows(
            self._read_counts,
            self._links,
            wanted=replace(self.wanted, **wanted),
            cursor=self._cursor,
            searches=self._searches,
        )

    def size(self) -> int:
        """Return how many there are; of a search, how many it found."""
        return len(self._search().rows) if self.wanted.looks_inside else self.wanted.size(self._read_counts())

    def read(self, start: int, stop: int) -> Sequence[Any]:
        """Read workflows."""
        if self.wanted.looks_inside:
            found = list(self._search().rows[start:stop])
        else:
            counts = self._read_counts()
            found = [
                record
                for skip in range(start, stop, WORKFLOWS_MAX)
                for record in self._dashboard.list_workflows(
                    counts, self.wanted, skip=skip, count=min(WORKFLOWS_MAX, stop - skip)
                )
            ]
        return [row_of(record, self._links) for record in found]

    def pick(self, keys: Sequence[str]) -> Sequence[Any]:
        """Read workflows by their keys, whatever else is wanted."""
        found = (read_one(key, self._links) for key in keys)
        return [row for row in found if row is not None]

    @property
    def next_cursor(self) -> str | None:
        """Where a search goes on, None if it is at its end."""
        return self._search().cursor if self.wanted.looks_inside else None

    @property
    def note(self) -> str:
        """How far a search got, and why there are none."""
        if not self.wanted.looks_inside:
            return "" if self.count() else _("No workflows here. One that has ended is kept for a day, or as it says.")
        search = self._search()
        facts = {"scanned": search.scanned, "total": search.total, "most": WORKFLOW_SCAN_MAX}
        if self._cursor is not None:
            return _("%(scanned)d more of %(total)d workflows were read.") % facts
        if search.cursor is not None:
            return _("%(scanned)d of %(total)d workflows were read; at most %(most)d are read at once.") % facts
        return "" if search.rows else _("None of %(total)d workflows fits.") % facts

    def _search(self) -> WorkflowSearch:
        """Search once a request, whatever is made of these rows: it may read thousands of workflows."""
        key = (self.wanted, self._cursor)
        if key not in self._searches:
            counts = self._read_counts()
            try:
                self._searches[key] = self._dashboard.search_workflows(counts, self.wanted, cursor=self._cursor)
            except ConfigurationError:  # the cursor of an address that somebody has changed
                self._searches[key] = self._dashboard.search_workflows(counts, self.wanted)
        return self._searches[key]
