"""Records that the admin, the web dashboard, the JSON API, the terminal and the command line show.

This package contains the rules for these records: the order of states, the error rate, the layout of a workflow. The
package only reads data. Use the inspector to make changes.
"""

from taskq_core.broker.operations.steps import SIGNALS_MAX
from taskq_core.clock import utc_datetime, utc_now
from taskq_core.doctor.findings import Finding, Level
from taskq_core.doctor.reading import read_nodes
from taskq_core.doctor.rules import diagnose_nodes
from taskq_core.handles.attempts import Attempt
from taskq_core.handles.workflow_records import after_text
from taskq_core.inspector import STATES, FoundTasks, QueueStatus, TaskFilter, error_rate
from taskq_core.inspector.entry_call import entry_call
from taskq_core.inspector.records import GROUPS_COUNTED
from taskq_core.scheduler.runtime_schedules import named_schedule
from taskq_core.settings import CONCURRENCY_MAX
from taskq_core.tasks.limits import HEADER as LIMITS_HEADER
from taskq_core.telemetry import trace_id
from taskq_core.views.aio import AsyncDashboard
from taskq_core.views.answer_forms import AnswerField, AnswerForm, answer_form
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
from taskq_core.wire import ENQUEUED, parse_duration, timedelta_of_ns, validate_queue_name
from taskq_core.workflow import StepInfo, WorkflowInfo, WorkflowState

__all__ = [
    "CONCURRENCY_MAX",
    "DAYS_CHOICES",
    "ENQUEUED",
    "GROUPS_COUNTED",
    "LIMITS_HEADER",
    "LONGEST_SPAN",
    "MEMBERS_MAX",
    "SCAN_MAX",
    "SIGNALS_MAX",
    "STATES",
    "WORKFLOWS_MAX",
    "WORKFLOW_SCAN_MAX",
    "AnswerField",
    "AnswerForm",
    "AsyncDashboard",
    "Attempt",
    "Dashboard",
    "Finding",
    "FoundTasks",
    "Level",
    "MemberRow",
    "Points",
    "QueueDetail",
    "QueueSeries",
    "QueueStatus",
    "QueuesOverview",
    "Sample",
    "StepDetail",
    "StepInfo",
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
    "WorkflowInfo",
    "WorkflowRow",
    "WorkflowSearch",
    "WorkflowState",
    "WorkflowsPage",
    "after_text",
    "answer_form",
    "as_text",
    "attempt_text",
    "bars",
    "blank_arguments",
    "call_of",
    "check_json",
    "diagnose_nodes",
    "digest",
    "edited_payload",
    "entry_call",
    "error_rate",
    "graph_svg",
    "has_task",
    "is_editable",
    "is_orphaned",
    "json_levels",
    "line_path",
    "named_schedule",
    "overview",
    "parse_duration",
    "read_nodes",
    "scale_top",
    "signature_of",
    "summary_of",
    "timedelta_of_ns",
    "times_of",
    "trace_id",
    "trace_url",
    "utc_datetime",
    "utc_now",
    "validate_queue_name",
    "without_payload",
    "workflow_of",
]
