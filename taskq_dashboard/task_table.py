"""Tables of tasks: the columns for each state, the rows, and the form values for tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote

from taskq_core import TaskInfo, TaskState
from taskq_core.inspector import RunningTask, TaskAction, TaskRef
from taskq_core.settings.language import gettext, pmarked
from taskq_core.views import TaskRecord, WorkersOverview, is_orphaned
from taskq_core.views.messages import actions_for
from taskq_dashboard.blobs import NO_BLOB, Blob, listed, result_of
from taskq_dashboard.errors import BadRequestError
from taskq_dashboard.view import View

RUNNING = pmarked("task activity", "Running")
ORPHANED = pmarked("task activity", "Orphaned")
ERROR_CHARS = 160
"""Characters of an error that a list shows."""
COLUMNS: Mapping[TaskState | None, Sequence[str]] = {
    None: ("queue", "state", "payload", "time", "error", "retries"),
    TaskState.ACTIVE: ("payload", "status", "started", "deadline"),
    TaskState.PENDING: ("payload", "pending", "retries"),
    TaskState.AGGREGATING: ("payload", "group"),
    TaskState.SCHEDULED: ("payload", "starts", "retries"),
    TaskState.RETRY: ("payload", "next", "error", "retries"),
    TaskState.ARCHIVED: ("payload", "archived", "failed", "error", "retries"),
    TaskState.COMPLETED: ("payload", "completed", "result", "deleted"),
}
"""Columns by state, between type and actions. None: tasks of several states or queues."""
TIMES: Mapping[TaskState, str] = {
    TaskState.ACTIVE: "started",
    TaskState.PENDING: "pending",
    TaskState.SCHEDULED: "starts",
    TaskState.RETRY: "next",
    TaskState.ARCHIVED: "archived",
    TaskState.COMPLETED: "deleted",
}
"""The column with the time by which Redis sorts the tasks of a state."""


def mark_of(task: TaskRecord) -> str:
    """Return the value by which a form names a task, its state and its generation when the page was shown."""
    generation = f"@{task.generation}" if task.generation else ""
    return f"{task.state}{generation}/{quote(task.queue.encode('utf-8', 'surrogateescape'), safe='')}/{task.id}"


def ref_of(mark: str) -> TaskRef:
    """Return the task that a form value from `mark_of` names.

    Raises:
        BadRequestError: The form value is not valid.
    """
    shown, _, rest = mark.partition("/")
    state, _, generation = shown.partition("@")
    queue, slash, task_id = rest.partition("/")
    if state not in tuple(TaskState) or not slash or not queue or not task_id:
        raise BadRequestError(gettext("task must come from a list of tasks, got %(got)r", got=mark[:80]))
    return TaskRef(unquote(queue, errors="surrogateescape"), task_id, TaskState(state), generation or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A task in a table.

    Attributes:
        task: The task.
        mark: The value by which a form names the task, see `mark_of`.
        name: Name of the task, "" if it is unreadable.
        error: First line of the last error, or why the task cannot be read.
        payload: Visible text of the payload.
        result: Visible text of the result.
        status: `Running` or `Orphaned` for an active task, else "".
        started_at: Start of the run of an active task.
        deadline: Deadline of the run of an active task, or of the task.
        actions: Possible actions, with the labels of their buttons.
    """

    task: TaskRecord
    mark: str
    name: str = ""
    error: str
    payload: Blob = NO_BLOB
    result: Blob = NO_BLOB
    status: str
    started_at: datetime | None = None
    deadline: datetime | None = None
    actions: Sequence[tuple[TaskAction, str]]


def rows_of(
    view: View, tasks: Sequence[TaskRecord], *, now: datetime, workers: WorkersOverview | None = None
) -> list[Row]:
    """Return the rows of a table.

    Args:
        view: The view of the user.
        tasks: The tasks.
        now: The current time of Redis.
        workers: The workers with their running tasks, for active tasks.
    """
    running = (
        {} if workers is None else {(run.queue, run.task_id): run for each in workers.workers for run in each.running}
    )
    return [_row(view, task, now, running.get((task.queue, task.id))) for task in tasks]


def _row(view: View, task: TaskRecord, now: datetime, run: RunningTask | None) -> Row:
    actions = actions_for(task.state)
    status = ""
    if task.state is TaskState.ACTIVE:
        status = status_of(task, now)
        if status == ORPHANED:
            actions = []  # the task's worker is lost, so nothing would receive a cancellation
    if not isinstance(task, TaskInfo):
        return Row(task=task, mark=mark_of(task), error=task.problem, status=status, actions=actions)
    return Row(
        task=task,
        mark=mark_of(task),
        name=task.name,
        error=error_line(view, task),
        payload=listed(view.shown, task.name, "payload", task.payload),
        result=result_of(listed, view.shown, task),
        status=status,
        started_at=task.started_at if run is None else run.started_at,
        deadline=task.deadline if run is None else run.deadline,
        actions=actions,
    )


def status_of(task: TaskRecord, now: datetime) -> str:
    """Return the status of an active task: orphaned if its lease has ended, else running."""
    return ORPHANED if is_orphaned(task, now) else RUNNING


def error_line(view: View, task: TaskInfo) -> str:
    """Return the visible first line of the last error, "" for a completed task, whose page shows it as history."""
    if task.state is TaskState.COMPLETED:
        return ""
    error = str(view.shown.value(task.name, "error", task.last_error))
    line = error.strip().partition("\n")[0]
    return line if len(line) <= ERROR_CHARS else f"{line[: ERROR_CHARS - 1]}…"
