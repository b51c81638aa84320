"""Workflows of all queues, and the page of one with its graph, its steps and the members of its groups."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from taskq_core import WorkflowError
from taskq_core.inspector import Inspector
from taskq_core.views import MEMBERS_MAX, Dashboard, WorkflowCounts
from taskq_django.admin.base import BaseAdmin
from taskq_django.admin.change_list import CURSOR_VAR
from taskq_django.admin.labels import Links
from taskq_django.admin.workflow_actions import WorkflowActions
from taskq_django.admin.workflow_fields import (
    FAILED_VAR,
    MEMBERS_SHOWN,
    STEP_VAR,
    WorkflowColumns,
    asked_of,
    members_page,
)
from taskq_django.admin.workflow_filters import WorkflowQueueFilter, WorkflowStateFilter
from taskq_django.admin.workflow_rows import WorkflowRows, read_one
from taskq_django.app import taskq
from taskq_django.models import Workflow

_ABOUT = ("name", "workflow_id", "home", "state", "progress", "started_at", "ended_at")


class WorkflowAdminMixin(WorkflowColumns, WorkflowActions):
    """The pages of workflows, to be put over a `ModelAdmin`.

    A list by home queue and state, and a page for each: its graph, its steps, and what one of these returned or the
    members of a group, page by page. Errors and results are shown to those who may view tasks.
    """

    list_display = ("title", "state", "progress", "home", "started", "ended")
    list_filter = (WorkflowStateFilter, WorkflowQueueFilter)
    search_fields = ("id",)  # what is searched is said by get_search_results; this shows the form
    search_help_text = _("Part of the name or the id of a workflow.")
    fieldsets = (
        (None, {"fields": (*_ABOUT, "do")}),
        (_("Graph"), {"fields": ("graph",)}),
        (_("One step"), {"fields": ("step",)}),
        (_("Steps"), {"fields": ("steps",)}),
    )
    damaged_fieldsets: Any = ((None, {"fields": ("workflow_id", "home", "state", "problem")}),)
    readonly_fields = (*_ABOUT, "do", "graph", "step", "steps", "problem")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def dashboard(self) -> Dashboard:
        """Return what reads the workflows."""
        return Dashboard(Inspector(taskq))

    def workflow_counts(self, request: HttpRequest) -> Sequence[WorkflowCounts]:
        """Return how many workflows have each queue as their home, of queues that are home to any; read once."""
        found: Sequence[WorkflowCounts] | None = getattr(request, "taskq_workflow_counts", None)
        if found is None:
            counts = self.dashboard().workflow_counts(Inspector(taskq).queues())
            found = [each for each in counts if each.running or each.ended]
            request.taskq_workflow_counts = found  # type: ignore[attr-defined]  # kept for this request
        return found

    def get_rows(self, request: HttpRequest) -> WorkflowRows:
        """Return all workflows."""
        if not hasattr(request, "taskq_workflow_searches"):
            request.taskq_workflow_searches = {}  # type: ignore[attr-defined]  # kept for this request
        return WorkflowRows(
            partial(self.workflow_counts, request),
            Links(request, self.admin_site),
            cursor=request.GET.get(CURSOR_VAR),
            searches=request.taskq_workflow_searches,  # type: ignore[attr-defined]  # set above
        )

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the workflows that were searched for."""
        text = search_term.strip()
        return (queryset.narrow(text=text) if text else queryset), False

    # --- the page of one workflow -------------------------------------------------------------------------------------

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return one workflow with its steps, None if it is not there (any more)."""
        workflow = read_one(object_id, Links(request, self.admin_site))
        if workflow is None:
            return None
        workflow.asked = asked_of(request.GET)
        workflow.step = None
        if workflow.detail is not None and STEP_VAR in workflow.asked:
            self._read_step(workflow)
        workflow.action_links = self.action_links(request, workflow)
        return workflow

    def _read_step(self, workflow: Any) -> None:
        name = workflow.asked[STEP_VAR]
        total = next((step.members or 0 for step in workflow.detail.graph.steps if step.name == name), None)
        if total is None:
            return
        workflow.members_page = members_page(workflow.asked, total)
        only_failed = FAILED_VAR in workflow.asked
        skip = 0 if only_failed else (workflow.members_page - 1) * MEMBERS_SHOWN
        count = MEMBERS_MAX if only_failed else MEMBERS_SHOWN
        record = workflow.record
        try:
            workflow.step = self.dashboard().workflow_step(
                record.queue, record.id, name, skip=skip, count=count, only_failed=only_failed
            )
        except WorkflowError:  # it is gone since it was read
            return

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what there is to say of a workflow: always the same lines, as they are kept up to date one by one."""
        if obj is None:
            return self.fieldsets
        if obj.detail is None:
            return self.damaged_fieldsets
        left_out = {*(() if STEP_VAR in obj.asked else ("step",)), *(() if self._allowed(request) else ("do",))}
        told = []
        for heading, options in self.fieldsets:
            fields = tuple(name for name in options["fields"] if name not in left_out)
            if fields:
                told.append((heading, {**options, "fields": fields}))
        return told


@admin.register(Workflow)
class WorkflowAdmin(WorkflowAdminMixin, BaseAdmin):
    """Workflows of all queues, and the page of one with its graph."""
