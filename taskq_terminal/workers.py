"""Running workers of any language, and the tasks that they run."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core import TaskState
from taskq_core.cli.plugin import Column, shown_distance, shown_span, worker_queues
from taskq_core.inspector import RunningTask, TaskAction, TaskRef, WorkerProcess
from taskq_core.views import WorkersOverview
from taskq_terminal.actions import act_on
from taskq_terminal.figures import count_of
from taskq_terminal.frames import ListScreen, Page
from taskq_terminal.records import Records

RUNNING_MAX = 500
"""Maximum number of running tasks that the screen lists."""
_WORKERS = (
    Column("Worker", lambda row: f"{row.host}:{row.pid}", style="bold"),
    Column("Status", lambda row: row.status, least=7),
    Column("Busy", lambda row: f"{len(row.running)}/{row.concurrency}", right=True),
    Column("Queues", lambda row: worker_queues(row), least=12),
    Column("Up", lambda row: shown_span(row.uptime), right=True, drop=1),
)

Run = tuple[WorkerProcess, RunningTask]


class WorkersScreen(ListScreen[WorkersOverview, Run]):
    """Workers, and below them the running tasks."""

    TOP = "workers"
    HELP = (
        "Running worker processes, as of their last heartbeats, with their queues and weights, their busy slots, and "
        "the tasks that they run. Tab switches between the tables."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "Other table", show=False),
        Binding("c", "change_cancel", "Cancel", tooltip="the selected task"),
    ]

    def body(self) -> ComposeResult:
        """Return the two tables."""
        yield Records(self.palette, opens=False, id="workers")
        yield Static("No worker runs.", classes="empty", id="no-worker")
        yield Static("Running tasks", classes="caption")
        yield from super().body()

    async def read(self) -> WorkersOverview:
        """Read the workers."""
        return await self.shared.dashboard.workers()

    def draw(self, found: WorkersOverview) -> None:
        """Fill the tables."""
        self.query_one("#workers", Records).fill(_WORKERS, found.workers, lambda row: row.id)
        self.query_one("#no-worker").display = not found.workers
        super().draw(found)

    def page_of(self, found: WorkersOverview) -> Page[Run]:
        """Return the running tasks, each with its worker."""
        now = found.as_of
        workers = count_of(len(found.workers), "worker")
        return Page(
            heading=f"{workers}, {found.running:,} of {found.concurrency:,} slots busy",
            columns=[
                Column("Runs", lambda pair: pair[1].name, style="bold"),
                Column("For", lambda pair: shown_span(pair[1].running_for), right=True),
                Column("Queue", lambda pair: pair[1].queue, least=6),
                Column("Id", lambda pair: pair[1].task_id, least=8),
                Column("Worker", lambda pair: f"{pair[0].host}:{pair[0].pid}", least=8, drop=2),
                Column(
                    "Deadline",
                    lambda pair: "overdue" if pair[1].is_overdue else shown_distance(pair[1].deadline, now),
                    least=8,
                    drop=1,
                ),
            ],
            records=[(each, run) for each in found.workers for run in each.running][:RUNNING_MAX],
            key=lambda pair: f"{pair[1].queue}\0{pair[1].task_id}",
            empty="No task runs.",
        )

    def open(self, record: Run) -> None:
        """Show a running task."""
        self.go("task", record[1].queue, record[1].task_id)

    def action_change_cancel(self) -> None:
        """Cancel the selected task."""
        if self.chosen is not None:
            run = self.chosen[1]
            self.change(self._cancel(TaskRef(run.queue, run.task_id, TaskState.ACTIVE)))

    async def _cancel(self, ref: TaskRef) -> None:
        await act_on(self, [ref], TaskAction.CANCEL)
