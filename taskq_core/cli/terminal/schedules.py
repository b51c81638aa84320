"""Periodic tasks: their schedules, their history, and a way to run or pause one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.cli.render import shown_bytes, shown_distance, shown_moment
from taskq_core.cli.terminal.dialogs import Question
from taskq_core.cli.terminal.figures import shown
from taskq_core.cli.terminal.frames import ListScreen
from taskq_core.cli.terminal.poller import Poller
from taskq_core.cli.terminal.screen import DashScreen
from taskq_core.cli.terminal.table import Cell, Column, Records, Row, page_keys
from taskq_core.inspector import PeriodicEntryInfo, SchedulerEvent
from taskq_core.inspector.entry_call import entry_call
from taskq_core.views import TaskFilter
from taskq_core.views.messages import fire_question

_NEVER = datetime.max.replace(tzinfo=UTC)
_RUN = Binding("r", "change_run", "Run now", tooltip="Enqueue the task of the schedule now")
_EVENTS = (Column(title="Enqueued (UTC)", least=20), Column(title="Task", least=10, grows=True))


class SchedulesScreen(ListScreen[Sequence[PeriodicEntryInfo], PeriodicEntryInfo]):
    """The schedules of all running schedulers."""

    TOP = "schedules"
    EMPTY = "No scheduler runs, or none has a schedule."
    OPENS = "schedule"
    COLUMNS = (
        Column(title="Entry", least=8, most=32),
        Column(title="Schedule", least=10, most=24),
        Column(title="Type", least=10, most=32),
        Column(title="Next", least=8),
        Column(title="Last", least=8, drop=1),
        Column(title="Options", least=8, most=40, drop=2),
        Column(title="Payload", least=10, drop=3, grows=True),
    )
    ABOUT = (
        "The schedules of running schedulers of any language, the next one first. A paused schedule enqueues nothing "
        "until it is resumed. Go schedulers do not support pausing."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        _RUN,
        Binding("p", "change_pause", "Pause or resume", tooltip="Pause or resume the schedule"),
    ]

    @property
    def heading(self) -> str:
        """The number of schedules."""
        if self.found is None:
            return "reading…"
        return f"{len(self.found):,} schedule{'' if len(self.found) == 1 else 's'}"

    async def read(self) -> Sequence[PeriodicEntryInfo]:
        """Read the schedules."""
        found = await self.poller.inspector.scheduler_entries()
        return sorted(found, key=lambda entry: (entry.next_run_at or _NEVER, entry.id))

    def records(self, found: Sequence[PeriodicEntryInfo]) -> Sequence[PeriodicEntryInfo]:
        """Return the schedules."""
        return found

    def key(self, record: PeriodicEntryInfo) -> str:
        """Return the id of a schedule."""
        return record.id

    def opens(self, record: PeriodicEntryInfo) -> tuple[Any, ...]:
        """Return the id of the schedule to show."""
        return (record.id,)

    def cells(self, record: PeriodicEntryInfo) -> Sequence[Cell]:
        """Return the cells of a schedule."""
        now = self.poller.now()
        return [
            shown(record.id, "bold"),
            shown(record.schedule),
            shown(record.name),
            shown("paused") if record.is_paused else shown(shown_distance(record.next_run_at, now)),
            shown(shown_distance(record.previous_run_at, now)),
            self.quiet(", ".join(record.options)),
            self.quiet(_payload(self.poller, record)),
        ]

    def action_change_run(self) -> None:
        """Run the selected schedule now."""
        entry = self.chosen
        if entry is not None:
            self.change(run_now(self, entry))

    def action_change_pause(self) -> None:
        """Pause or resume the selected schedule."""
        entry = self.chosen
        if entry is not None:
            self.change(self._pause_or_resume(entry))

    async def _pause_or_resume(self, entry: PeriodicEntryInfo) -> None:
        if entry.is_paused:
            await self.poller.inspector.resume_schedule(entry.id)
            self.say(f"“{entry.id}” is resumed.")
        else:
            await self.poller.inspector.pause_schedule(entry.id)
            self.say(f"“{entry.id}” is paused.")


@dataclass(frozen=True, slots=True)
class Found:
    """A read of one schedule; `entry` is None if no scheduler has it any more."""

    entry: PeriodicEntryInfo | None
    events: Sequence[SchedulerEvent]


class ScheduleScreen(DashScreen[Found]):
    """One schedule and its history."""

    TOP = "schedules"
    ABOUT = "When the schedule is due, what it enqueues, and the tasks it has enqueued, the latest first."
    BINDINGS: ClassVar[list[BindingType]] = [_RUN, *page_keys()]

    def __init__(self, poller: Poller, entry_id: str) -> None:
        super().__init__(poller)
        self.entry_id = entry_id
        self._page = 1

    def body(self) -> ComposeResult:
        """Return facts and history."""
        yield Static(id="facts", classes="facts")
        yield Static("Enqueued, the latest first", classes="caption")
        yield Records(id="table")
        yield Static(classes="empty", id="empty")

    @property
    def heading(self) -> str:
        """The id."""
        return f"schedule {self.entry_id}"

    async def read(self) -> Found:
        """Read the schedule and a page of its history."""
        size = self.query_one(Records).fits
        events = await self.poller.inspector.scheduler_events(self.entry_id, self._page, size)
        entries = await self.poller.inspector.scheduler_entries()
        return Found(next((entry for entry in entries if entry.id == self.entry_id), None), events)

    def draw(self, found: Found) -> None:
        """Show facts and history."""
        self.query_one("#facts", Static).update(self._facts(found.entry))
        rows = [
            Row(f"{number}", (shown(shown_moment(event.enqueued_at)), shown(event.task_id, "bold")))
            for number, event in enumerate(found.events)
        ]
        table, empty = self.query_one(Records), self.query_one("#empty", Static)
        table.fill(_EVENTS, rows)
        table.display, empty.display = bool(rows), not rows
        empty.update("Nothing on this page." if self._page > 1 else "It has not enqueued anything yet.")

    def _facts(self, entry: PeriodicEntryInfo | None) -> Text:
        if entry is None:
            return shown("No running scheduler has this schedule any more.", self.poller.palette.warn)
        now = self.poller.now()
        pairs = {
            "schedule": entry.schedule,
            "type": entry.name,
            "next": shown_moment(entry.next_run_at, now=now),
            "last": shown_moment(entry.previous_run_at, now=now),
            "options": ", ".join(entry.options) or "-",
            "payload": _payload(self.poller, entry),
        }
        text = Text(end="")
        for name, value in pairs.items():
            text.append(f"{name:<10}", self.poller.palette.quiet).append_text(shown(value)).append("\n")
        return text

    def on_data_table_row_selected(self) -> None:
        """Show a task of the history."""
        key = self.query_one(Records).current
        if key is not None and self.found is not None:
            self.change(self._open(self.found.events[int(key)].task_id))

    async def _open(self, task_id: str) -> None:
        """Show a task. The history does not contain its queue."""
        infos = await self.poller.inspector.queue_infos()
        found = await self.poller.dashboard.search_tasks(infos, TaskFilter(text=task_id), scan=1)
        task = next((each for each in found.tasks if each.id == task_id), None)
        if task is None:
            self.say(f"Task “{task_id}” is no longer stored.", "warning")
        elif self.app.screen is self:
            self.go("task", task.queue, task.id)

    def on_records_refit(self) -> None:
        """Read as many lines as fit."""
        self.turn()

    def action_page(self, by: int) -> None:
        """Show the next or previous page."""
        if by < 0 and self._page > 1:
            self._page -= 1
        elif by > 0 and self.found is not None and len(self.found.events) == self.query_one(Records).fits:
            self._page += 1
        self.turn()

    def action_change_run(self) -> None:
        """Run the schedule now."""
        if self.found is not None and self.found.entry is not None:
            self.change(run_now(self, self.found.entry))


async def run_now(screen: DashScreen[Any], entry: PeriodicEntryInfo) -> None:
    """Enqueue the task of a schedule after a confirmation."""
    if await screen.ask(Question(text=fire_question(entry), button="Run now")):
        handle = await screen.poller.taskq.async_client.enqueue(entry_call(screen.poller.taskq, entry))
        screen.say(f"Task {handle.id} was enqueued to “{handle.queue}”.")


def _payload(poller: Poller, entry: PeriodicEntryInfo) -> str:
    if not poller.config.payloads:
        return "hidden"
    return " ".join(shown_bytes(entry.payload[:2000], most=500).split())
