"""Records that the admin, the web dashboard, the JSON API, the terminal and the command line show.

This package contains the rules for these records: the order of states, the error rate, the layout of a workflow. The
package only reads data. Use the inspector to make changes.
"""

from taskq_core.inspector import STATES, FoundTasks, QueueStatus, TaskFilter, error_rate
from taskq_core.views.aio import AsyncDashboard
from taskq_core.views.graph_svg import graph_svg
from taskq_core.views.lines import Points, bars, line_path, scale_top
from taskq_core.views.offered import blank_arguments, call_of, signature_of, summary_of
from taskq_core.views.payloads import (
    as_text,
    check_json,
    digest,
    edited_payload,
    is_editable,
    json_levels,
    without_payload,
)
from taskq_core.views.queues import DAYS_CHOICES, QueueDetail, QueuesOverview, overview
from taskq_core.views.samples import LONGEST_SPAN, QueueSeries, Sample
from taskq_core.views.store import StoreRow
from taskq_core.views.sync import Dashboard
from taskq_core.views.tasks import SCAN_MAX, TaskRecord, TaskSelection, is_orphaned
from taskq_core.views.timeline import TimelineEntry
from taskq_core.views.times import attempt_text, times_of
from taskq_core.views.traces import trace_url
from taskq_core.views.types import TypeRuns, TypesOverview
from taskq_core.views.workers import WorkersOverview
from taskq_core.views.workflow_lists import (
    WORKFLOW_SCAN_MAX,
    WORKFLOWS_MAX,
    WorkflowCounts,
    WorkflowFilter,
    WorkflowRow,
    WorkflowSearch,
    WorkflowsPage,
)
from taskq_core.views.workflows import MEMBERS_MAX, MemberRow, StepDetail, WorkflowDetail, has_task, workflow_of

__all__ = [
    "DAYS_CHOICES",
    "LONGEST_SPAN",
    "MEMBERS_MAX",
    "SCAN_MAX",
    "STATES",
    "WORKFLOWS_MAX",
    "WORKFLOW_SCAN_MAX",
    "AsyncDashboard",
    "Dashboard",
    "FoundTasks",
    "MemberRow",
    "Points",
    "QueueDetail",
    "QueueSeries",
    "QueueStatus",
    "QueuesOverview",
    "Sample",
    "StepDetail",
    "StoreRow",
    "TaskFilter",
    "TaskRecord",
    "TaskSelection",
    "TimelineEntry",
    "TypeRuns",
    "TypesOverview",
    "WorkersOverview",
    "WorkflowCounts",
    "WorkflowDetail",
    "WorkflowFilter",
    "WorkflowRow",
    "WorkflowSearch",
    "WorkflowsPage",
    "as_text",
    "attempt_text",
    "bars",
    "blank_arguments",
    "call_of",
    "check_json",
    "digest",
    "edited_payload",
    "error_rate",
    "graph_svg",
    "has_task",
    "is_editable",
    "is_orphaned",
    "json_levels",
    "line_path",
    "overview",
    "scale_top",
    "signature_of",
    "summary_of",
    "times_of",
    "trace_url",
    "without_payload",
    "workflow_of",
]
