"""Running workers of any language, and the tasks that they run."""

from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.cli.render import shown_distance, shown_span
from taskq_core.cli.terminal.actions import act_on
from taskq_core.cli.terminal.figures import shown
from taskq_core.cli.terminal.screen import DashScreen
from taskq_core.cli.terminal.table import Column, Records, Row
from taskq_core.inspector import RunningTask, TaskAction, TaskRef, WorkerProcess
from taskq_core.views import WorkersOverview
from taskq_core.wire import TaskState

RUNNING_MAX = 500
"""Most running tasks that are listed."""
_WORKERS = (
    Column(title="Worker", least=10, most=40),
    Column(title="Status", least=7),
    Column(title="Busy", right=True),
    Column(title="", width=10, least=4, drop=2),
    Column(title="Queues", least=12, grows=True),
    Column(title="Up", right=True, drop=1),
)
_RUNNING = (
    Column(title="Runs", least=10, most=32),
    Column(title="For", right=True),
    Column(title="Queue", least=6, most=20),
    Column(title="Id", least=8, grows=True),
    Column(title="Worker", least=8, most=24, drop=2),
    Column(title="Deadline", least=8, drop=1),
)


class WorkersScreen(DashScreen[WorkersOverview]):
    """Workers, and below them the running tasks."""

    TOP = "workers"
    ABOUT = (
        "Running worker processes, as of their last heartbeats, with their queues and weights, their busy slots, and "
        "the tasks that they run. Tab switches between the tables."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "Other table", show=False),
        Binding("c", "change_cancel", "Cancel", tooltip="Cancel the selected task"),
    ]

    def body(self) -> ComposeResult:
        """Return the two tables."""
        yield Records(id="workers")
        yield Static("No worker runs.", classes="empty", id="empty")
        yield Static("Running tasks", classes="caption")
        yield Records(id="running")
        yield Static("No task runs.", classes="empty", id="idle")

    @property
    def heading(self) -> str:
        """The number of workers and busy slots."""
        if self.found is None:
            return "reading…"
        count, found = len(self.found.workers), self.found
        return f"{count:,} worker{'' if count == 1 else 's'}, {found.running:,} of {found.concurrency:,} slots busy"

    async def read(self) -> WorkersOverview:
        """Read the workers."""
        return await self.poller.dashboard.workers()

    def draw(self, found: WorkersOverview) -> None:
        """Fill the tables."""
        workers = self.query_one("#workers", Records)
        workers.fill(_WORKERS, [Row(each.id, self._worker(each)) for each in found.workers])
        workers.display = bool(found.workers)
        self.query_one("#empty").display = not found.workers
        running = [(each, run) for each in found.workers for run in each.running][:RUNNING_MAX]
        table = self.query_one("#running", Records)
        table.fill(_RUNNING, [Row(_key(run), self._run(each, run, found)) for each, run in running])
        table.display = bool(running)
        self.query_one("#idle").display = not running

    def _worker(self, row: WorkerProcess) -> list[Any]:
        palette = self.poller.palette
        share = len(row.running) / row.concurrency if row.concurrency else 0.0

        def busy(width: int) -> Text:
            cells = min(width, round(share * width) or (1 if row.running else 0))
            return Text.assemble(("█" * cells, palette.good), ("░" * (width - cells), palette.quiet))

        queues = ", ".join(f"{each.name} {each.weight}" for each in row.weights)
        return [
            shown(f"{row.host}:{row.pid}", "bold"),
            self.styled(row.status),
            shown(f"{len(row.running)}/{row.concurrency}"),
            busy,
            shown(f"{queues}{', strictly' if row.strict_priority else ''}"),
            shown(shown_span(row.uptime)),
        ]

    def _run(self, worker: WorkerProcess, run: RunningTask, found: WorkersOverview) -> list[Any]:
        if self.poller.is_cancelling(run.queue, run.task_id):
            deadline = self.styled("cancelling")
        elif run.is_overdue:
            deadline = self.styled("overdue")
        else:
            deadline = shown(shown_distance(run.deadline, found.as_of))
        return [
            shown(run.name, "bold"),
            shown(shown_span(run.running_for)),
            shown(run.queue),
            shown(run.task_id),
            shown(f"{worker.host}:{worker.pid}"),
            deadline,
        ]

    @property
    def chosen(self) -> RunningTask | None:
        """The selected running task."""
        key = self.query_one("#running", Records).current
        rows = () if self.found is None else self.found.workers
        return next((run for each in rows for run in each.running if _key(run) == key), None)

    def on_data_table_row_selected(self, event: Records.RowSelected) -> None:
        """Show a running task; for a worker, focus the running tasks."""
        if event.data_table.id == "workers":
            self.query_one("#running", Records).focus()
            return
        run = self.chosen
        if run is not None:
            self.go("task", run.queue, run.task_id)

    def action_change_cancel(self) -> None:
        """Cancel the selected task."""
        run = self.chosen
        if run is not None:
            self.change(self._cancel(TaskRef(run.queue, run.task_id, TaskState.ACTIVE)))

    async def _cancel(self, ref: TaskRef) -> None:
        await act_on(self, [ref], TaskAction.CANCEL)


def _key(run: RunningTask) -> str:
    return f"{run.queue}\0{run.task_id}"
