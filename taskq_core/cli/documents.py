"""What `--json` writes: one function per record, each the whole truth about the shape.

Names and types of what is there do not change within a major release; further names may come. Times are RFC 3339 in UTC
or null, spans are seconds (`..._s`) or null. Bytes that are UTF-8 stand under their name; others stand in base64 under
`<name>_base64`.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from taskq_core.execution.progress import Progress
from taskq_core.handles.attempts import Attempt
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import (
    DailyStats,
    GroupInfo,
    LimitInfo,
    PeriodicEntryInfo,
    QueueInfo,
    SchedulerEvent,
    UnreadableTask,
    WorkerProcess,
)
from taskq_core.repair.reconcile import ReconcileReport
from taskq_core.views import QueueSeries, Sample, StepDetail, TypesOverview, WorkflowRow

Document = dict[str, Any]


def moment(value: datetime | None) -> str | None:
    """A time."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def span_s(value: timedelta | None) -> float | None:
    """A span, in seconds."""
    return None if value is None else value.total_seconds()


def octets(name: str, data: bytes) -> Document:
    """Bytes under their name, or in base64 under `<name>_base64`."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def queue(info: QueueInfo) -> Document:
    """A queue as it stands."""
    return {
        "queue": info.name,
        "size": info.size,
        "groups": info.groups,
        "paused": info.is_paused,
        "served": info.is_served,
        "latency_s": span_s(info.latency),
        "states": {state.value: size for state, size in info.sizes.items()},
        "processed": info.processed,
        "failed": info.failed,
        "processed_today": info.processed_today,
        "failed_today": info.failed_today,
        "as_of": moment(info.as_of),
        "problem": info.problem,
    }


def day(stats: DailyStats) -> Document:
    """A day of a queue."""
    return {"date": stats.day.isoformat(), "processed": stats.processed, "failed": stats.failed}


def series(found: QueueSeries) -> Document:
    """Samples of a queue."""
    return {"queue": found.name, "step_s": span_s(found.step), "samples": [sample(each) for each in found.samples]}


def sample(each: Sample) -> Document:
    """How a queue stood at one moment, and what it did since the sample before."""
    return {
        "at": moment(each.at),
        "since_s": span_s(each.since),
        "gap": each.is_after_gap,
        "states": {state.value: size for state, size in each.sizes.items()},
        "latency_s": span_s(each.latency),
        "memory_bytes": each.memory,
        "paused": each.is_paused,
        "processed": each.processed,
        "failed": each.failed,
        "processed_per_s": each.processed_per_s,
        "failed_per_s": each.failed_per_s,
        "busy": each.busy,
        "slots": each.slots,
    }


def types(found: TypesOverview) -> Document:
    """What became of runs, by task type."""
    return {
        "since": moment(found.since),
        "as_of": moment(found.as_of),
        "types": [
            {
                "name": each.name,
                "processed": each.processed,
                "failed": each.failed,
                "archived": each.archived,
                "total_s": span_s(each.total),
                "median_s": span_s(each.median),
                "p95_s": span_s(each.p95),
                "p99_s": span_s(each.p99),
            }
            for each in found.types
        ],
    }


def task(info: TaskInfo | UnreadableTask) -> Document:
    """A task; one that cannot be decoded has `problem` and `message_base64` in place of what is in its message."""
    if isinstance(info, UnreadableTask):
        return {
            "id": info.id,
            "queue": info.queue,
            "state": info.state.value,
            "problem": info.problem,
            "message_base64": base64.b64encode(info.message).decode(),
        }
    return {
        "id": info.id,
        "name": info.name,
        "queue": info.queue,
        "state": info.state.value,
        **octets("payload", info.payload),
        "headers": dict(info.headers),
        "max_retry": info.max_retry,
        "retried": info.retried,
        "last_error": info.last_error,
        "last_failed_at": moment(info.last_failed_at),
        "timeout_s": span_s(info.timeout),
        "deadline": moment(info.deadline),
        "retention_s": span_s(info.retention),
        "group": info.group,
        "next_run_at": moment(info.next_run_at),
        "waits_for_limit": info.waits_for_limit,
        "lease_expires_at": moment(info.lease_expires_at),
        "completed_at": moment(info.completed_at),
        "archived_at": moment(info.archived_at),
        "expires_at": moment(info.expires_at),
        **octets("result", info.result),
        "oversized_result": None if info.oversized_result is None else asdict(info.oversized_result),
    }


def inspected(info: TaskInfo | UnreadableTask) -> Document:
    """A task with what only looking at it alone tells: who runs it, and its attempts."""
    if isinstance(info, UnreadableTask):
        return task(info)
    return {
        **task(info),
        "limit": info.limit,
        "worker": info.worker,
        "started_at": moment(info.started_at),
        "progress": None if info.progress is None else _progress(info.progress),
        "attempts": [_attempt(each) for each in info.attempts],
    }


def _progress(progress: Progress) -> Document:
    return {
        "done": progress.done,
        "total": progress.total,
        "message": progress.message,
        "at": moment(progress.at),
    }


def _attempt(attempt: Attempt) -> Document:
    return {
        "attempt": attempt.number,
        "worker": attempt.worker,
        "started_at": moment(attempt.started_at),
        "ended_at": moment(attempt.ended_at),
        "error": attempt.error,
        "traceback": attempt.traceback,
    }


def group(info: GroupInfo) -> Document:
    """A group of waiting tasks."""
    return {"group": info.name, "size": info.size}


def limit(info: LimitInfo) -> Document:
    """A limit of tasks."""
    return {
        "kind": info.kind,
        "name": info.name,
        "limit": info.declared or None,
        "set_to": info.changed or None,
        "keys": info.slots,
        "held": info.held,
        "waiting": info.waiting,
    }


def workflow(row: WorkflowRow) -> Document:
    """A workflow in a list."""
    return {
        "id": row.id,
        "name": row.name,
        "state": row.state.value,
        "created_at": moment(row.created_at),
        "ended_at": moment(row.ended_at),
        "steps": row.steps,
        "steps_ended": row.steps_ended,
        "steps_failed": row.steps_failed,
    }


def step(found: StepDetail) -> Document:
    """A step of a workflow, or a group with some of its members. Results that are too long are cut."""
    about = found.step
    return {
        "queue": found.queue,
        "workflow": found.workflow_id,
        "name": about.name,
        "task": about.task,
        "task_id": about.task_id,
        "state": about.state.value,
        "ended_at": moment(about.ended_at),
        "error": about.error,
        "retried": about.retried,
        "max_retry": about.max_retry,
        **octets("result", found.result),
        "result_size": found.result_size,
        "total": about.members,
        "succeeded": about.succeeded,
        "failed": about.failed,
        "members": [
            {
                "number": each.number,
                "task_id": each.task_id,
                "queue": each.queue,
                "state": each.state.value,
                "error": each.error,
                "retried": each.retried,
                "max_retry": each.max_retry,
                **octets("result", each.result),
                "result_size": each.result_size,
            }
            for each in found.members
        ],
    }


def server(process: WorkerProcess) -> Document:
    """A running worker with what it runs."""
    return {
        "id": process.id,
        "host": process.host,
        "pid": process.pid,
        "status": process.status,
        "started_at": moment(process.started_at),
        "concurrency": process.concurrency,
        "processed": process.processed,
        "failed": process.failed,
        "queues": dict(process.queues),
        "strict_priority": process.strict_priority,
        "running": [
            {
                "id": each.task_id,
                "name": each.name,
                "queue": each.queue,
                "started_at": moment(each.started_at),
                "deadline": moment(each.deadline),
            }
            for each in process.running
        ],
    }


def entry(info: PeriodicEntryInfo) -> Document:
    """A periodic entry."""
    return {
        "id": info.id,
        "spec": info.spec,
        "schedule": info.schedule,
        "name": info.name,
        **octets("payload", info.payload),
        "options": list(info.options),
        "next_run_at": moment(info.next_run_at),
        "previous_run_at": moment(info.previous_run_at),
        "is_paused": info.is_paused,
        "is_removable": info.is_removable,
    }


def event(info: SchedulerEvent) -> Document:
    """One time a periodic entry was enqueued."""
    return {"id": info.task_id, "enqueued_at": moment(info.enqueued_at)}


def report(found: ReconcileReport) -> Document:
    """The damage that a look through a queue found."""
    return {
        "queue": found.queue,
        "scanned": found.scanned,
        "complete": found.is_complete,
        "findings": [
            {"kind": each.kind.value, "id": each.task_id, "detail": each.detail, "repaired": each.repaired}
            for each in found.findings
        ],
    }


def page(key: str, items: Iterable[Document], *, total: int) -> Document:
    """Some of a list, and how many there are in all."""
    return {key: list(items), "total": total}


def redis_facts(info: Mapping[str, str | int]) -> Document:
    """What Redis says of itself, as far as `stats` shows it."""
    names = (
        *("redis_version", "valkey_version", "uptime_in_seconds", "connected_clients"),
        *("used_memory", "used_memory_peak", "maxmemory"),
    )
    return {name: info[name] for name in names if name in info}
