"""Task types: outcomes and durations of their runs."""

from rich.text import Text

from taskq_core.cli.plugin import TYPES
from taskq_core.views import TypeRuns, TypesOverview
from taskq_terminal.frames import ListScreen, Page
from taskq_terminal.state import DashState

HOURS = (1, 6, 24)
"""Periods that the user can select, as numbers of full hours before the current hour."""


class TypesScreen(ListScreen[TypesOverview, TypeRuns]):
    """Task types of all queues. The user can choose a period in hours."""

    TOP = "types"
    OPENS = False
    HELP = (
        "Outcomes and durations of the runs of each task type, in all queues; left and right select one, six or 24 "
        "hours. Median and percentiles are estimated. taskq workers send these figures every ten seconds; workers in "
        "other languages do not."
    )

    def __init__(self, shared: DashState) -> None:
        super().__init__(shared, HOURS[0])

    async def read(self) -> TypesOverview:
        """Read the counters of the types. Each hour of each queue needs a call to Redis."""
        return await self.shared.dashboard.types(await self.shared.inspector.queues(), hours=self.choice)

    def page_of(self, found: TypesOverview) -> Page[TypeRuns]:
        """Return one page with all task types. The user can choose a period in hours."""
        return Page(
            heading=f"task types, since {found.since:%H:%MZ}",
            columns=TYPES,
            records=found.types,
            key=lambda each: each.name,
            choices=[(hours, Text(f"{hours} h")) for hours in HOURS],
            empty="Nothing ran.",
        )
