"""The admin pages of workflows: the list, the page of one workflow with its graph and steps, and actions."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from taskq_core import WorkflowError
from taskq_core.errors import BrokerReplyError, QueueNotFoundError, WorkflowDamagedError, WorkflowNotFoundError
from taskq_core.inspector import Inspector
from taskq_core.views import (
    MEMBERS_MAX,
    WORKFLOW_SCAN_MAX,
    WORKFLOWS_MAX,
    Dashboard,
    WorkflowCounts,
    WorkflowFilter,
    WorkflowRow,
    WorkflowSearch,
)
from taskq_core.workflow import WorkflowHandle, WorkflowState
from taskq_django.admin.actions import ACTED_MAX, Deadline, SkippedError, row_action
from taskq_django.admin.base import BaseAdmin, RedisAdminMixin
from taskq_django.admin.filters import WorkflowQueueFilter, WorkflowStateFilter
from taskq_django.admin.formats import Links, key_of, parts_of, sees_payloads
from taskq_django.admin.rows import FilteredRows, once, row_of
from taskq_django.admin.workflow_fields import MEMBERS_SHOWN, WorkflowColumns, members_page
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
    """Rows of the list of workflows.

    Args:
        request: As in `FilteredRows`.
        page_size: As in `FilteredRows`.
        count_workflows: Returns the number of workflows of each queue, which it reads once per request.
        links: Links to other pages.
    """

    search_max = WORKFLOW_SCAN_MAX

    def __init__(
        self,
        request: HttpRequest,
        page_size: int,
        count_workflows: Callable[[], Sequence[WorkflowCounts]],
        links: Links,
    ) -> None:
        super().__init__(Workflow, WorkflowFilter(), request, page_size)
        self._count_workflows = count_workflows
        self._links = links
        self._dashboard = Dashboard(Inspector(taskq))

    def size(self) -> int:
        """Return the number of workflows, or of the workflows found by a search."""
        return len(self.search.rows) if self.wanted.needs_reading else self.total()

    def total(self) -> int:
        """Return the number of workflows, or of the workflows that a search reads."""
        size: int = self.wanted.size(self._count_workflows())
        return size

    def read(self, start: int, stop: int) -> Sequence[Any]:
        """Read workflows."""
        if self.wanted.needs_reading:
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
        return row_of(Workflow, key_of(record.queue, record.id), record, links=self._links)

    def pick(self, keys: Sequence[str]) -> Sequence[Any]:
        """Read workflows by their keys. The filter does not apply."""
        return [row for row in map(read_workflow, keys) if row is not None]

    @property
    def note(self) -> str:  # type: ignore[override]  # computed here
        """Text about the progress of a search, or about an empty list."""
        if self.wanted.needs_reading:
            return self.search_note()
        text = _("No workflows here. An ended workflow is kept for a day, or for its own retention.")
        return "" if self.count() else text

    def run_search(self, cursor: str | None, limit: int) -> WorkflowSearch:
        """Search workflows from a cursor. For an action on all matching workflows, repeat the search to its end."""
        deadline, counts = Deadline(), self._count_workflows()
        rows: list[WorkflowRow] = []
        while True:
            found = self._dashboard.search_workflows(counts, self.wanted, cursor=cursor, limit=limit)
            rows += found.rows
            cursor = found.cursor
            if not self.is_for_all or cursor is None or len(rows) >= ACTED_MAX or deadline.is_over:
                return replace(found, rows=rows)


_ABOUT = ("name", "workflow_id", "home", "state", "progress", "started_at", "ended_at", "problem")


class WorkflowAdminMixin(WorkflowColumns, RedisAdminMixin):
    """The pages of workflows, as a mixin for a `ModelAdmin`.

    The list has filters by home queue and state. The page of a workflow shows its graph, its steps, and the result of
    one step or the members of a group. Errors are shown only to users who may view tasks, and results only to users who
    may also view payloads.
    """

    list_display = ("title", "state", "progress", "home", "started", "ended")
    list_filter = (WorkflowStateFilter, WorkflowQueueFilter)
    search_fields = ("id",)
    search_help_text = gettext_lazy("Part of the name, the id or the home queue of a workflow.")
    actions: Any = ("cancel_workflows", "retry_workflows")
    fieldsets = (
        (None, {"fields": (*_ABOUT, "buttons")}),
        (gettext_lazy("Graph"), {"fields": ("graph",)}),
        (gettext_lazy("One step"), {"fields": ("step",)}),
        (gettext_lazy("Steps"), {"fields": ("steps",)}),
    )

    # --- rows ---------------------------------------------------------------------------------------------------------

    def workflow_counts(self, request: HttpRequest) -> Sequence[WorkflowCounts]:
        """Return the number of workflows of each home queue that has some. The numbers are read once per request."""
        inspector = Inspector(taskq)
        read = lambda: Dashboard(inspector).workflow_counts(inspector.queues())  # noqa: E731 - read only if not stored
        return [each for each in once(request, "workflows", read) if each.running or each.ended]

    def get_rows(self, request: HttpRequest) -> WorkflowRows:
        """Return all workflows."""
        links = Links(request, self.admin_site)
        return WorkflowRows(request, self.list_per_page, partial(self.workflow_counts, request), links)

    def read_one(self, request: HttpRequest, key: str) -> Any:
        """Return one workflow with its steps, and the step that is selected in the address."""
        workflow = read_workflow(key)
        if workflow is not None:
            workflow.params = request.GET
            workflow.step = self._read_step(workflow, request.GET.get("step"), "failed" in request.GET)
            if workflow.step is not None and not sees_payloads(request):
                members = tuple(replace(each, result=b"") for each in workflow.step.members)
                workflow.step = replace(workflow.step, result=b"", members=members)
        return workflow

    def _read_step(self, workflow: Any, name: str | None, only_failed: bool) -> Any:
        steps = () if workflow.detail is None else workflow.detail.graph.steps
        members = next((step.members or 0 for step in steps if step.name == name), None)
        if name is None or members is None:
            return None
        page = members_page(workflow.params, members)
        try:
            return Dashboard(Inspector(taskq)).workflow_step(
                workflow.record.queue,
                workflow.record.id,
                name,
                skip=0 if only_failed else page.start_index() - 1 if members else 0,
                count=MEMBERS_MAX if only_failed else MEMBERS_SHOWN,
                only_failed=only_failed,
            )
        except WorkflowError:  # the workflow was deleted after it was read
            return None

    # --- actions ------------------------------------------------------------------------------------------------------

    def offers(self, action: str, obj: Any) -> bool:
        """Return whether the state of a workflow allows an action."""
        if action == "cancel_workflows":
            return obj.record.state is WorkflowState.RUNNING
        return action != "retry_workflows" or (obj.detail is not None and obj.detail.can_be_retried)

    @row_action(
        description=gettext_lazy("Cancel selected %(verbose_name_plural)s"),
        button=gettext_lazy("Cancel the workflow"),
        question=ngettext_lazy(
            "Cancel %(count)d workflow? No further step starts, waiting steps are deleted, and running steps are "
            "cancelled.",
            "Cancel %(count)d workflows? No further step starts, waiting steps are deleted, and running steps are "
            "cancelled.",
            "count",
        ),
        report=ngettext_lazy("%(count)d workflow was cancelled.", "%(count)d workflows were cancelled.", "count"),
        permissions=["run"],
        is_destructive=True,
    )
    def cancel_workflows(self, row: Any, deadline: Deadline) -> tuple[str, int]:
        """Cancel a workflow."""
        # Call it even if the workflow was cancelled before, to ask running steps again to stop.
        is_cancelled = _handle(row).cancel()
        if not is_cancelled or row.record.state is not WorkflowState.RUNNING:
            raise SkippedError(gettext_lazy("already ended"))
        return _("Cancelled."), 1

    @row_action(
        description=gettext_lazy("Retry failed steps of selected %(verbose_name_plural)s"),
        button=gettext_lazy("Retry failed steps"),
        question=ngettext_lazy(
            "Retry the failed steps of %(count)d workflow, and then the steps that were skipped because of them? Steps "
            "that have succeeded do not run again.",
            "Retry the failed steps of %(count)d workflows, and then the steps that were skipped because of them? "
            "Steps that have succeeded do not run again.",
            "count",
        ),
        report=ngettext_lazy("%(count)d step runs again.", "%(count)d steps run again.", "count"),
        permissions=["run"],
    )
    def retry_workflows(self, row: Any, deadline: Deadline) -> tuple[str, int]:
        """Retry failed steps."""
        count = _handle(row).retry()
        if not count:
            raise SkippedError(gettext_lazy("no step can be retried"))
        text = ngettext("Retried %(count)d step.", "Retried %(count)d steps.", count)
        return text % {"count": count}, count


def _handle(row: Any) -> WorkflowHandle:
    if row.record.state is WorkflowState.DAMAGED:
        raise SkippedError(gettext_lazy("damaged"))
    return taskq.workflow(row.record.id, row.record.queue)


@admin.register(Workflow)
class WorkflowAdmin(WorkflowAdminMixin, BaseAdmin):
    """Workflows in Django's own admin: the list, the page of one workflow, and actions."""
