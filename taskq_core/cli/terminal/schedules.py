"""Periodic tasks: their schedules, their history, and actions to run or pause a schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from taskq_core.cli.cron import EVENTS, entry_columns
from taskq_core.cli.table import Column
from taskq_core.cli.terminal.figures import count_of, shown
from taskq_core.cli.terminal.frames import ListScreen
from taskq_core.cli.terminal.screen import DashScreen
from taskq_core.cli.terminal.state import DashState
from taskq_core.inspector import PeriodicEntryInfo, SchedulerEvent
from taskq_core.inspector.entry_call import entry_call
from taskq_core.views import TaskFilter
from taskq_core.views.messages import fire_question

_NEVER = datetime.max.replace(tzinfo=UTC)
_RUN = Binding("r", "change_run", "Run now", tooltip="the task of the schedule")


class SchedulesScreen(ListScreen[Sequence[PeriodicEntryInfo], PeriodicEntryInfo]):
    """The schedules of all running schedulers."""

    TOP = "schedules"
    EMPTY = "No scheduler runs, or none has a schedule."
    HELP = (
        "The schedules of running schedulers of any language, the next one first. A paused schedule enqueues nothing "
        "until it is resumed. Go schedulers do not support pausing."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        _RUN,
        Binding("p", "change_pause", "Pause or resume", tooltip="the schedule"),
    ]

    @property
    def heading(self) -> str:
        """The number of schedules."""
        return "reading…" if self.found is None else count_of(len(self.found), "schedule")

    async def read(self) -> Sequence[PeriodicEntryInfo]:
        """Read the schedules."""
        found = await self.shared.inspector.scheduler_entries()
        return sorted(found, key=lambda entry: (entry.next_run_at or _NEVER, entry.id))

    def columns(self, found: Sequence[PeriodicEntryInfo]) -> Sequence[Column]:
        """Return the columns of the table."""
        return entry_columns(self.shared.now(), hide=not self.shared.config.payloads)

    def records(self, found: Sequence[PeriodicEntryInfo]) -> Sequence[PeriodicEntryInfo]:
        """Return the schedules."""
        return found

    def key(self, record: PeriodicEntryInfo) -> str:
        """Return the id of a schedule."""
        return record.id

    def open(self, record: PeriodicEntryInfo) -> None:
        """Show the history of a schedule."""
        self.go("schedule", record.id)

    def action_change_run(self) -> None:
        """Run the selected schedule now."""
        if self.chosen is not None:
            self.change(_run_now(self, self.chosen))

    def action_change_pause(self) -> None:
        """Pause or resume the selected schedule."""
        if self.chosen is not None:
            self.change(self._pause_or_resume(self.chosen))

    async def _pause_or_resume(self, entry: PeriodicEntryInfo) -> None:
        if entry.is_paused:
            await self.shared.inspector.resume_schedule(entry.id)
        else:
            await self.shared.inspector.pause_schedule(entry.id)
        self.say(f"“{entry.id}” is {'resumed' if entry.is_paused else 'paused'}.")


@dataclass(frozen=True, slots=True)
class Found:
    """The data of one read of a schedule; `entry` is None if no scheduler has the schedule any more."""

    entry: PeriodicEntryInfo | None
    events: Sequence[SchedulerEvent]


class ScheduleScreen(ListScreen[Found, SchedulerEvent]):
    """One schedule, and the tasks that it has enqueued."""

    TOP = "schedules"
    EMPTY = "This schedule has not enqueued a task yet."
    HELP = "When the schedule is due, what it enqueues, and the tasks it has enqueued, the latest first."
    BINDINGS: ClassVar[list[BindingType]] = [_RUN]

    def __init__(self, shared: DashState, entry_id: str) -> None:
        super().__init__(shared)
        self.entry_id = entry_id

    @property
    def heading(self) -> str:
        """The id."""
        return f"schedule {self.entry_id}"

    async def read(self) -> Found:
        """Read the schedule and a page of its history."""
        size = self.table.fits
        events = await self.shared.inspector.scheduler_events(self.entry_id, self.place // size + 1, size)
        entries = await self.shared.inspector.scheduler_entries()
        return Found(next((entry for entry in entries if entry.id == self.entry_id), None), events)

    def columns(self, found: Found) -> Sequence[Column]:
        """Return the columns of the table."""
        return EVENTS

    def records(self, found: Found) -> Sequence[SchedulerEvent]:
        """Return the tasks that the schedule has enqueued."""
        return found.events

    def key(self, record: SchedulerEvent) -> str:
        """Return the id of a task, and when it was enqueued."""
        return f"{record.task_id}\0{record.enqueued_at}"

    def open(self, record: SchedulerEvent) -> None:
        """Show a task of the history."""
        self.change(self._open(record.task_id))

    def next_place(self, found: Found) -> Any:
        """Return where the next page begins."""
        return self.place + len(found.events) if found.events and len(found.events) >= self.table.fits else None

    def facts(self, found: Found) -> Text:
        """Return the columns of the list of schedules as lines."""
        if found.entry is None:
            return shown("No running scheduler has this schedule any more.", self.palette["warn"])
        text = Text(end="")
        for column in entry_columns(self.shared.now(), hide=not self.shared.config.payloads):
            assert column.cell is not None
            text.append(f"{column.title:<10}", self.palette["quiet"])
            text.append_text(shown(column.cell(found.entry))).append("\n")
        return text.append("\nEnqueued, the latest first", f"bold {self.palette['quiet']}")

    async def _open(self, task_id: str) -> None:
        """Show a task. The history does not contain its queue."""
        infos = await self.shared.inspector.queue_infos()
        found = await self.shared.dashboard.search_tasks(infos, TaskFilter(text=task_id), scan=1)
        task = next((each for each in found.tasks if each.id == task_id), None)
        if task is None:
            self.say(f"Task “{task_id}” is no longer stored.", "warning")
        elif self.app.screen is self:
            self.go("task", task.queue, task.id)

    def action_change_run(self) -> None:
        """Run the schedule now."""
        if self.found is not None and self.found.entry is not None:
            self.change(_run_now(self, self.found.entry))


async def _run_now(screen: DashScreen[Any], entry: PeriodicEntryInfo) -> None:
    """Enqueue the task of a schedule after a confirmation."""
    if await screen.ask(fire_question(entry), "Run now"):
        taskq = screen.shared.taskq
        handle = await taskq.async_client.enqueue(entry_call(taskq, entry))
        screen.say(f"Task {handle.id} was enqueued to “{handle.queue}”.")
