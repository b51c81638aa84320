"""Columns and facts that the command line and the terminal dashboard show: of tasks, workflows, schedules, limits."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from taskq_core.cli.render import (
    listed_bytes,
    shown_distance,
    shown_moment,
    shown_rate,
    shown_size,
    shown_span,
)
from taskq_core.cli.table import Column
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import UnreadableTask, WorkerProcess
from taskq_core.views import StoreRow, WorkflowRow
from taskq_core.views.labels import step_state, wait_text
from taskq_core.wire import TaskState
from taskq_core.workflow import WorkflowState

TYPES = (
    Column("Name", lambda each: each.name, style="bold"),
    Column("Processed", lambda each: each.processed, right=True),
    Column("Failed", lambda each: each.failed, right=True),
    Column("Error rate", lambda each: shown_rate(each.error_rate), right=True),
    Column("Mean", lambda each: shown_span(each.mean), right=True, drop=3),
    Column("Median", lambda each: shown_span(each.median), right=True),
    Column("95 %", lambda each: shown_span(each.p95), right=True, drop=1),
    Column("99 %", lambda each: shown_span(each.p99), right=True, drop=2),
)
"""Columns of the table of task types."""
LIMITS = (
    Column("Kind", lambda each: each.kind, least=4),
    Column("Name", lambda each: each.name or "the queue", style="bold"),
    Column("Limit", lambda each: each.declared or "-", drop=3),
    Column("Set to", lambda each: each.changed or "-", drop=1, style="warn"),
    Column("Keys", lambda each: each.slots, right=True, drop=4),
    Column("Held", lambda each: each.held, right=True, drop=2),
    Column("Waiting", lambda each: each.waiting, right=True),
)
"""Columns of the table of limits."""
QUESTIONS = (
    Column("Queue", lambda each: each.queue, drop=3),
    Column("Task id", lambda each: each.task_id, whole=True, style="bold"),
    Column("No.", lambda each: each.number, right=True),
    Column("Task", lambda each: each.task, drop=4),
    Column("Question", lambda each: each.name),
    Column("Asked", lambda each: listed_bytes(each.data), drop=1),
    Column("Since", lambda each: shown_moment(each.since), drop=2),
    Column("Until", lambda each: shown_moment(each.until), drop=5),
)
"""Columns of the table of open questions."""
EVENTS = (
    Column("Task", lambda each: each.task_id, whole=True, style="bold"),
    Column("Enqueued at", lambda each: shown_moment(each.enqueued_at)),
)
"""Columns of the history of a schedule entry."""


def task_columns(queue: str | None, state: TaskState | None, now: datetime, *, hide: bool = False) -> list[Column]:
    """Return the columns of a list of tasks. The column of a queue or state that all tasks share is omitted.

    Args:
        queue: The queue of all tasks, None for several.
        state: The state of all tasks, None for several.
        now: The current time.
        hide: Whether to hide payloads and results.
    """
    columns = [
        Column("Id", lambda task: task.id, whole=True, style="bold"),
        *([] if queue is not None else [Column("Queue", lambda task: task.queue, least=6)]),
        *([] if state is not None else [Column("State", _state, least=9)]),
        Column("Name", lambda task: "(unreadable)" if isinstance(task, UnreadableTask) else task.name),
    ]

    def add(title: str, cell: Callable[[TaskInfo], str], **more: Any) -> None:
        columns.append(Column(title, lambda task: "-" if isinstance(task, UnreadableTask) else cell(task), **more))

    columns.append(
        Column(
            "Payload",
            lambda task: task.problem if isinstance(task, UnreadableTask) else listed_bytes(task.payload, hide=hide),
            drop=1 if state not in (TaskState.RETRY, TaskState.ARCHIVED) else 4,
            style="quiet",
        )
    )
    match state:
        case TaskState.ACTIVE:
            add("Lease", lambda task: _lease(task, now))
        case TaskState.SCHEDULED:
            add(
                "Starts",
                lambda task: (
                    "waits for a limit"
                    if task.waits_for_limit
                    else wait_text(task.wait, shown_span) or shown_distance(task.next_run_at, now)
                ),
            )
        case TaskState.RETRY:
            add("Next retry", lambda task: shown_distance(task.next_run_at, now), least=8)
            add("Retried", lambda task: f"{task.retried}/{task.max_retry}", right=True, drop=3)
        case TaskState.ARCHIVED:
            add("Archived", lambda task: shown_distance(task.archived_at, now), least=8)
        case TaskState.COMPLETED:
            add("Completed", lambda task: shown_distance(task.completed_at, now), least=8)
            add("Result", lambda task: str(task.oversized_result or listed_bytes(task.result, hide=hide)), drop=2)
            add("Kept until", lambda task: shown_distance(task.expires_at, now), drop=4)
        case TaskState.AGGREGATING:
            add("Group", lambda task: task.group)
    if state in (TaskState.RETRY, TaskState.ARCHIVED):
        add(
            "Last error",
            lambda task: task.last_error.splitlines()[0] if task.last_error else "-",
            style="bad",
            least=20,
        )
        add("Last failed", lambda task: shown_distance(task.last_failed_at, now), drop=2)
    return columns


def _state(task: TaskInfo | UnreadableTask) -> str:
    """Return the state of a task, and in parentheses what a scheduled task waits for."""
    if isinstance(task, TaskInfo) and task.waits_for_limit:
        return f"{task.state.value} (limit)"
    if isinstance(task, TaskInfo) and task.wait is not None:
        return f"{task.state.value} ({task.wait.kind})"
    return task.state.value


def _lease(task: TaskInfo, now: datetime) -> str:
    if task.lease_expires_at is None:
        return "none"
    if task.lease_expires_at <= now:
        return "orphaned"  # the worker was lost; the recoverer requeues the task
    return f"{shown_span(task.lease_expires_at - now)} left"


def task_facts(task: TaskInfo, now: datetime, *, hide: bool = False) -> dict[str, str]:
    """Return the stored facts about a task, except its payload, result, headers and errors.

    Args:
        task: The task.
        now: The current time.
        hide: Whether to hide the message of its progress, which may contain arguments.
    """
    progress = task.progress
    pairs = {
        "queue": task.queue,
        "id": task.id,
        "name": task.name,
        "state": task.state.value,
        "retried": f"{task.retried}/{task.max_retry}",
        "priority": str(task.priority or ""),
        "group": task.group,
        "enqueued": shown_moment(task.enqueued_at, now=now),
        "next run": shown_moment(task.next_run_at, now=now) if task.wait is None else "",
        "start by": shown_moment(task.start_by, now=now) if task.state is not TaskState.ACTIVE else "",
        "started": shown_moment(task.started_at, now=now) if task.state is TaskState.ACTIVE else "",
        "waits for": f"the limit {task.limit}" if task.limit else "a limit" if task.waits_for_limit else "",
        "wait": wait_text(task.wait, shown_span),
        "lease": _lease(task, now) if task.state is TaskState.ACTIVE else "",
        "worker": task.worker,
        "timeout": shown_span(task.timeout),
        "deadline": shown_moment(task.deadline, now=now),
        "retention": shown_span(task.retention) if task.retention else "",
        "completed": shown_moment(task.completed_at, now=now),
        "archived": shown_moment(task.archived_at, now=now),
        "kept until": shown_moment(task.expires_at, now=now),
        "last failed": shown_moment(task.last_failed_at, now=now),
    }
    if progress is not None:
        pairs["progress"] = f"{progress.amount if hide else progress}, {shown_distance(progress.at, now)}"
    return {name: value for name, value in pairs.items() if value not in ("", "-")}


def _progress(row: WorkflowRow) -> str:
    failed = f", {row.steps_failed} failed" if row.steps_failed else ""
    return "-" if row.state is WorkflowState.DAMAGED else f"{row.steps_ended}/{row.steps}{failed}"


def workflow_columns(time: Callable[[datetime | None], str]) -> list[Column]:
    """Return the columns of a list of workflows. `time` formats times."""
    return [
        Column("Id", lambda row: row.id, whole=True, least=8),
        Column("Name", lambda row: row.name or "-", style="bold"),
        Column("State", lambda row: row.state.value, least=9),
        Column("Steps", _progress),
        Column("Created", lambda row: time(row.created_at), drop=1),
        Column("Ended", lambda row: time(row.ended_at), drop=2),
    ]


def member_columns(*, hide: bool = False) -> list[Column]:
    """Return the columns of a list of group members. `hide` omits their results."""
    return [
        Column("Member", lambda each: each.number),
        Column("State", step_state, least=9),
        Column("Task", lambda each: each.task_id, whole=True, style="bold"),
        Column("Queue", lambda each: each.queue, drop=1),
        Column("Error or result", lambda each: each.error or listed_bytes(each.result, hide=hide)),
    ]


def entry_columns(now: datetime, *, hide: bool = False) -> list[Column]:
    """Return the columns of a list of schedule entries. `hide` omits their payloads."""
    return [
        Column("Entry", lambda each: each.id, whole=True, style="bold"),
        Column("Schedule", lambda each: each.schedule),
        Column("Task", lambda each: each.name),
        Column("Payload", lambda each: listed_bytes(each.payload, hide=hide), drop=3, style="quiet"),
        Column("Options", lambda each: ", ".join(each.options) or "-", drop=2, style="quiet"),
        Column("Next", lambda each: "paused" if each.is_paused else shown_distance(each.next_run_at, now), least=8),
        Column("Previous", lambda each: shown_distance(each.previous_run_at, now), drop=1),
    ]


def worker_queues(worker: WorkerProcess) -> str:
    """Return the queues of a worker with their weights."""
    text = ",".join(f"{queue.name}={queue.weight}" for queue in worker.weights)
    return f"{text} (strict)" if worker.strict_priority else text


def store_facts(row: StoreRow, now: datetime) -> dict[str, str]:
    """Return the known facts about the Redis server, by their labels."""
    limit = f" of {shown_size(row.memory_limit)}" if row.memory_limit else ", no limit"
    facts = {
        "version": row.version,
        "uptime": shown_span(row.uptime),
        "connections": "-" if row.clients is None else f"{row.clients:,}",
        "memory": "-" if row.memory is None else f"{shown_size(row.memory)}{limit}",
        "memory peak": "-" if row.memory_peak is None else shown_size(row.memory_peak),
        "fragmentation": "-" if row.fragmentation is None else f"{row.fragmentation:.2f}",
        "replicas": "-" if row.replicas is None else f"{row.replicas:,}",
        "last save": shown_moment(row.saved_at, now=now),
        "changes since": "-" if row.changes_since_save is None else f"{row.changes_since_save:,}",
        "user": row.user or "-",
    }
    return {name: value for name, value in facts.items() if value != "-"}
