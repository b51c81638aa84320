"""Collect the known times of a task in chronological order."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from taskq_core.inspector import UnreadableTask
from taskq_core.views.tasks import TaskRecord
from taskq_core.wire import TaskState


class TimeKind(StrEnum):
    """The event of a time."""

    ATTEMPT_FAILED = "attempt_failed"
    ATTEMPT_SUCCEEDED = "attempt_succeeded"
    FAILED = "failed"
    STARTED = "started"
    COMPLETED = "completed"
    ARCHIVED = "archived"
    STARTS = "starts"
    NEXT_ATTEMPT = "next_attempt"
    LEASE_ENDS = "lease_ends"
    """Unless its worker extends the lease."""
    START_BY = "start_by"
    """It expires if no worker has begun it."""
    DEADLINE = "deadline"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class TaskTime:
    """A time of a task.

    Attributes:
        at: The time.
        kind: The event.
        attempt: Number of the attempt, with `ATTEMPT_FAILED` and `ATTEMPT_SUCCEEDED`.
    """

    at: datetime
    kind: TimeKind
    attempt: int | None = None


def times_of(task: TaskRecord) -> Sequence[TaskTime]:
    """Return the known times of a task, sorted. An unreadable task has none."""
    if isinstance(task, UnreadableTask):
        return ()
    past: list[tuple[datetime | None, TimeKind, int | None]]
    if task.attempts:
        past = [
            (each.ended_at, TimeKind.ATTEMPT_FAILED if each.error else TimeKind.ATTEMPT_SUCCEEDED, each.number)
            for each in task.attempts
        ]
    else:
        past = [(task.last_failed_at, TimeKind.FAILED, None), (task.completed_at, TimeKind.COMPLETED, None)]
    ahead = TimeKind.NEXT_ATTEMPT if task.state is TaskState.RETRY else TimeKind.STARTS
    known = [
        *past,
        (task.started_at if task.state is TaskState.ACTIVE else None, TimeKind.STARTED, None),
        (task.archived_at, TimeKind.ARCHIVED, None),
        (task.next_run_at, ahead, None),
        (task.lease_expires_at, TimeKind.LEASE_ENDS, None),
        (task.start_by if task.state in _WAITING else None, TimeKind.START_BY, None),
        (task.deadline, TimeKind.DEADLINE, None),
        (task.expires_at, TimeKind.DELETED, None),
    ]
    times = [TaskTime(at, kind, number) for at, kind, number in known if at is not None]
    return sorted(times, key=lambda each: each.at.replace(microsecond=0))  # most times have whole seconds only


_WAITING = (TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)
