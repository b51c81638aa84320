"""All queues, by state and over the last minutes; pause, resume and delete a queue."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.cli.render import shown_rate, shown_size, shown_span
from taskq_core.cli.terminal.dialogs import Question
from taskq_core.cli.terminal.figures import bar, per_second, short, shown, sparkline, state_label
from taskq_core.cli.terminal.frames import ListScreen
from taskq_core.cli.terminal.screen import DashScreen
from taskq_core.cli.terminal.table import Cell, Column
from taskq_core.inspector import QueueInfo, QueueStatus
from taskq_core.inspector.records import GROUPS_COUNTED
from taskq_core.views import STATES, QueueSeries, QueuesOverview
from taskq_core.wire import TaskState

SPAN = timedelta(minutes=20)
"""Period of the chart of a queue."""
SERIES_MAX = 100
"""Most queues with a chart: one call each."""
_ORDER = (QueueStatus.DAMAGED, QueueStatus.NO_WORKER, QueueStatus.PAUSED, QueueStatus.RUNNING)
SORTS: Mapping[str, Callable[[QueueInfo], Any]] = {
    "name": lambda row: row.name,
    "tasks": lambda row: -row.size,
    "wait": lambda row: -(row.latency or timedelta(0)),
    "failed": lambda row: -(row.error_rate or 0.0),
    "status": lambda row: _ORDER.index(row.status),
}
"""Sort orders, by name."""


@dataclass(frozen=True, slots=True)
class Found:
    """A read of this screen."""

    overview: QueuesOverview
    series: Mapping[str, QueueSeries]


class QueuesScreen(ListScreen[Found, QueueInfo]):
    """All queues."""

    TOP = "queues"
    EMPTY = "There is no queue yet. The first task creates one."
    OPENS = "tasks"
    COLUMNS = (
        Column(title="Queue", least=8, most=24),
        Column(title="Status", least=9, drop=1),
        Column(title="By state", width=24, least=16, grows=True),
        Column(title="Tasks", right=True),
        Column(title="Wait", right=True, drop=3),
        Column(title="Last 20 min", width=20, least=11, drop=2),
        Column(title="Runs/s", right=True),
        Column(title="Failed", right=True, drop=4),
        Column(title="Memory", right=True, drop=5),
    )
    ABOUT = (
        "Each queue with its tasks by state as a bar, the age of its oldest pending task, the runs per second of the "
        "last 20 minutes, and the share of today's runs (UTC) that failed. Below: details of the selected queue."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p,P", "change_pause", "Pause", tooltip="Pause or resume the queue"),
        Binding("d", "change_delete", "Delete", tooltip="Delete the queue with all its tasks"),
        Binding("L", "limits", "Limits", show=False, tooltip="Show the limits of the queue's tasks"),
        Binding("s", "sort", "Sort", tooltip="Sort by name, tasks, wait, failed or status"),
    ]

    def body(self) -> ComposeResult:
        """Return legend, table and details."""
        yield Static(id="legend", classes="lines")
        yield from super().body()
        yield Static(id="panel")

    @property
    def heading(self) -> str:
        """The number of queues."""
        if self.found is None:
            return "reading…"
        count = len(self.found.overview.queues)
        return f"{count:,} queue{'' if count == 1 else 's'}, by {self._sort}"

    @property
    def _sort(self) -> str:
        return self.poller.memory.get("queues", "name")

    async def read(self) -> Found:
        """Read all queues and their charts."""
        overview = await self.poller.dashboard.queues()
        names = [row.name for row in self._sorted(overview)[:SERIES_MAX]]
        series = await self.poller.dashboard.samples(names, span=SPAN, points=120)
        return Found(overview, {each.name: each for each in series})

    def draw(self, found: Found) -> None:
        """Show legend, table and details."""
        self.query_one("#legend", Static).update(self._legend(found.overview))
        super().draw(found)
        self._draw_panel()

    def records(self, found: Found) -> Sequence[QueueInfo]:
        """Return the queues in the chosen order."""
        return self._sorted(found.overview)

    def _sorted(self, overview: QueuesOverview) -> list[QueueInfo]:
        return sorted(sorted(overview.queues, key=lambda row: row.name), key=SORTS[self._sort])

    def key(self, record: QueueInfo) -> str:
        """Return the name of a queue."""
        return record.name

    def opens(self, record: QueueInfo) -> tuple[Any, ...]:
        """Return the queue whose tasks are shown."""
        return (record.name,)

    def _legend(self, overview: QueuesOverview) -> Text:
        palette, sizes = self.poller.palette, overview.sizes
        text = Text(end="")
        for state in STATES:
            text.append("■ ", palette.states[state]).append(f"{state_label(state, self.size.width)} ")
            more = "+" if state is TaskState.AGGREGATING and any(map(_has_more, overview.queues)) else ""
            text.append(f"{short(sizes[state])}{more}", "bold").append("  ")
        text.append("" if self.size.width >= 140 else "\n")
        failed = shown_rate(overview.error_rate)
        text.append(f"today {short(overview.processed_today)} ran, {failed} failed", palette.quiet)
        return text

    def cells(self, record: QueueInfo) -> Sequence[Cell]:
        """Return the cells of a queue."""
        row, palette, rates = record, self.poller.palette, self._rates(record.name)
        largest = 0 if self.found is None else max((each.size for each in self.found.overview.queues), default=0)
        rate = row.error_rate
        return [
            shown(row.name, "bold"),
            self.styled(row.status.value),
            lambda width: self._bar(row, largest, width),
            shown(f"{short(row.size)}{'+' if _has_more(row) else ''}"),
            shown(shown_span(row.latency), palette.warn if row.latency and row.latency > timedelta(minutes=5) else ""),
            lambda width: Text(sparkline(_narrowed(rates, width), width), palette.link),
            shown(per_second(rates[-1] if rates else None)),
            shown(shown_rate(rate), palette.bad if rate and rate >= 0.05 else ""),
            shown("-" if row.memory is None else shown_size(row.memory)),
        ]

    def _bar(self, row: QueueInfo, largest: int, width: int) -> Text:
        if row.problem:
            return shown(row.problem, self.poller.palette.bad)
        text = Text(end="")
        for state, cells in bar(row.sizes, largest, width):
            text.append("█" * cells, self.poller.palette.states[state])
        return text

    def _rates(self, name: str) -> list[float | None]:
        """Return the runs per second of a queue, the oldest first; None for a gap. Go workers take no samples."""
        series = None if self.found is None else self.found.series.get(name)
        found: list[float | None] = []
        for sample in () if series is None else series.samples:
            found += [None] if sample.is_after_gap else []
            found.append(sample.processed_per_s)
        return found

    def _draw_panel(self) -> None:
        row = self.chosen
        panel = self.query_one("#panel", Static)
        panel.display = row is not None and self.size.height >= 18
        if row is None:
            return
        palette = self.poller.palette
        text = Text(end="")
        text.append_text(shown(row.name, "bold")).append("  ").append_text(self.styled(row.status.value))
        counted = f", the tasks of {GROUPS_COUNTED:,} are counted" if _has_more(row) else ""
        text.append(f"   {row.groups:,} group{'' if row.groups == 1 else 's'}{counted}" if row.groups else "")
        text.append("\n")
        if row.problem:
            panel.update(text.append_text(shown(row.problem, palette.bad)))
            return
        for state in STATES:
            quiet = "" if row.sizes[state] else palette.quiet
            text.append(f"{state_label(state, self.size.width)} ", quiet or palette.states[state])
            more = "+" if state is TaskState.AGGREGATING and _has_more(row) else ""
            text.append(f"{row.sizes[state]:,}{more}  ", quiet or "bold")
        text.append("\ntoday ", palette.quiet).append(f"{row.processed_today:,} ran, {row.failed_today:,} failed")
        text.append("   ever ", palette.quiet).append(f"{row.processed:,} ran, {row.failed:,} failed\n")
        rates = self._rates(row.name)
        known = [rate for rate in rates if rate is not None]
        width = max(10, min(120, self.size.width - 30))
        text.append("runs/s ", palette.quiet).append(sparkline(rates, width).lstrip(), palette.link)
        text.append(f"  most {per_second(max(known))}" if known else "no samples", palette.quiet)
        panel.update(text)

    def on_data_table_row_highlighted(self) -> None:
        """Show the details of the selected queue."""
        if self.found is not None:
            self._draw_panel()

    def action_sort(self) -> None:
        """Sort by the next criterion."""
        names = list(SORTS)
        self.poller.memory["queues"] = names[(names.index(self._sort) + 1) % len(names)]
        self.redraw()

    def action_limits(self) -> None:
        """Show the limits of the selected queue."""
        row = self.chosen
        if row is not None:
            self.go("limits", row.name)

    def action_change_pause(self) -> None:
        """Pause or resume the selected queue."""
        row = self.chosen
        if row is not None:
            self.change(pause_or_resume(self, row.name, is_paused=row.is_paused))

    def action_change_delete(self) -> None:
        """Delete the selected queue."""
        row = self.chosen
        if row is not None:
            self.change(self._delete(row))

    async def _delete(self, row: QueueInfo) -> None:
        tasks = f"its {row.size:,} task{'' if row.size == 1 else 's'}" if row.size else "no task in it"
        text = f"Delete the queue “{row.name}” with {tasks}?"
        if not await self.ask(Question(text=text, button="Delete", is_destructive=True)):
            return
        count = await self.poller.inspector.remove_queue(row.name, force=True)
        self.say(f"Queue “{row.name}” is deleted, and {count:,} task{'' if count == 1 else 's'} with it.")


async def pause_or_resume(screen: DashScreen[Any], name: str, *, is_paused: bool) -> None:
    """Pause or resume a queue after a confirmation."""
    if is_paused:
        if await screen.ask(Question(text=f"Let workers take tasks of the queue “{name}” again?", button="Resume")):
            await screen.poller.inspector.resume(name)
            screen.say(f"Queue “{name}” is resumed: workers take its tasks again.")
        return
    text = f"Pause the queue “{name}”? Workers take no more of its tasks until it is resumed."
    if await screen.ask(Question(text=text, button="Pause")):
        await screen.poller.inspector.pause(name)
        screen.say(f"Queue “{name}” is paused: workers take no more of its tasks.")


def _has_more(row: QueueInfo) -> bool:
    """Return whether a queue has more groups than are counted."""
    return row.groups > GROUPS_COUNTED


def _narrowed(values: list[float | None], width: int) -> list[float | None]:
    """Return about as many values as there are cells, as means of neighbors."""
    if width <= 0 or len(values) <= width:
        return values
    size = -(-len(values) // width)
    parts = [values[max(0, end - size) : end] for end in range(len(values), 0, -size)]
    means = []
    for part in reversed(parts):
        known = [value for value in part if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return means
