"""Periodic tasks: their schedules, their history, and actions to run or pause a schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from taskq_core.cli.plugin import EVENTS, entry_columns
from taskq_core.inspector import PeriodicEntryInfo, SchedulerEvent
from taskq_core.views import TaskFilter, entry_call
from taskq_core.views.messages import fire_question
from taskq_terminal.figures import count_of, shown
from taskq_terminal.frames import ListScreen, Page
from taskq_terminal.screen import DashScreen
from taskq_terminal.state import DashState

_NEVER = datetime.max.replace(tzinfo=UTC)
_RUN = Binding("r", "change_run", "Run now", tooltip="the task of the schedule")


class SchedulesScreen(ListScreen[Sequence[PeriodicEntryInfo], PeriodicEntryInfo]):
    """The schedules of all running schedulers."""

    TOP = "schedules"
    HELP = (
        "The schedules of running schedulers of any language, the next one first. A paused schedule enqueues nothing "
        "until it is resumed. Go schedulers do not support pausing."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        _RUN,
        Binding("p", "change_pause", "Pause or resume", tooltip="the schedule"),
    ]

    async def read(self) -> Sequence[PeriodicEntryInfo]:
        """Read the schedules."""
        found = await self.shared.inspector.scheduler_entries()
        return sorted(found, key=lambda entry: (entry.next_run_at or _NEVER, entry.id))

    def page_of(self, found: Sequence[PeriodicEntryInfo]) -> Page[PeriodicEntryInfo]:
        """Return the schedules."""
        return Page(
            heading=count_of(len(found), "schedule"),
            columns=entry_columns(self.shared.now(), hide=not self.shared.config.payloads),
            records=found,
            key=lambda each: each.id,
            empty="No scheduler runs, or none has a schedule.",
        )

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
        self.show_message(f"“{entry.id}” is {'resumed' if entry.is_paused else 'paused'}.")


@dataclass(frozen=True, slots=True)
class Found:
    """The data of one read of a schedule. `entry` is None if no running scheduler has the schedule."""

    entry: PeriodicEntryInfo | None
    events: Sequence[SchedulerEvent]


class ScheduleScreen(ListScreen[Found, SchedulerEvent]):
    """One schedule, and the tasks that it has enqueued."""

    TOP = "schedules"
    HELP = "When the schedule is due, what it enqueues, and the tasks it has enqueued, the latest first."
    BINDINGS: ClassVar[list[BindingType]] = [_RUN]

    def __init__(self, shared: DashState, entry_id: str) -> None:
        super().__init__(shared)
        self.entry_id = entry_id

    async def read(self) -> Found:
        """Read the schedule and a page of its history."""
        size = self.table.fits
        events = await self.shared.inspector.scheduler_events(self.entry_id, self.position // size + 1, size)
        entries = await self.shared.inspector.scheduler_entries()
        return Found(next((entry for entry in entries if entry.id == self.entry_id), None), events)

    def page_of(self, found: Found) -> Page[SchedulerEvent]:
        """Return the tasks that the schedule has enqueued, below its facts."""
        is_full = found.events and len(found.events) >= self.table.fits
        return Page(
            heading=f"schedule {self.entry_id}",
            columns=EVENTS,
            records=found.events,
            key=lambda each: f"{each.task_id}\0{each.enqueued_at}",
            next=self.position + len(found.events) if is_full else None,
            facts=self._facts(found.entry),
            empty="This schedule has not enqueued a task yet.",
        )

    def _facts(self, entry: PeriodicEntryInfo | None) -> Text:
        """Return facts about this schedule. Each column of the list of schedules becomes one line."""
        if entry is None:
            return shown("No running scheduler has this schedule any more.", self.palette["warn"])
        text = Text(end="")
        for column in entry_columns(self.shared.now(), hide=not self.shared.config.payloads):
            assert column.cell is not None
            text.append(f"{column.title:<10}", self.palette["quiet"])
            text.append_text(shown(column.cell(entry))).append("\n")
        return text.append("\nEnqueued, the latest first", f"bold {self.palette['quiet']}")

    def open(self, record: SchedulerEvent) -> None:
        """Show the task that a line of the history names."""
        self.change(self._open(record.task_id))

    async def _open(self, task_id: str) -> None:
        """Find the queue of a task, and show the task. The history does not contain the queue."""
        infos = await self.shared.inspector.queue_infos()
        found = await self.shared.dashboard.search_tasks(infos, TaskFilter(text=task_id), scan=1)
        task = next((each for each in found.tasks if each.id == task_id), None)
        if task is None:
            self.show_message(f"Task “{task_id}” is no longer stored.", "warning")
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
        screen.show_message(f"Task {handle.id} was enqueued to “{handle.queue}”.")
