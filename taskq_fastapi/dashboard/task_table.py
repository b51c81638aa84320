"""Tables of tasks: which columns fit a state, what a row shows, and how a form names a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote

from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import RunningTask, TaskAction, TaskRef, UnreadableTask
from taskq_core.settings.language import gettext, marked, pmarked
from taskq_core.views import TaskRecord, WorkersOverview, is_orphaned
from taskq_core.views.messages import actions_for
from taskq_core.wire import TaskState
from taskq_fastapi.dashboard.blobs import Blob, listed, listed_result
from taskq_fastapi.dashboard.errors import BadRequestError
from taskq_fastapi.dashboard.view import View

RUNNING = pmarked("task activity", "Running")
ORPHANED = pmarked("task activity", "Orphaned")
ERROR_CHARS = 160
"""Characters of an error that a list shows."""
COLUMNS: Mapping[TaskState | None, Sequence[str]] = {
    None: ("queue", "state", "payload", "time", "error", "retries"),
    TaskState.ACTIVE: ("payload", "status", "started", "deadline"),
    TaskState.PENDING: ("payload", "retries"),
    TaskState.AGGREGATING: ("payload", "group"),
    TaskState.SCHEDULED: ("payload", "starts", "retries"),
    TaskState.RETRY: ("payload", "next", "error", "retries"),
    TaskState.ARCHIVED: ("payload", "failed", "error", "retries"),
    TaskState.COMPLETED: ("payload", "completed", "result", "deleted"),
}
"""Columns by state, besides id, type and what can be done; None for tasks of several states or queues."""
LABELS = {
    "queue": marked("Queue"),
    "state": marked("State"),
    "payload": marked("Payload"),
    "time": marked("Time"),
    "error": marked("Last error"),
    "retries": marked("Retried"),
    "status": marked("Status"),
    "deadline": marked("Deadline"),
    "group": marked("Group"),
    "next": marked("Next attempt"),
    "result": marked("Result"),
}
TIME_LABELS = {
    "started": pmarked("time", "Started"),
    "starts": pmarked("time", "Starts"),
    "failed": pmarked("time", "Failed"),
    "completed": pmarked("time", "Completed"),
    "deleted": pmarked("time", "Deleted"),
}
_TIMES = {
    "starts": "next_run_at",
    "next": "next_run_at",
    "failed": "last_failed_at",
    "completed": "completed_at",
    "deleted": "expires_at",
}


def mark_of(task: TaskRecord) -> str:
    """Return the form value for a task and the state in which it was seen."""
    return f"{task.state}/{quote(task.queue.encode('utf-8', 'surrogateescape'), safe='')}/{task.id}"


def ref_of(mark: str) -> TaskRef:
    """Return the task that a form means.

    Raises:
        BadRequestError: It means none.
    """
    state, _, rest = mark.partition("/")
    queue, slash, task_id = rest.partition("/")
    if state not in tuple(TaskState) or not slash or not queue or not task_id:
        raise BadRequestError(gettext("task must come from a list of tasks, got %(got)r", got=mark[:80]))
    return TaskRef(unquote(queue, errors="surrogateescape"), task_id, TaskState(state))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A task in a table.

    Attributes:
        task: The task.
        mark: Its value in a form.
        name: Its type, "" if it is unreadable.
        error: The first line of its last error, or why it cannot be read.
        payload: Visible text of its payload.
        result: Visible text of its result.
        status: `Running` or `Orphaned` for an active task.
        started_at: When the run began, of an active one.
        deadline: When an active one has to end, or any one's latest moment to run.
        actions: What can be done to it, with what the buttons say.
    """

    task: TaskRecord
    mark: str
    name: str
    error: str
    payload: Blob
    result: Blob
    status: str
    started_at: datetime | None
    deadline: datetime | None
    actions: Sequence[tuple[TaskAction, str]]

    @property
    def waits_for_limit(self) -> bool:
        """Whether it starts as soon as its limits let it, at no known time."""
        return isinstance(self.task, TaskInfo) and self.task.waits_for_limit

    def time(self, column: str) -> datetime | None:
        """Return the time that a column shows."""
        if isinstance(self.task, UnreadableTask):
            return None
        if column == "time":
            return self.task.next_run_at or self.task.completed_at or self.task.archived_at
        found: datetime | None = getattr(self.task, _TIMES[column])
        return found


def rows_of(
    view: View, tasks: Sequence[TaskRecord], *, now: datetime, workers: WorkersOverview | None = None
) -> list[Row]:
    """Return the rows of a table.

    Args:
        view: Who looks.
        tasks: The tasks.
        now: The time, by Redis's clock.
        workers: What runs, for active tasks.
    """
    running = (
        {} if workers is None else {(run.queue, run.task_id): run for each in workers.workers for run in each.running}
    )
    return [_row(view, task, now, running.get((task.queue, task.id))) for task in tasks]


def _row(view: View, task: TaskRecord, now: datetime, run: RunningTask | None) -> Row:
    actions = actions_for(task.state)
    status = ""
    if task.state is TaskState.ACTIVE:
        status = status_of(view, task, now)
        if status == ORPHANED:
            actions = []  # no worker would hear of it
    if not isinstance(task, TaskInfo):
        hidden = Blob("")
        return Row(
            task=task,
            mark=mark_of(task),
            name="",
            error=task.problem,
            payload=hidden,
            result=hidden,
            status=status,
            started_at=None,
            deadline=None,
            actions=actions,
        )
    return Row(
        task=task,
        mark=mark_of(task),
        name=task.name,
        error=error_line(view, task),
        payload=listed(view.shown, task.name, "payload", task.payload),
        result=listed_result(view.shown, task),
        status=status,
        started_at=None if run is None else run.started_at,
        deadline=task.deadline if run is None else run.deadline,
        actions=actions,
    )


def status_of(view: View, task: TaskRecord, now: datetime) -> str:
    """Return what an active task does."""
    if is_orphaned(task, now):
        return ORPHANED
    return RUNNING


def error_line(view: View, task: TaskInfo) -> str:
    """Return the first line of the last error, as it may be shown."""
    error = str(view.shown.value(task.name, "error", task.last_error))
    line = error.strip().partition("\n")[0]
    return line if len(line) <= ERROR_CHARS else f"{line[: ERROR_CHARS - 1]}…"
