"""Task types: outcomes and durations of their runs."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from taskq_core.cli.past import TYPES
from taskq_core.cli.table import Column
from taskq_core.cli.terminal.frames import ListScreen
from taskq_core.cli.terminal.state import DashState
from taskq_core.views import TypeRuns, TypesOverview

HOURS = (1, 6, 24)
"""Selectable numbers of full hours before the current one."""


class TypesScreen(ListScreen[TypesOverview, TypeRuns]):
    """Task types of all queues. The choice is the number of hours."""

    TOP = "types"
    EMPTY = "Nothing ran."
    OPENS = False
    HELP = (
        "Outcomes and durations of the runs of each task type, in all queues; left and right select one, six or 24 "
        "hours. taskq workers send these figures every ten seconds; workers in other languages do not."
    )

    def __init__(self, shared: DashState) -> None:
        super().__init__(shared, HOURS[0])

    @property
    def heading(self) -> str:
        """The period."""
        return "reading…" if self.found is None else f"task types, since {self.found.since:%H:%MZ}"

    async def read(self) -> TypesOverview:
        """Read the counters: a call for each hour and queue."""
        return await self.shared.dashboard.types(await self.shared.inspector.queues(), hours=self.choice)

    def choices(self, found: TypesOverview) -> Sequence[tuple[Any, Text]]:
        """Return the periods."""
        return [(hours, Text(f"{hours} h")) for hours in HOURS]

    def columns(self, found: TypesOverview) -> Sequence[Column]:
        """Return the columns of the table."""
        return TYPES

    def records(self, found: TypesOverview) -> Sequence[TypeRuns]:
        """Return the types."""
        return found.types

    def key(self, record: TypeRuns) -> str:
        """Return the name of a type."""
        return record.name
