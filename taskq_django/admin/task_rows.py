"""Tasks as rows of the admin: what a list asks for, and where it is read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.contrib.admin.utils import quote, unquote
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from taskq_core import TaskInfo, TaskNotFoundError, TaskState
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import Inspector, QueueInfo, UnreadableTask, total_of
from taskq_django.admin.rows import Rows
from taskq_django.models import Task

Record = TaskInfo | UnreadableTask


def key_of(queue: str, task_id: str) -> str:
    """Return the key of a task: its queue and its id. The first slash parts them."""
    return f"{quote(queue)}/{task_id}"


def parts_of(key: str) -> tuple[str, str]:
    """Return queue and id of a key."""
    queue, _slash, task_id = key.partition("/")
    return unquote(queue), task_id


def row_of(record: Record) -> Task:
    """Return the row of a task."""
    task = Task(id=key_of(record.queue, record.id))
    task.record = record
    return task


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which tasks are asked for; None and "" do not matter."""

    queue: str | None = None
    state: TaskState | None = None
    text: str = ""


class TaskRows(Rows):
    """Tasks that are wanted. The queues are counted once, for the filters and for all that is made of these rows.

    Args:
        inspector: Reads the tasks.
        infos: How the queues stand.
        per_page: Most tasks of a page.
        wanted: Which tasks.
    """

    def __init__(
        self, inspector: Inspector, infos: Sequence[QueueInfo], *, per_page: int, wanted: Wanted | None = None
    ) -> None:
        super().__init__(Task)
        self.infos = infos
        self.wanted = wanted or Wanted()
        self._inspector = inspector
        self._per_page = per_page
        self._found: list[Record] | None = None

    def narrow(self, **wanted: Any) -> "TaskRows":
        """Return those that are wanted besides."""
        return TaskRows(self._inspector, self.infos, per_page=self._per_page, wanted=replace(self.wanted, **wanted))

    @property
    def chosen(self) -> Sequence[QueueInfo]:
        """The queues that are asked."""
        return [info for info in self.infos if self.wanted.queue in (None, info.name)]

    @property
    def note(self) -> str:
        """Why there are none, and which are not listed."""
        notes = []
        if self.wanted.text and not self.count():
            notes.append(_("No task has this id. Tasks are deleted when they are done, unless they have a retention."))
        elif not self.count():
            notes.append(_("No tasks here."))
        aggregating = sum(info.sizes[TaskState.AGGREGATING] for info in self.chosen)
        if aggregating:
            text = "%(count)d task waits in a group and is not listed."
            plural = "%(count)d tasks wait in groups and are not listed."
            notes.append(ngettext(text, plural, aggregating) % {"count": aggregating})
        return " ".join(notes)

    def size(self) -> int:
        """Return how many there are."""
        if self.wanted.text:
            return len(self._search())
        return total_of(self.chosen, self.wanted.state)

    def read(self, start: int, stop: int) -> Sequence[Task]:
        """Read a page."""
        if self.wanted.text:
            return [row_of(record) for record in self._search()[start:stop]]
        size = self._per_page if start % self._per_page == 0 and stop - start <= self._per_page else stop - start
        if not size:
            return []
        page = self._inspector.tasks_of(self.chosen, self.wanted.state, page=start // size + 1, page_size=size)
        return [row_of(record) for record in page.tasks]

    def pick(self, keys: Sequence[str]) -> Sequence[Task]:
        """Read tasks by their keys, whatever else is wanted."""
        found = []
        for key in keys:
            queue, task_id = parts_of(key)
            try:
                found.append(row_of(self._inspector.task(queue, task_id)))
            except (QueueNotFoundError, TaskNotFoundError):
                continue
        return found

    def _search(self) -> list[Record]:
        if self._found is None:
            self._found = []
            for info in self.chosen:
                try:
                    record = self._inspector.task(info.name, self.wanted.text)
                except (QueueNotFoundError, TaskNotFoundError):
                    continue
                if self.wanted.state in (None, record.state):
                    self._found.append(record)
        return self._found
