"""Periodic entries: what schedulers enqueue when, what one has enqueued, and running one now."""

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
from taskq_core.cli.terminal.places import SchedulePlace, TaskPlace
from taskq_core.cli.terminal.poller import Desk
from taskq_core.cli.terminal.screen import Look
from taskq_core.cli.terminal.table import Column, Records, Row, page_keys
from taskq_core.inspector import PeriodicEntryInfo, SchedulerEvent
from taskq_core.inspector.entry_call import entry_call
from taskq_core.views import TaskFilter
from taskq_core.views.messages import fire_question

_NEVER = datetime.max.replace(tzinfo=UTC)
_ENTRIES = (
    Column(title="Entry", least=8, most=32),
    Column(title="Schedule", least=10, most=24),
    Column(title="Type", least=10, most=32),
    Column(title="Next", least=8),
    Column(title="Last", least=8, drop=1),
    Column(title="Options", least=8, most=40, drop=2),
    Column(title="Payload", least=10, drop=3, grows=True),
)
_EVENTS = (Column(title="Enqueued (UTC)", least=20), Column(title="Task", least=10, grows=True))


class SchedulesLook(Look[Sequence[PeriodicEntryInfo]]):
    """The entries of all schedulers that live."""

    TOP = "schedules"
    ABOUT = (
        "What the schedulers that run enqueue when, those of other languages too; what is due next stands first. A "
        "paused entry enqueues nothing until it is resumed; schedulers of Go take no notice."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "change_run", "Run now", tooltip="Enqueue what the entry enqueues, now"),
        Binding("p", "change_pause", "Pause or resume", tooltip="Let the entry enqueue nothing, or go on"),
    ]

    def body(self) -> ComposeResult:
        """Put the table together."""
        yield Records(id="table")
        yield Static("No scheduler runs, or none has an entry.", classes="empty", id="empty")

    @property
    def heading(self) -> str:
        """How many there are."""
        if self.found is None:
            return "reading…"
        return f"{len(self.found):,} schedule{'' if len(self.found) == 1 else 's'}"

    async def read(self) -> Sequence[PeriodicEntryInfo]:
        """Read them."""
        found = await self.desk.inspector.scheduler_entries()
        return sorted(found, key=lambda entry: (entry.next_run_at or _NEVER, entry.id))

    def draw(self, found: Sequence[PeriodicEntryInfo]) -> None:
        """Show them."""
        table = self.query_one(Records)
        table.fill(_ENTRIES, [Row(entry.id, self._cells(entry)) for entry in found])
        table.display = bool(found)
        self.query_one("#empty").display = not found

    def _cells(self, entry: PeriodicEntryInfo) -> list[Text]:
        now = self.desk.now()
        return [
            shown(entry.id, "bold"),
            shown(entry.schedule),
            shown(entry.name),
            shown("paused") if entry.is_paused else shown(shown_distance(entry.next_run_at, now)),
            shown(shown_distance(entry.previous_run_at, now)),
            self.quiet(", ".join(entry.options)),
            self.quiet(_payload(self.desk, entry)),
        ]

    @property
    def chosen(self) -> PeriodicEntryInfo | None:
        """The entry that is chosen."""
        key = self.query_one(Records).current
        return next((entry for entry in self.found or () if entry.id == key), None)

    def on_data_table_row_selected(self) -> None:
        """Show what an entry has enqueued."""
        entry = self.chosen
        if entry is not None:
            self.go(SchedulePlace(entry.id))

    def action_change_run(self) -> None:
        """Run the entry that is chosen now."""
        entry = self.chosen
        if entry is not None:
            self.change(run_now(self, entry))

    def action_change_pause(self) -> None:
        """Pause or resume the selected entry."""
        entry = self.chosen
        if entry is not None:
            self.change(pause_or_resume(self, entry))


@dataclass(frozen=True, slots=True)
class Found:
    """What was read of one entry; `entry` is None if no scheduler has it any more."""

    entry: PeriodicEntryInfo | None
    events: Sequence[SchedulerEvent]


