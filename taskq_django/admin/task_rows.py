"""Tasks as rows of the admin: what a list asks for, and where it is read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.contrib.admin.utils import quote, unquote
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from taskq_core import ConfigurationError, TaskInfo, TaskNotFoundError, TaskState
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import PAGE_SIZE_MAX, Inspector, QueueInfo, total_of
from taskq_core.views import Dashboard, TaskFilter, TaskRecord, TaskSearch, TaskSelection, selection_of
from taskq_core.wire.ids import worker_token
from taskq_django.admin.rows import Rows
from taskq_django.admin.task_order import SORTS, in_order
from taskq_django.app import taskq
from taskq_django.models import Task

SORTED_MAX = 10_000
"""Maximum number of tasks that are read to sort them."""
NEWEST_FIRST, SOONEST_FIRST = ("-time",), ("next_run",)


def key_of(queue: str, task_id: str) -> str:
    """Return the key of a task: its queue and its id. The first slash parts them."""
    return f"{quote(queue)}/{task_id}"


def parts_of(key: str) -> tuple[str, str]:
    """Return queue and id of a key."""
    queue, _slash, task_id = key.partition("/")
    return unquote(queue), task_id


def row_of(record: TaskRecord) -> Task:
    """Return the row of a task."""
    task = Task(id=key_of(record.queue, record.id))
    task.record = record
    return task


class TaskRows(Rows):
    """Tasks that are wanted. The queues are counted when that is needed: not for tasks that are picked by their keys.

    Args:
        count_queues: Returns how the queues stand, read once a request.
        wanted: Which tasks.
        cursor: Where a search continues, from `next_cursor`; None at the start.
        searches: Searches and sorted lists of this request, shared by all rows derived from these.
        order: Columns to sort by, as `task_order` names them, `-` for descending. Empty: the newest first.
    """

    def __init__(
        self,
        count_queues: Callable[[], Sequence[QueueInfo]],
        *,
        wanted: TaskFilter | None = None,
        cursor: str | None = None,
        searches: dict[Any, Any] | None = None,
        order: tuple[str, ...] = (),
    ) -> None:
        super().__init__(Task)
        self._count_queues = count_queues
        self.wanted = wanted or TaskFilter()
        self._cursor = cursor
        self._inspector = Inspector(taskq)
        self._searches = {} if searches is None else searches
        self._order = order

    @property
    def infos(self) -> Sequence[QueueInfo]:
        """How the queues stand."""
        return self._count_queues()

    def narrow(self, **wanted: Any) -> "TaskRows":
        """Return those that are wanted besides."""
        return self._with(wanted=replace(self.wanted, **wanted))

    def order_by(self, *fields: str) -> "TaskRows":
        """Return them in the order of these columns."""
        return self._with(order=tuple(each for each in fields if each.removeprefix("-") in SORTS))

    def _with(self, *, wanted: TaskFilter | None = None, order: tuple[str, ...] | None = None) -> "TaskRows":
        return TaskRows(
            self._count_queues,
            wanted=wanted or self.wanted,
            cursor=self._cursor,
            searches=self._searches,
            order=self._order if order is None else order,
        )

    def size(self) -> int:
        """Return how many there are; of a search, how many it found."""
        if self.wanted.looks_inside:
            return len(self._search().tasks)
        return min(self._total, SORTED_MAX) if self._order else self._total

    @property
    def _total(self) -> int:
        return total_of(self.wanted.of(self.infos), self.wanted.state)

    def read(self, start: int, stop: int) -> Sequence[Task]:
        """Read tasks."""
        if self.wanted.looks_inside:
            matches = in_order(self._search().tasks, self._order or NEWEST_FIRST)[start:stop]
            found = [self._whole(record) for record in matches]
        elif self._is_sorted:
            found = list(self._sorted()[start:stop])
        else:
            found = self._page(start, stop)
        rows = [row_of(record) for record in found]
        if any(record.last_worker for record in found if isinstance(record, TaskInfo)):
            workers = self._worker_names()
            for row in rows:
                row.workers = workers
        return rows

    def _worker_names(self) -> dict[str, str]:
        """Return host and process id of the workers that are alive, by their tokens."""
        return {worker_token(each.id): f"{each.host}:{each.pid}" for each in self._inspector.servers()}

    def _whole(self, record: TaskRecord) -> TaskRecord:
        """Read a found task again, with the fields that searches omit. If it is gone, return it as it was found."""
        try:
            return self._inspector.task(record.queue, record.id)
        except (QueueNotFoundError, TaskNotFoundError):
            return record

    @property
    def _is_sorted(self) -> bool:
        """Whether all tasks are read to sort them. Redis sorts those of one queue and state, except completed tasks."""
        one_list = self.wanted.state not in (None, TaskState.COMPLETED) and len(self.wanted.of(self.infos)) == 1
        return bool(self._order) or (self._total <= SORTED_MAX and not one_list)

    def _sorted(self) -> Sequence[TaskRecord]:
        key = (self.wanted, self._order)
        if key not in self._searches:
            default = SOONEST_FIRST if self.wanted.state in (TaskState.SCHEDULED, TaskState.RETRY) else NEWEST_FIRST
            self._searches[key] = in_order(self._page(0, SORTED_MAX), self._order or default)
        found: Sequence[TaskRecord] = self._searches[key]
        return found

    def _page(self, start: int, stop: int) -> list[TaskRecord]:
        """Read tasks state by state and queue by queue, the newest first."""
        dashboard = Dashboard(self._inspector)
        found: list[TaskRecord] = []
        for skip in range(start, stop, PAGE_SIZE_MAX):
            count = min(PAGE_SIZE_MAX, stop - skip)
            part = dashboard.tasks(self.infos, self.wanted, skip=skip, count=count, is_newest_first=True)
            found += part
            if len(part) < count:
                break
        return found

    def pick(self, keys: Sequence[str]) -> Sequence[Task]:
        """Read tasks by their keys, whatever else is wanted."""
        found = []
        for key in keys:
            queue, task_id = parts_of(key)
            try:
                record = self._inspector.task(queue, task_id)
            except (QueueNotFoundError, TaskNotFoundError):
                continue
            task = Task(id=key)
            task.record = record
            found.append(task)
        return found

    @property
    def next_cursor(self) -> str | None:
        """Number of searched tasks and cursor to continue the search. None at its end."""
        cursor = self._search().cursor if self.wanted.looks_inside else None
        return None if cursor is None else f"{self.searched[0]}:{cursor}"

    @property
    def searched(self) -> tuple[int, int]:
        """Number of tasks searched so far, and their total."""
        search = self._search()
        return min(self._before()[0] + search.scanned, search.total), search.total

    def _before(self) -> tuple[int, str | None]:
        """Return the number of tasks that earlier requests of this search have read, and its cursor."""
        count, colon, cursor = (self._cursor or "").partition(":")
        is_ours = bool(colon) and count.isascii() and count.isdecimal() and len(count) <= 12
        return (int(count), cursor) if is_ours else (0, None)

    @property
    def note(self) -> str:
        """How far a search got, why there are none, and which are not listed."""
        notes = []
        if self.wanted.looks_inside:
            notes.append(self._progress())
        elif not self.count():
            notes.append(self._why_none())
        else:
            notes.append(self._sorting())
        aggregating = sum(info.sizes[TaskState.AGGREGATING] for info in self.wanted.of(self.infos))
        if aggregating:
            text = "%(count)d task waits in a group and is not listed."
            plural = "%(count)d tasks wait in groups and are not listed."
            notes.append(ngettext(text, plural, aggregating) % {"count": aggregating})
        return " ".join(note for note in notes if note)

    def _progress(self) -> str:
        search, (scanned, total) = self._search(), self.searched
        facts = {"scanned": _number(scanned), "total": _number(total)}
        if search.cursor is not None:
            return _("%(scanned)s of %(total)s tasks were searched.") % facts
        if self._before()[0]:
            return _("All %(total)s tasks were searched.") % facts
        if search.tasks:
            return ""
        return _("None of %(total)s tasks fits. Tasks that succeed are deleted, unless they have a retention.") % facts

    def _sorting(self) -> str:
        """Return a note if not all tasks are sorted, because there are more than `SORTED_MAX`."""
        if self._total <= SORTED_MAX:
            return ""
        facts = {"most": _number(SORTED_MAX), "total": _number(self._total)}
        if self._order:
            return _("%(most)s of %(total)s tasks are sorted and listed. Filter them to see others.") % facts
        if self.wanted.state is None or len(self.wanted.of(self.infos)) > 1:
            return _("%(total)s tasks are too many to sort: they are listed state by state and queue by queue.") % facts
        return ""

    def _why_none(self) -> str:
        if self.wanted.state is not TaskState.COMPLETED:
            return _("No tasks here.")
        kept = taskq.settings.defaults.get("retention", 0)
        if kept:
            span = kept if isinstance(kept, timedelta) else timedelta(seconds=kept)
            return _("No tasks here. A task is kept for %(span)s after it has succeeded.") % {"span": span}
        return _(
            "No tasks here. A task is deleted when it has succeeded, because its retention is 0. To keep tasks, set "
            'TASKQ["DEFAULTS"] = {"retention": timedelta(hours=24)} for all of them, or give single ones the option '
            "retention."
        )

    def select(self, states: Sequence[TaskState]) -> TaskSelection:
        """Select all of them that are in one of these states; of a search, those it found."""
        if self.wanted.looks_inside:
            return selection_of(self._search(), states)
        return Dashboard(self._inspector).select_tasks(self.infos, self.wanted, states=states)

    def _search(self) -> TaskSearch:
        """Search once a request, whatever is made of these rows: it may read thousands of tasks."""
        key = (self.wanted, self._cursor)
        if key not in self._searches:
            dashboard = Dashboard(self._inspector)
            try:
                self._searches[key] = dashboard.search_tasks(self.infos, self.wanted, cursor=self._before()[1])
            except ConfigurationError:  # the cursor of an address that somebody has changed
                self._searches[key] = dashboard.search_tasks(self.infos, self.wanted)
        found: TaskSearch = self._searches[key]
        return found


def _number(value: int) -> str:
    return number_format(value, force_grouping=True)
