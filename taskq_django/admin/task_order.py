"""Values of the columns in the list of tasks, and sorting by them."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from taskq_core import TaskInfo, TaskState
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.inspector import LISTED_STATES
from taskq_core.views import TaskRecord

_ENDED = (TaskState.ARCHIVED, TaskState.COMPLETED)


def started_at(task: TaskInfo) -> datetime | None:
    """Return when its current or last run began."""
    if task.state is TaskState.ACTIVE:
        return task.started_at
    return None if task.last_attempt is None else task.last_attempt.started_at


def duration(task: TaskInfo) -> timedelta | None:
    """Return how long it has been running, or how long its last run took."""
    began = started_at(task)
    if task.state is TaskState.ACTIVE:
        ended: datetime | None = utc_datetime(SYSTEM_CLOCK.time())
    else:
        ended = None if task.last_attempt is None else task.last_attempt.ended_at
    return None if began is None or ended is None else max(timedelta(), ended - began)


def token_of(task: TaskInfo) -> str:
    """Return the token of the worker that runs it or ran it last, "" if no worker has run it."""
    return task.worker or ("" if task.last_attempt is None else task.last_attempt.worker)


def attempts_made(task: TaskInfo) -> int:
    """Return the number of attempts so far, a running one included."""
    if task.state in _ENDED and task.last_attempt is not None:
        return task.last_attempt.number
    return task.retried + (task.state in (*_ENDED, TaskState.ACTIVE))


def last_time(task: TaskInfo) -> datetime | None:
    """Return when it ended; before that, when it last failed, started or was enqueued."""
    times = (task.last_failed_at, started_at(task), task.enqueued_at)
    return task.completed_at or task.archived_at or max(filter(None, times), default=None)


SORTS: dict[str, Callable[[TaskInfo], Any]] = {
    "id": lambda task: task.id,
    "name": lambda task: task.name,
    "queue": lambda task: task.queue,
    "state": lambda task: LISTED_STATES.index(task.state),
    "time": last_time,
    "enqueued": lambda task: task.enqueued_at,
    "started": started_at,
    "duration": duration,
    "worker": lambda task: token_of(task) or None,
    "attempts": attempts_made,
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
