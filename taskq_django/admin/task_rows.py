"""Read and sort tasks as rows of the admin."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy

from taskq_core import TaskInfo, TaskNotFoundError, TaskState
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import LISTED_STATES, Inspector, QueueInfo, TaskOrder, total_of
from taskq_core.views import (
    SCAN_MAX,
    Dashboard,
    FoundTasks,
    TaskFilter,
    TaskRecord,
    TaskSelection,
    without_payload,
)
from taskq_core.wire.tokens import worker_token
from taskq_django.admin.actions import Deadline
from taskq_django.admin.formats import key_of, number, parts_of
from taskq_django.admin.rows import FilteredRows, row_of
from taskq_django.app import taskq
from taskq_django.models import Task

SORTED_MAX = SCAN_MAX
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
    "pending": lambda task: task.pending_since,
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
TIME_COLUMNS: dict[TaskState, tuple[str, Any]] = {
    TaskState.ACTIVE: ("started", pgettext_lazy("time", "started")),
    TaskState.PENDING: ("pending", gettext_lazy("pending since")),
    TaskState.SCHEDULED: ("next_run", pgettext_lazy("time", "starts")),
    TaskState.RETRY: ("next_run", gettext_lazy("next attempt")),
    TaskState.ARCHIVED: ("ended", pgettext_lazy("time", "archived")),
    TaskState.COMPLETED: ("deleted", pgettext_lazy("time", "deleted")),
}
"""`ordering` and heading of the column with the time by which Redis sorts the tasks of a state."""


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

    Up to `SORTED_MAX` tasks are read and sorted by any column. More tasks keep the order of Redis: those of one queue
    and state can be sorted by the time of their state, others are listed by state and queue.

    Args:
        request: As in `FilteredRows`.
        page_size: As in `FilteredRows`.
        count_queues: Returns the queues, which it reads once per request.
        with_payloads: Whether the user may see payloads. If not, rows have none, and a search does not read them.
    """

    search_max = SCAN_MAX

    def __init__(
        self,
        request: HttpRequest,
        page_size: int,
        count_queues: Callable[[], Sequence[QueueInfo]],
        *,
        with_payloads: bool,
    ) -> None:
        super().__init__(Task, TaskFilter(in_payload=with_payloads), request, page_size)
        self._count_queues = count_queues
        self._inspector = Inspector(taskq)
        self._dashboard = Dashboard(self._inspector)
        self._order: tuple[str, ...] = ()
        self._user = request.user.get_username()

    @property
    def infos(self) -> Sequence[QueueInfo]:
        """The queues."""
        return self._count_queues()

    def order_by(self, *fields: str) -> "TaskRows":
        """Return the rows sorted by these columns. By default the newest tasks come first."""
        return self._changed(_order=tuple(each for each in fields if each.removeprefix("-") in SORTS))

    def size(self) -> int:
        """Return the number of tasks, or of the tasks found by a search."""
        if not self.wanted.needs_reading:
            return self.total()
        return len(self._all_matching.tasks if self.is_for_all else self.search.tasks)

    def total(self) -> int:
        """Return the number of tasks, or of the tasks that a search reads."""
        return total_of(self.wanted.of(self.infos), self.wanted.state)

    @property
    def _is_one_list(self) -> bool:
        """Whether Redis has all these tasks in one list, which is sorted by the time of their state."""
        return self.wanted.state is not None and len(self.wanted.of(self.infos)) == 1

    @property
    def sortable(self) -> frozenset[str] | None:  # type: ignore[override]  # computed here
        """The `ordering` of the columns by which the tasks can be sorted. None: all columns."""
        if self.wanted.needs_reading:
            is_read = not self.is_part
            keeps_order = self.wanted.state not in (TaskState.PENDING, TaskState.ACTIVE)
        else:
            known = self._searches.get(("sorted", self.wanted, self._order))
            is_read = self.total() <= SORTED_MAX and (known is None or len(known) == self.total())
            keeps_order = True
        if is_read:
            return None
        return frozenset({TIME_COLUMNS[self.wanted.state][0]} if self._is_one_list and keeps_order else ())

    @property
    def search_order(self) -> TaskOrder:  # type: ignore[override]  # computed here
        """The order of Redis that fits the chosen columns."""
        if self._order and self._is_one_list:
            if self._order[0] == TIME_COLUMNS[self.wanted.state][0]:
                return TaskOrder.OLDEST
            if self._order[0] == f"-{TIME_COLUMNS[self.wanted.state][0]}":
                return TaskOrder.NEWEST
        return TaskOrder.RECENT

    def read(self, start: int, stop: int) -> Sequence[Task]:
        """Read tasks."""
        found: Sequence[TaskRecord]
        if self.wanted.needs_reading and self.is_for_all:
            return self.pick([key_of(ref.queue, ref.id) for ref in self._all_matching.tasks[start:stop]])
        if self.wanted.needs_reading:
            matches = self.search.tasks
            if not self.is_part:
                matches = _in_order(matches, self._order or NEWEST_FIRST)
            found = [self._whole(record) for record in matches[start:stop]]
        elif self._is_sorted_here():
            found = self._sorted()[start:stop]
        else:
            found = self._dashboard.tasks(
                self.infos, self.wanted, skip=start, count=stop - start, order=self.search_order
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
        task: Task = row_of(Task, key_of(record.queue, record.id), shown, hides_payload=hides_payload, user=self._user)
        return task

    def _whole(self, record: TaskRecord) -> TaskRecord:
        """Read a found task again, with the fields that searches omit. If it was deleted, return it as it was found."""
        try:
            return self._inspector.task(record.queue, record.id)
        except (QueueNotFoundError, TaskNotFoundError):
            return record

    def _is_sorted_here(self) -> bool:
        """Return whether the tasks are read and sorted here.

        By default, Redis has sorted the tasks of one queue and state, except completed tasks.
        """
        is_sorted = self._is_one_list and not self._order and self.wanted.state is not TaskState.COMPLETED
        return self.total() <= SORTED_MAX and not is_sorted and len(self._sorted()) == self.total()

    def _sorted(self) -> Sequence[TaskRecord]:
        """Return at most `SORTED_MAX` tasks of about `SORTED_BYTES`, sorted. They are read once per request."""
        key = ("sorted", self.wanted, self._order)
        if key not in self._searches:
            default = SOONEST_FIRST if self.wanted.state in (TaskState.SCHEDULED, TaskState.RETRY) else NEWEST_FIRST
            self._searches[key] = _in_order(self._read_to_sort(), self._order or default)
        found: Sequence[TaskRecord] = self._searches[key]
        return found

    def _read_to_sort(self) -> list[TaskRecord]:
        found: list[TaskRecord] = []
        size = 0
        for skip in range(0, min(self.total(), SORTED_MAX), _READ_AT_ONCE):
            count = min(_READ_AT_ONCE, SORTED_MAX - skip)
            part = self._dashboard.tasks(self.infos, self.wanted, skip=skip, count=count, order=TaskOrder.RECENT)
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
        """Return a note if there are too many tasks to sort them by any column."""
        sortable = self.sortable
        if sortable is None:
            return ""
        total = number(self.total())
        if not sortable:
            return _(
                "%(total)s tasks are too many to sort: they are listed by state and queue. To sort them by time, "
                "filter them by state and queue."
            ) % {"total": total}
        column = TIME_COLUMNS[self.wanted.state][1]
        return _("%(total)s tasks are too many to sort by a column other than “%(column)s”.") % {
            "total": total,
            "column": column,
        }

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
        """Select the tasks that match the filter and are in one of these states."""
        if not self.wanted.needs_reading:
            return self._dashboard.select_tasks(self.infos, self.wanted, states=states)
        found = self._all_matching
        refused = Counter(ref.state for ref in found.tasks if ref.state is not None and ref.state not in states)
        tasks = [ref for ref in found.tasks if ref.state in states]
        return TaskSelection(tasks=tasks, refused=dict(refused), is_complete=found.is_complete)

    @property
    def _all_matching(self) -> TaskSelection:
        """The tasks that a search finds, for an action on all of them. They are read once per request."""
        key = ("all", self.wanted)
        if key not in self._searches:
            deadline = Deadline()
            self._searches[key] = self._dashboard.select_tasks(
                self.infos, self.wanted, states=tuple(TaskState), has_time=lambda: not deadline.is_over
            )
        found: TaskSelection = self._searches[key]
        return found

    @property
    def finds_all(self) -> bool:
        """Whether an action on all matching tasks knows all of them."""
        return not self.wanted.needs_reading or self._all_matching.is_complete

    def run_search(self, cursor: str | None, limit: int) -> FoundTasks:
        """Search tasks from a cursor."""
        return self._dashboard.search_tasks(
            self.infos, self.wanted, cursor=cursor, limit=limit, order=self.search_order
        )
