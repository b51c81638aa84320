"""The columns and cells of a list of tasks, by state."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from taskq_core.cli.render import shown_bytes, shown_distance, shown_span
from taskq_core.cli.terminal.figures import shown
from taskq_core.cli.terminal.screen import DashScreen
from taskq_core.cli.terminal.table import Column, Row
from taskq_core.inspector import RunningTask, TaskRef, UnreadableTask
from taskq_core.views import TaskRecord, WorkersOverview, is_orphaned
from taskq_core.wire import TaskState

LISTED_CHARS = 200
"""Most characters of a payload in a list."""
_MARK = Column(title=" ", least=1)
_ID = Column(title="Id", least=13, most=36)
_TYPE = Column(title="Type", least=12, most=32)
_PAYLOAD = Column(title="Payload", least=10, drop=1, grows=True)
_RETRIED = Column(title="Retried", right=True, drop=3)
_ERROR = Column(title="Last error", least=14, grows=True)
_QUEUE = Column(title="Queue", least=6, most=20)
_STATE = Column(title="State", least=9)
COLUMNS: dict[TaskState | None, Sequence[tuple[str, Column]]] = {
    None: (
        ("state", _STATE),
        ("time", Column(title="Time", least=8)),
        ("error", Column(title="Last error", least=12, drop=2)),
        ("payload", _PAYLOAD),
    ),
    TaskState.ACTIVE: (
        ("status", Column(title="Status", least=8)),
        ("running", Column(title="For", right=True)),
        ("deadline", Column(title="Deadline", least=8, drop=3)),
        ("payload", _PAYLOAD),
    ),
    TaskState.PENDING: (("retried", _RETRIED), ("payload", _PAYLOAD)),
    TaskState.AGGREGATING: (("payload", _PAYLOAD),),
    TaskState.SCHEDULED: (("next", Column(title="Starts", least=8)), ("retried", _RETRIED), ("payload", _PAYLOAD)),
    TaskState.RETRY: (
        ("next", Column(title="Next attempt", least=8)),
        ("retried", _RETRIED),
        ("error", _ERROR),
        ("payload", Column(title="Payload", least=10, drop=4, most=60)),
    ),
    TaskState.ARCHIVED: (
        ("failed", Column(title="Failed", least=8)),
        ("retried", _RETRIED),
        ("error", _ERROR),
        ("payload", Column(title="Payload", least=10, drop=4, most=60)),
    ),
    TaskState.COMPLETED: (
        ("completed", Column(title="Completed", least=8)),
        ("result", Column(title="Result", least=8, drop=2, most=40)),
        ("deleted", Column(title="Deleted", least=8, drop=4)),
        ("payload", _PAYLOAD),
    ),
}
"""Columns by state, besides mark, queue, id and type. None is for tasks of several states."""


class Listed:
    """Makes rows of the tasks of a page.

    Args:
        screen: The screen of the list.
        whole: Whether the list is of all queues and needs a column for the queue.
        marked: The marked tasks.
        now: The time of Redis's clock.
    """

    def __init__(self, screen: DashScreen[Any], *, whole: bool, marked: Collection[TaskRef], now: datetime) -> None:
        self._screen, self._poller, self._whole, self._marked, self._now = screen, screen.poller, whole, marked, now

    def table(
        self, state: TaskState | None, tasks: Sequence[TaskRecord], workers: WorkersOverview | None
    ) -> tuple[list[Column], list[Row]]:
        """Return the columns and rows.

        Args:
            state: The state of all tasks; None for several states.
            tasks: The tasks.
            workers: The running tasks, for state active.
        """
        names = COLUMNS[state]
        columns = [_MARK, *([_QUEUE] if self._whole else []), _ID, _TYPE, *(column for _, column in names)]
        each_run = () if workers is None else (run for each in workers.workers for run in each.running)
        running = {(run.queue, run.task_id): run for run in each_run}
        rows = []
        for task in tasks:
            name = task.problem if isinstance(task, UnreadableTask) else task.name
            style = self._poller.palette.bad if isinstance(task, UnreadableTask) else ""
            run = running.get((task.queue, task.id))
            cells = [
                Text("●" if ref_of(task) in self._marked else "·", self._poller.palette.link),
                *([shown(task.queue)] if self._whole else []),
                shown(task.id, "bold"),
                shown(name, style),
                *(self._cell(what, task, run) for what, _ in names),
            ]
            rows.append(Row(key_of(task), cells))
        return columns, rows

    def _cell(self, what: str, task: TaskRecord, run: RunningTask | None) -> Text:
        if what == "state":
            return self._screen.styled(task.state.value)
        if what == "status":
            return self._screen.styled(self._status(task))
        if isinstance(task, UnreadableTask):
            return shown("-")
        deadline = task.deadline if run is None else run.deadline
        match what:
            case "result" if task.oversized_result is not None:
                return self._screen.quiet(str(task.oversized_result))
            case "payload" | "result":
                return self._octets(task.payload if what == "payload" else task.result)
            case "error":
                return self._screen.first_line(task.last_error)
            case "retried":
                return shown(f"{task.retried}/{task.max_retry}")
            case "running":
                return shown(shown_span(None if run is None else run.running_for))
            case "next" if task.waits_for_limit:
                return self._screen.quiet("waits for a limit")
        moment = {
            "time": task.next_run_at or task.completed_at or task.archived_at,
            "deadline": deadline,
            "next": task.next_run_at,
            "failed": task.last_failed_at,
            "completed": task.completed_at,
            "deleted": task.expires_at,
        }[what]
        return shown(shown_distance(moment, self._now))

    def _status(self, task: TaskRecord) -> str:
        if is_orphaned(task, self._now):
            return "orphaned"
        return "cancelling" if self._poller.is_cancelling(task.queue, task.id) else "running"

    def _octets(self, data: bytes) -> Text:
        if not self._poller.config.payloads:
            return self._screen.quiet("hidden" if data else "")
        return self._screen.quiet(" ".join(shown_bytes(data[: 4 * LISTED_CHARS], most=LISTED_CHARS).split()))


def ref_of(task: TaskRecord) -> TaskRef:
    """Return the reference of a task for actions."""
    return TaskRef(task.queue, task.id, task.state)


def key_of(task: TaskRecord) -> str:
    """Return the key of a task in a table."""
    return f"{task.queue}\0{task.state}\0{task.id}"
