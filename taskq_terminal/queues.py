"""The screen of all queues, with their tasks by state and charts. It can pause, resume and delete a queue."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from taskq_core import TaskState
from taskq_core.cli.plugin import Column, shown_rate, shown_size, shown_span
from taskq_core.inspector import QueueInfo, QueueStatus
from taskq_core.views import GROUPS_COUNTED, STATES, QueueSeries, QueuesOverview
from taskq_terminal.figures import bar, count_of, per_second, short, shown, sparkline, state_label
from taskq_terminal.frames import ListScreen, Page
from taskq_terminal.screen import DashScreen

SPAN = timedelta(minutes=20)
"""Period of the chart of a queue."""
POINTS = 20
"""Maximum number of points in the chart of a queue."""
SERIES_MAX = 100
"""Maximum number of queues with a chart. Each chart needs a call to Redis."""
_ORDER = (QueueStatus.DAMAGED, QueueStatus.NO_WORKER, QueueStatus.PAUSED, QueueStatus.RUNNING)
SORTS: Mapping[str, Callable[[QueueInfo], Any]] = {
    "name": lambda row: row.name,
    "tasks": lambda row: -row.size,
    "wait": lambda row: -(row.latency or timedelta(0)),
    "failed": lambda row: -(row.error_rate or 0.0),
    "status": lambda row: _ORDER.index(row.status),
}
"""Sort orders of the list of queues, by name."""


@dataclass(frozen=True, slots=True)
class Found:
    """The data that `read` of this screen returns.

    Attributes:
        overview: State and counts of all queues.
        rates: Runs per second by queue name, the oldest value first. A missing value is None.
    """

    overview: QueuesOverview
    rates: Mapping[str, list[float | None]]


class QueuesScreen(ListScreen[Found, QueueInfo]):
    """All queues."""

    TOP = "queues"
    HELP = (
        "Each queue with its tasks by state as a bar, the age of its oldest pending task, the runs per second of the "
        "last 20 minutes, and the share of today's runs (UTC) that failed. Below: details of the selected queue."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p,P", "change_pause", "Pause", tooltip="or resume the queue"),
        Binding("d", "change_delete", "Delete", tooltip="the queue with all its tasks"),
        Binding("L", "limits", "Limits", show=False, tooltip="of the queue's tasks"),
        Binding("s", "sort", "Sort", tooltip="by name, tasks, wait, failed or status"),
    ]

    async def read(self) -> Found:
        """Read all queues and their charts."""
        overview = await self.shared.dashboard.queues()
        names = [row.name for row in self._sorted(overview)[:SERIES_MAX]]
        series = await self.shared.dashboard.samples(names, span=SPAN, points=POINTS)
        return Found(overview, {each.name: _rates(each) for each in series})

    def page_of(self, found: Found) -> Page[QueueInfo]:
        """Return the queues in the chosen order."""
        return Page(
            heading=f"{count_of(len(found.overview.queues), 'queue')}, by {self.shared.queue_order}",
            columns=self._columns(found),
            records=self._sorted(found.overview),
            key=lambda row: row.name,
            facts=self._facts(found.overview),
            empty="There is no queue yet. The first task creates one.",
        )

    def _sorted(self, overview: QueuesOverview) -> list[QueueInfo]:
        return sorted(sorted(overview.queues, key=lambda row: row.name), key=SORTS[self.shared.queue_order])

    def open(self, record: QueueInfo) -> None:
        """Show the tasks of a queue."""
        self.go("tasks", record.name)

    def _columns(self, found: Found) -> Sequence[Column]:
        palette = self.palette
        largest = max((each.size for each in found.overview.queues), default=0)

        def wait(row: QueueInfo) -> Text:
            is_long = row.latency is not None and row.latency > timedelta(minutes=5)
            return shown(shown_span(row.latency), palette["warn"] if is_long else "")

        def states(row: QueueInfo) -> Callable[[int], Text]:
            parts = [(state, palette[state.value]) for state in row.sizes]
            return lambda width: (
                shown(row.problem, palette["bad"])
                if row.problem
                else Text.assemble(
                    *(("█" * cells, dict(parts)[state]) for state, cells in bar(row.sizes, largest, width))
                )
            )

        def rates(row: QueueInfo) -> list[float | None]:
            return found.rates.get(row.name) or []

        return [
            Column("Queue", lambda row: row.name, least=8, style="bold"),
            Column("Status", lambda row: row.status.value, least=9, drop=1),
            Column("By state", states, width=24, least=16),
            Column("Tasks", lambda row: f"{short(row.size)}{_more(row)}", right=True),
            Column("Wait", wait, right=True, drop=2),
            Column("Last 20 min", lambda row: Text(sparkline(rates(row), POINTS), palette["link"]), least=12, drop=3),
            Column("Runs/s", lambda row: per_second(rates(row)[-1] if rates(row) else None), right=True),
            Column("Failed", lambda row: failed_share(row, palette["bad"]), right=True, drop=4),
            Column("Memory", lambda row: "-" if row.memory is None else shown_size(row.memory), right=True, drop=5),
        ]

    def _facts(self, overview: QueuesOverview) -> Text:
        """Return the legend, with the tasks of all queues by state."""
        more = "+" if any(map(_more, overview.queues)) else ""
        text = Text(end="")
        for state in STATES:
            text.append("■ ", self.palette[state.value]).append(f"{state_label(state, self.size.width)} ")
            plus = more if state is TaskState.AGGREGATING else ""
            text.append(f"{short(overview.sizes[state])}{plus}  ", "bold")
        failed = shown_rate(overview.error_rate)
        return text.append(f"today {short(overview.processed_today)} ran, {failed} failed", self.palette["quiet"])

    def panel(self) -> Text | None:
        """Return the details of the selected queue."""
        row = self.chosen
        if row is None or self.size.height < 18:
            return None
        text = Text.assemble(shown(row.name, "bold"), "  ", shown(row.status.value, self.palette.of(row.status.value)))
        counted = f", the tasks of {GROUPS_COUNTED:,} are counted" if _more(row) else ""
        text.append(f"   {count_of(row.groups, 'group')}{counted}\n" if row.groups else "\n")
        if row.problem:
            return text.append_text(shown(row.problem, self.palette["bad"]))
        for state, size in row.sizes.items():
            style = self.palette[state.value if size else "quiet"]
            plus = _more(row) if state is TaskState.AGGREGATING else ""
            text.append(f"{state_label(state, self.size.width)} {size:,}{plus}  ", style)
        text.append(f"\ntoday {row.processed_today:,} ran, {row.failed_today:,} failed")
        return text.append(f"   ever {row.processed:,} ran, {row.failed:,} failed")

    def action_sort(self) -> None:
        """Sort by the next criterion."""
        names = list(SORTS)
        self.shared.queue_order = names[(names.index(self.shared.queue_order) + 1) % len(names)]
        self.redraw()

    def action_limits(self) -> None:
        """Show the limits of the selected queue."""
        if self.chosen is not None:
            self.go("limits", self.chosen.name)

    def action_change_pause(self) -> None:
        """Pause or resume the selected queue."""
        if self.chosen is not None:
            self.change(pause_or_resume(self, self.chosen))

    def action_change_delete(self) -> None:
        """Delete the selected queue."""
        if self.chosen is not None:
            self.change(self._delete(self.chosen))

    async def _delete(self, row: QueueInfo) -> None:
        tasks = f"its {count_of(row.size, 'task')}" if row.size else "no task in it"
        if await self.ask(f"Delete the queue “{row.name}” with {tasks}?", "Delete", is_destructive=True):
            count = await self.shared.inspector.remove_queue(row.name, force=True)
            self.show_message(f"Queue “{row.name}” is deleted, and {count_of(count, 'task')} with it.")


async def pause_or_resume(screen: DashScreen[Any], queue: QueueInfo) -> None:
    """Pause or resume a queue after a confirmation."""
    name = queue.name
    if queue.is_paused:
        if await screen.ask(f"Let workers take tasks of the queue “{name}” again?", "Resume"):
            await screen.shared.inspector.resume(name)
            screen.show_message(f"Queue “{name}” is resumed: workers take its tasks again.")
    elif await screen.ask(f"Pause the queue “{name}”? Workers take no more of its tasks until it is resumed.", "Pause"):
        await screen.shared.inspector.pause(name)
        screen.show_message(f"Queue “{name}” is paused: workers take no more of its tasks.")


def failed_share(row: QueueInfo, bad: str) -> Text:
    """Return the share of today's runs of a queue that failed, in the color `bad` from five percent on."""
    return shown(shown_rate(row.error_rate), bad if (row.error_rate or 0) >= 0.05 else "")


def _more(row: QueueInfo) -> str:
    """Return "+" if the queue has more groups than the size of the queue counts, otherwise ""."""
    return "+" if row.groups > GROUPS_COUNTED else ""


def _rates(series: QueueSeries) -> list[float | None]:
    found: list[float | None] = []
    for sample in series.samples:
        found += [None] if sample.is_after_gap else []
        found.append(sample.processed_per_s)
    return found
