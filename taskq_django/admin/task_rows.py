"""Tasks as rows of the admin: what a list asks for, and where it is read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.contrib.admin.utils import quote, unquote
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from taskq_core import ConfigurationError, TaskNotFoundError, TaskState
from taskq_core.dashboard import SCAN_MAX, Dashboard, TaskFilter, TaskRecord, TaskSearch, TaskSelection, selection_of
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import PAGE_SIZE_MAX, Inspector, QueueInfo, total_of
from taskq_django.admin.rows import Rows
from taskq_django.app import taskq
from taskq_django.models import Task


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
        cursor: Where a search goes on, None at the start.
        searches: What was searched for these rows already; shared by all that are made of them.
    """

    def __init__(
        self,
        count_queues: Callable[[], Sequence[QueueInfo]],
        *,
        wanted: TaskFilter | None = None,
        cursor: str | None = None,
        searches: dict[Any, TaskSearch] | None = None,
    ) -> None:
        super().__init__(Task)
        self._count_queues = count_queues
        self.wanted = wanted or TaskFilter()
        self._cursor = cursor
        self._inspector = Inspector(taskq)
        self._searches = {} if searches is None else searches

    @property
    def infos(self) -> Sequence[QueueInfo]:
        """How the queues stand."""
        return self._count_queues()

    def narrow(self, **wanted: Any) -> "TaskRows":
        """Return those that are wanted besides."""
        return TaskRows(
            self._count_queues, wanted=replace(self.wanted, **wanted), cursor=self._cursor, searches=self._searches
        )

    def size(self) -> int:
        """Return how many there are; of a search, how many it found."""
        if self.wanted.looks_inside:
            return len(self._search().tasks)
        return total_of(self.wanted.of(self.infos), self.wanted.state)

    def read(self, start: int, stop: int) -> Sequence[Task]:
        """Read tasks."""
        if self.wanted.looks_inside:
            found = list(self._search().tasks[start:stop])
        else:
            dashboard = Dashboard(self._inspector)
            found = [
                record
                for skip in range(start, stop, PAGE_SIZE_MAX)
                for record in dashboard.tasks(self.infos, self.wanted, skip=skip, count=min(PAGE_SIZE_MAX, stop - skip))
            ]
        return [row_of(record) for record in found]

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
        """Where a search goes on, None if it is at its end."""
        return self._search().cursor if self.wanted.looks_inside else None

    @property
    def note(self) -> str:
        """How far a search got, why there are none, and which are not listed."""
        notes = []
        if self.wanted.looks_inside:
            notes.append(self._progress())
        elif not self.count():
            notes.append(self._why_none())
        aggregating = sum(info.sizes[TaskState.AGGREGATING] for info in self.wanted.of(self.infos))
        if aggregating:
            text = "%(count)d task waits in a group and is not listed."
            plural = "%(count)d tasks wait in groups and are not listed."
            notes.append(ngettext(text, plural, aggregating) % {"count": aggregating})
        return " ".join(note for note in notes if note)

    def _progress(self) -> str:
        search = self._search()
        facts = {"scanned": search.scanned, "total": search.total, "most": SCAN_MAX}
        if self._cursor is not None:
            text = _("%(scanned)d more of %(total)d tasks were read.") % facts
        elif search.cursor is not None:
            text = _("%(scanned)d of %(total)d tasks were read; at most %(most)d are read at once.") % facts
        elif search.tasks:
            return ""
        else:
            text = (
                _("None of %(total)d tasks fits. Tasks that succeed are deleted, unless they have a retention.") % facts
            )
        return text

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
                self._searches[key] = dashboard.search_tasks(self.infos, self.wanted, cursor=self._cursor)
            except ConfigurationError:  # the cursor of an address that somebody has changed
                self._searches[key] = dashboard.search_tasks(self.infos, self.wanted)
        return self._searches[key]
