"""Collect the known times of a task in chronological order, with their texts in the current language."""

from collections.abc import Sequence
from datetime import datetime

from taskq_core.inspector import UnreadableTask
from taskq_core.settings.language import gettext
from taskq_core.views.tasks import TaskRecord
from taskq_core.wire import TaskState


def attempt_text(number: int, *, failed: bool) -> str:
    """Return the text for an attempt that has ended."""
    if failed:
        return gettext("attempt %(number)s failed", number=number)
    return gettext("attempt %(number)s succeeded", number=number)


def times_of(task: TaskRecord) -> Sequence[tuple[datetime, str]]:
    """Return the known times of a task with their texts, sorted. An unreadable task has none."""
    if isinstance(task, UnreadableTask):
        return ()
    past: list[tuple[datetime | None, str]]
    if task.attempts:
        past = [(each.ended_at, attempt_text(each.number, failed=bool(each.error))) for each in task.attempts]
    else:
        past = [(task.last_failed_at, gettext("failed")), (task.completed_at, gettext("completed"))]
    known = [
        (task.enqueued_at, gettext("enqueued")),
        *past,
        (task.started_at if task.state is TaskState.ACTIVE else None, gettext("started")),
        (task.archived_at, gettext("archived")),
        (task.next_run_at, gettext("next attempt") if task.state is TaskState.RETRY else gettext("starts"))
        if task.wait is None
        else (task.wait.until, gettext("wait ends")),
        (task.lease_expires_at, gettext("lease ends, unless its worker extends it")),
        (task.start_by if task.state in _WAITING else None, gettext("expires, unless a worker has started it")),
        (task.deadline, gettext("deadline")),
        (task.expires_at, gettext("deleted")),
    ]
    times = [(at, text) for at, text in known if at is not None]
    # Compare whole seconds, because most of the times are stored without fractions of a second.
    return sorted(times, key=lambda each: each[0].replace(microsecond=0))


_WAITING = (TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)
