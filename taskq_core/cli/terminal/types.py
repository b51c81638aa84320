"""Task types: outcomes and durations of their runs."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from taskq_core.cli.render import shown_rate, shown_span
from taskq_core.cli.terminal.figures import short, shown
from taskq_core.cli.terminal.frames import ListScreen
from taskq_core.cli.terminal.table import Cell, Column
from taskq_core.views import TypeRuns, TypesOverview

HOURS = (1, 6, 24)
"""Selectable numbers of full hours before the current one."""


class TypesScreen(ListScreen[TypesOverview, TypeRuns]):
    """Task types of all queues."""

    TOP = "types"
    EMPTY = "Nothing ran."
    COLUMNS = (
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
    ABOUT = (
        "Outcomes and durations of the runs of each task type, in all queues; e selects one, six or 24 hours. taskq "
        "workers send these figures every ten seconds; workers in other languages do not."
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("e", "hours", "Span", tooltip="One hour, six hours or a day")]

    @property
    def _hours(self) -> int:
        return int(self.poller.memory.get("hours", HOURS[0]))

    @property
    def heading(self) -> str:
        """The period."""
        return "reading…" if self.found is None else f"task types, since {self.found.since:%H:%MZ} ({self._hours} h)"

    async def read(self) -> TypesOverview:
        """Read the counters: a call for each hour and queue."""
        return await self.poller.dashboard.types(await self.poller.inspector.queues(), hours=self._hours)

    def records(self, found: TypesOverview) -> Sequence[TypeRuns]:
        """Return the types."""
        return found.types

    def key(self, record: TypeRuns) -> str:
        """Return the name of a type."""
        return record.name

    def cells(self, record: TypeRuns) -> Sequence[Cell]:
        """Return the cells of a type."""
        bad = self.poller.palette.bad if (record.error_rate or 0) >= 0.05 else ""
        return [
            shown(record.name, "bold"),
            shown(short(record.processed)),
            shown(short(record.failed), bad),
            shown(shown_rate(record.error_rate), bad),
            shown(short(record.archived)),
            shown(shown_span(record.median)),
            shown(shown_span(record.p95)),
            shown(shown_span(record.p99)),
            shown(shown_span(record.total)),
        ]

    def action_hours(self) -> None:
        """Select the next period."""
        self.poller.memory["hours"] = str(HOURS[(HOURS.index(self._hours) + 1) % len(HOURS)])
        self.turn()
