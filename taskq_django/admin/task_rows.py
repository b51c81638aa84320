"""Read and sort tasks as rows of the admin."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from taskq_core import TaskInfo, TaskNotFoundError, TaskState
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import LISTED_STATES, Inspector, QueueInfo, total_of
from taskq_core.views import Dashboard, FoundTasks, TaskFilter, TaskRecord, TaskSelection, selection_of, without_payload
from taskq_core.wire.ids import worker_token
from taskq_django.admin.formats import key_of, number, parts_of
from taskq_django.admin.rows import FilteredRows, row_of
from taskq_django.app import taskq
from taskq_django.models import Task

SORTED_MAX = 10_000
"""Maximum number of tasks that are read to sort them."""
SORTED_BYTES = 32 * 1024 * 1024
"""Bytes of arguments and results after which no further tasks are read to sort them."""
_READ_AT_ONCE = 200
NEWEST_FIRST, SOONEST_FIRST = ("-time",), ("next_run",)


def duration(task: TaskInfo) -> timedelta | None:
    """Return how long the task has been running, or how long its last run took."""
    began, ended = task.last_started_at, None
    if task.state is TaskState.ACTIVE:
        ended = utc_datetime(SYSTEM_CLOCK.time())
    elif task.last_attempt is not None:
        ended = task.last_attempt.ended_at
    return None if began is None or ended is None else max(timedelta(), ended - began)


def _last_time(task: TaskInfo) -> datetime | None:
    """Return when the task ended. If it has not ended, return when it last failed, started or was enqueued."""
    times = (task.last_failed_at, task.last_started_at, task.enqueued_at)
    return task.ended_at or max(filter(None, times), default=None)


SORTS: dict[str, Callable[[TaskInfo], Any]] = {
    "id": lambda task: task.id,
    "name": lambda task: task.name,
    "queue": lambda task: task.queue,
    "state": lambda task: LISTED_STATES.index(task.state),
    "time": _last_time,
    "enqueued": lambda task: task.enqueued_at,
    "started": lambda task: task.last_started_at,
    "duration": duration,
    "worker": lambda task: task.last_worker or None,
    "attempts": lambda task: task.attempts_made,
    "next_run": lambda task: task.next_run_at,
    "failed": lambda task: task.last_failed_at,
    "ended": lambda task: task.ended_at,
    "deleted": lambda task: task.expires_at,
}
"""Sort keys by the `ordering` of a column."""


def _in_order(tasks: Iterable[TaskRecord], order: Sequence[str]) -> list[TaskRecord]:
    """Return tasks sorted by columns, `-` for descending. Tasks without a value and unreadable tasks come last."""
    found = list(tasks)
    for name in reversed(order):
        value = SORTS[name.removeprefix("-")]
        keys: list[tuple[Any, TaskRecord]] = [
            (value(task) if isinstance(task, TaskInfo) else None, task) for task in found
        ]
        known = [pair for pair in keys if pair[0] is not None]
        known.sort(key=lambda pair: pair[0], reverse=name.startswith("-"))
        found = [task for _, task in known] + [task for key, task in keys if key is None]
    return found


class TaskRows(FilteredRows):
    """Rows of the list of tasks, without tasks that wait in groups.

    Args:
        request: As in `FilteredRows`.
        count_queues: Returns the queues, which it reads once per request.
        with_payloads: Whether the user may see payloads. If not, rows have none, and a search does not read them.
    """

    def __init__(
        self, request: HttpRequest, count_queues: Callable[[], Sequence[QueueInfo]], *, with_payloads: bool
    ) -> None:
        super().__init__(Task, TaskFilter(in_payload=with_payloads), request)
        self._count_queues = count_queues
        self._inspector = Inspector(taskq)
        self._order: tuple[str, ...] = ()

    @property
    def infos(self) -> Sequence[QueueInfo]:
        """The queues."""
        return self._count_queues()

    def order_by(self, *fields: str) -> "TaskRows":
        """Return the rows sorted by these columns. By default the newest tasks come first."""
        return self._changed(_order=tuple(each for each in fields if each.removeprefix("-") in SORTS))

    def size(self) -> int:
        """Return the number of tasks, or of the tasks found by a search."""
        if self.wanted.needs_reading:
            return len(self.search.tasks)
        return len(self._sorted()) if self._order else self._total

    @property
    def _total(self) -> int:
        return total_of(self.wanted.of(self.infos), self.wanted.state)

    def read(self, start: int, stop: int) -> Sequence[Task]:
        """Read tasks."""
        if self.wanted.needs_reading:
            matches = _in_order(self.search.tasks, self._order or NEWEST_FIRST)[start:stop]
            found: Sequence[TaskRecord] = [self._whole(record) for record in matches]
        elif self._order or self._is_sorted_by_default():
            found = self._sorted()[start:stop]
        else:
            found = Dashboard(self._inspector).tasks(
                self.infos, self.wanted, skip=start, count=stop - start, is_newest_first=True
            )
        rows = [self._row(record) for record in found]
        if any(record.last_worker for record in found if isinstance(record, TaskInfo)):
            servers = self._inspector.servers()
            workers = {worker_token(each.id): f"{each.host}:{each.pid}" for each in servers}
            for row in rows:
                row.workers = workers
        return rows

    def _row(self, record: TaskRecord) -> Task:
        hides_payload = not self.wanted.in_payload
        shown = without_payload(record) if hides_payload else record
        task: Task = row_of(Task, key_of(record.queue, record.id), shown, hides_payload=hides_payload)
        return task

    def _whole(self, record: TaskRecord) -> TaskRecord:
        """Read a found task again, with the fields that searches omit. If it was deleted, return it as it was found."""
        try:
            return self._inspector.task(record.queue, record.id)
        except (QueueNotFoundError, TaskNotFoundError):
            return record

    def _is_sorted_by_default(self) -> bool:
        """Return whether the default order needs all tasks to be read and sorted here.

        Redis already sorts the tasks of one queue and state, except completed tasks.
        """
        one_list = self.wanted.state not in (None, TaskState.COMPLETED) and len(self.wanted.of(self.infos)) == 1
        return self._total <= SORTED_MAX and not one_list and len(self._sorted()) == self._total

    def _sorted(self) -> Sequence[TaskRecord]:
        """Return at most `SORTED_MAX` tasks of about `SORTED_BYTES`, sorted. They are read once per request."""
        key = (self.wanted, self._order)
        if key not in self._searches:
            default = SOONEST_FIRST if self.wanted.state in (TaskState.SCHEDULED, TaskState.RETRY) else NEWEST_FIRST
            self._searches[key] = _in_order(self._read_to_sort(), self._order or default)
        found: Sequence[TaskRecord] = self._searches[key]
        return found

    def _read_to_sort(self) -> list[TaskRecord]:
        dashboard = Dashboard(self._inspector)
        found: list[TaskRecord] = []
        size = 0
        for skip in range(0, min(self._total, SORTED_MAX), _READ_AT_ONCE):
            count = min(_READ_AT_ONCE, SORTED_MAX - skip)
            part = dashboard.tasks(self.infos, self.wanted, skip=skip, count=count, is_newest_first=True)
            found += part
            size += sum(len(each.payload) + len(each.result) for each in part if isinstance(each, TaskInfo))
            if len(part) < count or size > SORTED_BYTES:
                break
        return found

    def pick(self, keys: Sequence[str]) -> Sequence[Task]:
        """Read tasks by their keys. The filter does not apply."""
        found = []
        for key in keys:
            try:
                found.append(self._row(self._inspector.task(*parts_of(key))))
            except (QueueNotFoundError, TaskNotFoundError):
                continue
        return found

    @property
    def note(self) -> str:  # type: ignore[override]  # computed here
        """Text about the progress of a search, an empty list, and tasks that are not listed."""
        if self.wanted.needs_reading:
            notes = [self.search_note()]
        else:
            notes = [self._sorting_note() if self.count() else self._why_none()]
        aggregating = sum(info.sizes[TaskState.AGGREGATING] for info in self.wanted.of(self.infos))
        if aggregating:
            text = "%(count)d task waits in a group and is not listed."
            plural = "%(count)d tasks wait in groups and are not listed."
            notes.append(ngettext(text, plural, aggregating) % {"count": aggregating})
        return " ".join(note for note in notes if note)

    def _sorting_note(self) -> str:
        """Return a note if not all tasks are sorted."""
        facts = {"count": number(self.count()), "total": number(self._total)}
        if self._order and self.count() < self._total:
            return _("%(count)s of %(total)s tasks are sorted and listed. Filter them to see others.") % facts
        several = self.wanted.state is None or len(self.wanted.of(self.infos)) > 1
        if several and not self._order and not self._is_sorted_by_default():
            return _("%(total)s tasks are too many to sort: they are listed by state and queue.") % facts
        return ""

    def _why_none(self) -> str:
        if self.wanted.state is not TaskState.COMPLETED:
            return _("No tasks here.")
        retention = taskq.settings.defaults.get("retention", 0)
        if retention:
            span = retention if isinstance(retention, timedelta) else timedelta(seconds=retention)
            return _("No tasks here. Tasks are deleted %(span)s after they have succeeded.") % {"span": span}
        return _(
            "No tasks here. A task is deleted when it has succeeded, because its retention is 0. To keep tasks, set "
            'TASKQ["DEFAULTS"] = {"retention": timedelta(hours=24)} for all tasks, or the option retention of single '
            "tasks."
        )

    def select(self, states: Sequence[TaskState]) -> TaskSelection:
        """Select the tasks of the list, or of its search, that are in one of these states."""
        if self.wanted.needs_reading:
            return selection_of(self.search, states)
        return Dashboard(self._inspector).select_tasks(self.infos, self.wanted, states=states)

    def run_search(self, cursor: str | None) -> FoundTasks:
        """Search tasks from a cursor."""
        return Dashboard(self._inspector).search_tasks(self.infos, self.wanted, cursor=cursor)