class ScheduleLook(Look[Found]):
    """One entry, and what it has enqueued."""

    TOP = "schedules"
    ABOUT = "When an entry is due, what it enqueues, and which tasks it has enqueued, the latest first."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "change_run", "Run now", tooltip="Enqueue what the entry enqueues, now"),
        *page_keys(),
    ]

    def __init__(self, desk: Desk, entry_id: str) -> None:
        super().__init__(desk)
        self.entry_id = entry_id
        self._page = 1

    def body(self) -> ComposeResult:
        """Put the facts and the table together."""
        yield Static(id="facts", classes="facts")
        yield Static("Enqueued, the latest first", classes="caption")
        yield Records(id="table")
        yield Static(classes="empty", id="empty")

    @property
    def heading(self) -> str:
        """Which it is."""
        return f"schedule {self.entry_id}"

    async def read(self) -> Found:
        """Read it and a page of what it has enqueued."""
        size = self.query_one(Records).fits
        events = await self.desk.inspector.scheduler_events(self.entry_id, self._page, size)
        entries = await self.desk.inspector.scheduler_entries()
        return Found(next((entry for entry in entries if entry.id == self.entry_id), None), events)

    def draw(self, found: Found) -> None:
        """Show it."""
        self.query_one("#facts", Static).update(self._facts(found.entry))
        rows = [
            Row(f"{number}", (shown(shown_moment(event.enqueued_at)), shown(event.task_id, "bold")))
            for number, event in enumerate(found.events)
        ]
        table, empty = self.query_one(Records), self.query_one("#empty", Static)
        table.fill(_EVENTS, rows)
        table.display, empty.display = bool(rows), not rows
        empty.update("Nothing on this page." if self._page > 1 else "It has enqueued nothing so far.")

    def _facts(self, entry: PeriodicEntryInfo | None) -> Text:
        if entry is None:
            return shown("No scheduler that runs has this entry any more.", self.desk.palette.warn)
        now = self.desk.now()
        pairs = {
            "schedule": entry.schedule,
            "type": entry.name,
            "next": shown_moment(entry.next_run_at, now=now),
            "last": shown_moment(entry.previous_run_at, now=now),
            "options": ", ".join(entry.options) or "-",
            "payload": _payload(self.desk, entry),
        }
        text = Text(end="")
        for name, value in pairs.items():
            text.append(f"{name:<10}", self.desk.palette.quiet).append_text(shown(value)).append("\n")
        return text

    def on_data_table_row_selected(self) -> None:
        """Show a task that it has enqueued."""
        key = self.query_one(Records).current
        if key is None or self.found is None:
            return
        self.change(self._open(self.found.events[int(key)].task_id))

    async def _open(self, task_id: str) -> None:
        """Show a task of which the queue is not noted."""
        infos = await self.desk.inspector.queue_infos()
        found = await self.desk.dashboard.search_tasks(infos, TaskFilter(text=task_id), scan=1)
        task = next((each for each in found.tasks if each.id == task_id), None)
        if task is None:
            self.say(f"Task “{task_id}” is not kept any more.", "warning")
        elif self.app.screen is self:
            self.go(TaskPlace(task.queue, task.id))

    def on_records_refit(self) -> None:
        """Show as many as there is room for now."""
        self.turn()

    def action_page(self, by: int) -> None:
        """Go to the next page, or to the one before."""
        if by < 0 and self._page > 1:
            self._page -= 1
        elif by > 0 and self.found is not None and len(self.found.events) == self.query_one(Records).fits:
            self._page += 1
        self.turn()

    def action_change_run(self) -> None:
        """Run it now."""
        if self.found is not None and self.found.entry is not None:
            self.change(run_now(self, self.found.entry))


async def run_now(look: Look[Any], entry: PeriodicEntryInfo) -> None:
    """Ask, then enqueue what an entry enqueues."""
    if await look.ask(Question(text=fire_question(entry), button="Run now")):
        handle = await look.desk.taskq.async_client.enqueue(entry_call(look.desk.taskq, entry))
        look.say(f"Task {handle.id} was enqueued to “{handle.queue}”.")


async def pause_or_resume(look: Look[Any], entry: PeriodicEntryInfo) -> None:
    """Pause or resume an entry."""
    if entry.is_paused:
        await look.desk.inspector.resume_schedule(entry.id)
        look.say(f"“{entry.id}” goes on.")
    else:
        await look.desk.inspector.pause_schedule(entry.id)
        look.say(f"“{entry.id}” is paused.")


def _payload(desk: Desk, entry: PeriodicEntryInfo) -> str:
    if not desk.config.payloads:
        return "hidden"
    return " ".join(shown_bytes(entry.payload[:2000], most=500).split())
