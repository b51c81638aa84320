"""Task types: what became of their runs, and how long they took."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.cli.render import shown_rate, shown_span
from taskq_core.cli.terminal.figures import short, shown
from taskq_core.cli.terminal.screen import Look
from taskq_core.cli.terminal.table import Column, Records, Row
from taskq_core.views import TypeRuns, TypesOverview

HOURS = (1, 6, 24)
"""Hours before the one that has begun, over which runs are told."""
_COLUMNS = (
    Column(title="Type", least=14, grows=True),
    Column(title="Ran", right=True),
    Column(title="Failed", right=True),
    Column(title="Share", right=True),
    Column(title="Archived", right=True, drop=4),
    Column(title="Median", right=True),
    Column(title="95 %", right=True, drop=1),
    Column(title="99 %", right=True, drop=3),
    Column(title="In all", right=True, drop=2),
)


class TypesLook(Look[TypesOverview]):
    """Task types of all queues."""

    TOP = "types"
    ABOUT = (
        "What became of the runs of each task type in all queues, and how long they took; e goes from an hour to six "
        "and to a day. Workers hand their numbers in every ten seconds; those of other languages do not count by type."
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("e", "hours", "Span", tooltip="An hour, six hours or a day")]

    def body(self) -> ComposeResult:
        """Put the table together."""
        yield Records(id="table", opens=False)
        yield Static("Nothing ran.", classes="empty", id="empty")

    @property
    def _hours(self) -> int:
        return int(self.desk.memory.get("hours", HOURS[0]))

    @property
    def heading(self) -> str:
        """Since when."""
        return "reading…" if self.found is None else f"task types, since {self.found.since:%H:%MZ} ({self._hours} h)"

    async def read(self) -> TypesOverview:
        """Read them: a call each hour and queue."""
        return await self.desk.dashboard.types(await self.desk.inspector.queues(), hours=self._hours)

    def draw(self, found: TypesOverview) -> None:
        """Show them."""
        table = self.query_one(Records)
        table.fill(_COLUMNS, [Row(each.name, self._cells(each)) for each in found.types])
        table.display = bool(found.types)
        self.query_one("#empty").display = not found.types

    def _cells(self, each: TypeRuns) -> list[Text]:
        bad = self.desk.palette.bad if (each.error_rate or 0) >= 0.05 else ""
        return [
            shown(each.name, "bold"),
            shown(short(each.processed)),
            shown(short(each.failed), bad),
            shown(shown_rate(each.error_rate), bad),
            shown(short(each.archived)),
            shown(shown_span(each.median)),
            shown(shown_span(each.p95)),
            shown(shown_span(each.p99)),
            shown(shown_span(each.total)),
        ]

    def action_hours(self) -> None:
        """Go to the next span."""
        self.desk.memory["hours"] = str(HOURS[(HOURS.index(self._hours) + 1) % len(HOURS)])
        self.turn()
