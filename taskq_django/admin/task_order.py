"""Values of the columns in the list of tasks, and sorting by them."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from taskq_core import TaskInfo, TaskState
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.inspector import LISTED_STATES
from taskq_core.views import TaskRecord


def duration(task: TaskInfo) -> timedelta | None:
    """Return how long it has been running, or how long its last run took."""
    began = task.last_started_at
    if task.state is TaskState.ACTIVE:
        ended: datetime | None = utc_datetime(SYSTEM_CLOCK.time())
    else:
        ended = None if task.last_attempt is None else task.last_attempt.ended_at
    return None if began is None or ended is None else max(timedelta(), ended - began)


def last_time(task: TaskInfo) -> datetime | None:
    """Return when it ended; before that, when it last failed, started or was enqueued."""
    times = (task.last_failed_at, task.last_started_at, task.enqueued_at)
    return task.completed_at or task.archived_at or max(filter(None, times), default=None)


SORTS: dict[str, Callable[[TaskInfo], Any]] = {
    "id": lambda task: task.id,
    "name": lambda task: task.name,
    "queue": lambda task: task.queue,
    "state": lambda task: LISTED_STATES.index(task.state),
    "time": last_time,
    "enqueued": lambda task: task.enqueued_at,
    "started": lambda task: task.last_started_at,
    "duration": duration,
    "worker": lambda task: task.last_worker or None,
    "attempts": lambda task: task.attempts_made,
    "next_run": lambda task: task.next_run_at,
    "failed": lambda task: task.last_failed_at,
    "ended": lambda task: task.completed_at or task.archived_at,
    "deleted": lambda task: task.expires_at,
}
"""Sort keys by the `ordering` of a column."""


def in_order(tasks: Iterable[TaskRecord], order: Sequence[str]) -> list[TaskRecord]:
    """Return tasks in the order of columns, `-` for descending. Those without a value, or unreadable, come last."""
    found = list(tasks)
    for name in reversed(order):
        value = SORTS[name.removeprefix("-")]
        keys = [(value(task) if isinstance(task, TaskInfo) else None, task) for task in found]
        known = sorted(
            ((key, task) for key, task in keys if key is not None),
            key=lambda pair: pair[0],
            reverse=name.startswith("-"),
        )
        found = [task for _, task in known] + [task for key, task in keys if key is None]
    return found
