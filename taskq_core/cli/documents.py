"""The JSON form of records, for `--json`: `FIELDS` lists the fields of each record.

Names and types do not change within a major release; new names may be added. Times are RFC 3339 in UTC or null,
durations are seconds (`..._s`) or null. Bytes are text under their name if they are UTF-8, otherwise base64 under
`<name>_base64`.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Any

from taskq_core.codec.oversized import OversizedResult
from taskq_core.codec.progress import Progress
from taskq_core.handles.attempts import Attempt
from taskq_core.handles.questions import Question
from taskq_core.handles.records import TaskInfo
from taskq_core.handles.waits import TaskWait
from taskq_core.inspector import (
    DailyStats,
    GroupInfo,
    LimitInfo,
    PeriodicEntryInfo,
    QueueInfo,
    RunningTask,
    SchedulerEvent,
    UnreadableTask,
    WorkerProcess,
)
from taskq_core.views import MemberRow, QueueSeries, Sample, StepDetail, TypeRuns, TypesOverview, WorkflowRow
from taskq_core.views.timeline import TimelineEntry

Document = dict[str, Any]

FIELDS: Mapping[type, str] = {
    QueueInfo: "queue=name size groups paused=is_paused served=is_served latency_s=latency states=sizes processed "
    "failed processed_today failed_today as_of problem",
    DailyStats: "date=day processed failed",
    QueueSeries: "queue=name step_s=step samples",
    Sample: "at since_s=since gap=is_after_gap states=sizes latency_s=latency memory_bytes=memory paused=is_paused "
    "processed failed processed_per_s failed_per_s busy slots",
    TypesOverview: "since as_of types",
    TypeRuns: "name processed failed archived total_s=total median_s=median p95_s=p95 p99_s=p99",
    TaskInfo: "id name queue state payload headers priority max_retry retried last_error last_failed_at enqueued_at "
    "pending_since timeout_s=timeout deadline start_by retention_s=retention group next_run_at waits_for_limit "
    "lease_expires_at completed_at archived_at expires_at result oversized_result wait",
    TaskWait: "kind name number until",
    TimelineEntry: "kind name started_at ended_at duration_s=duration until has_timed_out has_failed failures "
    "workflow_id result asked by",
    Question: "queue task_id task name number asked schema=answer_schema since until",
    OversizedResult: "size limit is_stored",
    UnreadableTask: "id queue state problem message",
    Progress: "done total message at",
    Attempt: "attempt=number worker started_at ended_at error traceback",
    GroupInfo: "group=name size",
    LimitInfo: "kind name limit=declared set_to=changed keys=slots held waiting",
    WorkflowRow: "id name state created_at ended_at steps steps_ended steps_failed",
    StepDetail: "queue workflow=workflow_id name=step.name task=step.task task_id=step.task_id state=step.state "
    "ended_at=step.ended_at error=step.error retried=step.retried max_retry=step.max_retry result result_size "
    "total=step.members succeeded=step.succeeded failed=step.failed members",
    MemberRow: "number task_id queue state error retried max_retry result result_size",
    WorkerProcess: "id host pid status started_at concurrency processed failed queues strict_priority running",
    RunningTask: "id=task_id name queue started_at deadline",
    PeriodicEntryInfo: "id spec schedule name payload options next_run_at previous_run_at is_paused is_removable",
    SchedulerEvent: "id=task_id enqueued_at",
}
"""The fields of each record, as `name` or `name=attribute`."""
INSPECTED = "limit worker started_at progress attempts"
"""Fields that only `task inspect` reads."""


def document(record: object, more: str = "") -> Document:
    """Return the JSON form of a record, with the additional fields in `more`."""
    found: Document = {}
    for field in f"{FIELDS[type(record)]} {more}".split():
        name, _, attribute = field.partition("=")
        value = attrgetter(attribute or name)(record)
        found |= octets(name, value) if isinstance(value, bytes) else {name: _plain(value)}
    return found


def _plain(value: Any) -> Any:
    if type(value) in FIELDS:
        return document(value)
    match value:
        case datetime():
            return moment(value)
        case date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case str():
            return str(value)
        case Sequence():
            return [_plain(each) for each in value]
    return value


def moment(value: datetime | None) -> str | None:
    """Return a time in RFC 3339."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def octets(name: str, data: bytes) -> Document:
    """Return bytes as text under their name, or as base64 under `<name>_base64`."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
