"""Workflows of all queues."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from taskq_core.cli.render import shown_distance
from taskq_core.cli.terminal.figures import gauge, page_words, shown
from taskq_core.cli.terminal.frames import FilteredLook
from taskq_core.cli.terminal.places import WorkflowPlace
from taskq_core.cli.terminal.poller import Desk
from taskq_core.cli.terminal.screen import Item
from taskq_core.cli.terminal.table import STATE_KEYS, Column, Records, Row, page_keys
from taskq_core.cli.terminal.workflow import cancel, retry
from taskq_core.views import WORKFLOW_SCAN_MAX, WorkflowFilter, WorkflowRow
from taskq_core.workflow import WorkflowState

_STATES = (None, *WorkflowState)
_LIST = (
    Column(title="Workflow", least=12, most=36),
    Column(title="State", least=9),
    Column(title="", width=12, least=5, drop=2),
    Column(title="Steps", right=True),
    Column(title="Queue", least=6, most=20, drop=1),
    Column(title="Began", least=8),
    Column(title="Ended", least=8, drop=3),
    Column(title="Id", least=8, drop=4, grows=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was read of the list.

    Attributes:
        rows: The workflows of the page.
        total: How many there are to list or to look at.
        sizes: How many run, and how many have ended.
        cursor: Where a search goes on, None where it does not.
    """

    rows: Sequence[WorkflowRow]
    total: int
    sizes: tuple[int, int]
    cursor: str | None = None


class WorkflowsLook(FilteredLook[Found]):
    """Workflows of all queues."""

    TOP = "workflows"
    HINT = "part of name or id"
    ABOUT = (
        "Workflows of all queues, those that run first, each with how many of its steps have ended. Left and right go "
        "through the states; the filter finds them by a part of name or id. Enter shows one with its steps."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "change_retry", "Retry", tooltip="Run what failed of the workflow again"),
        Binding("c", "change_cancel", "Cancel", tooltip="Cancel the workflow"),
        *page_keys(),
        *STATE_KEYS,
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.state: WorkflowState | None = None
        self._skip = 0
        self._cursors: list[str | None] = [None]

    def body(self) -> ComposeResult:
        """Put the chips, the table and the filter together."""
        with Horizontal(classes="chips"):
            for number, state in enumerate(_STATES):
                label = Text("all" if state is None else state.value, self.desk.palette.of(state or ""))
                yield Item(label, f"screen.choose_state({number})", id=f"chip-{number}")
        yield Records(id="table")
        yield Static(classes="empty", id="empty")
        yield Static(id="pages", classes="line quiet")
        yield self.field()

    @property
    def heading(self) -> str:
        """How many there are."""
        if self.found is None:
            return "reading…"
        running, ended = self.found.sizes
        return f"{running:,} workflow{'' if running == 1 else 's'} running, {ended:,} ended"

    async def read(self) -> Found:
        """Read a page of them."""
        dashboard, count = self.desk.dashboard, self.query_one(Records).fits
        counts = await dashboard.workflow_counts(await self.desk.inspector.queues())
        sizes = sum(each.running for each in counts), sum(each.ended for each in counts)
        wanted = WorkflowFilter(state=self.state, text=self.text)
        total = wanted.size(counts)
        if not wanted.looks_inside:
            self._skip = min(self._skip, max(0, (total - 1) // count * count))
            rows = await dashboard.list_workflows(counts, wanted, skip=self._skip, count=count)
            return Found(rows=rows, total=total, sizes=sizes)
        found = await dashboard.search_workflows(counts, wanted, cursor=self._cursors[-1], scan=WORKFLOW_SCAN_MAX)
        return Found(rows=found.rows, total=total, sizes=sizes, cursor=found.cursor)

    def draw(self, found: Found) -> None:
        """Show them."""
        for number, state in enumerate(_STATES):
            self.query_one(f"#chip-{number}").set_class(state is self.state, "-on")
        table, empty = self.query_one(Records), self.query_one("#empty", Static)
        table.fill(_LIST, [Row(_key(row), self._cells(row)) for row in found.rows])
        table.display, empty.display = bool(found.rows), not found.rows
        is_filtered = self.state is not None or self.text
        empty.update("No workflow that was read fits." if is_filtered else "There is no workflow.")
        self.query_one("#pages", Static).update(shown(self._pages(found)))

    def _pages(self, found: Found) -> str:
        if self.text or self.state not in (None, WorkflowState.RUNNING):
            more = "; n goes on" if found.cursor is not None else ""
            return f"{f'filter: {self.text}   ' if self.text else ''}{len(found.rows):,} found{more}"
        return f"{page_words(self._skip, self.query_one(Records).fits, found.total)}   n next, p back"

    def _cells(self, row: WorkflowRow) -> list[Any]:
        now, palette = self.desk.now(), self.desk.palette

        def progress(width: int) -> Text:
            share = row.steps_ended / row.steps if row.steps else 0.0
            bad = min(width, round(width * row.steps_failed / row.steps) or 1) if row.steps_failed and row.steps else 0
            cells = max(bad, round(width * share))
            return gauge(palette, width, (cells - bad, palette.good), (bad, palette.bad))

        return [
            shown(row.name or row.id, "bold"),
            self.styled(row.state.value),
            progress,
            shown("-" if row.state is WorkflowState.DAMAGED else f"{row.steps_ended:,}/{row.steps:,}"),
            shown(row.queue),
            shown(shown_distance(row.created_at, now)),
            shown(shown_distance(row.ended_at, now)),
            self.quiet(row.id),
        ]

    @property
    def chosen(self) -> WorkflowRow | None:
        """The workflow that is chosen."""
        key = self.query_one(Records).current
        rows = () if self.found is None else self.found.rows
        return next((row for row in rows if _key(row) == key), None)

    def on_data_table_row_selected(self) -> None:
        """Show a workflow with its steps."""
        row = self.chosen
        if row is not None:
            self.go(WorkflowPlace(row.queue, row.id))

    def begin(self, text: str) -> None:
        """Begin at the first page of another list."""
        self.text = text
        self._skip, self._cursors = 0, [None]
        self.turn()

    def action_state(self, by: int) -> None:
        """Go to the next state, or to the one before."""
        self.action_choose_state((_STATES.index(self.state) + by) % len(_STATES))

    def action_choose_state(self, number: int) -> None:
        """Go to a state."""
        self.state = _STATES[number]
        self.begin(self.text)

    def on_records_refit(self) -> None:
        """Show as many as there is room for now."""
        self.turn()

    def action_page(self, by: int) -> None:
        """Go to the next page, or to the one before."""
        if self.found is None:
            return
        count = self.query_one(Records).fits
        if self.found.cursor is not None and by > 0:
            self._cursors.append(self.found.cursor)
        elif len(self._cursors) > 1 and by < 0:
            self._cursors.pop()
        elif 0 <= self._skip + by * count < max(1, self.found.total):
            self._skip += by * count
        self.turn()

    def action_change_cancel(self) -> None:
        """Cancel the workflow that is chosen."""
        row = self.chosen
        if row is not None:
            self.change(cancel(self, row.queue, row.id))

    def action_change_retry(self) -> None:
        """Run what failed of the workflow that is chosen again."""
        row = self.chosen
        if row is not None:
            self.change(retry(self, row.queue, row.id))


def _key(row: WorkflowRow) -> str:
    return f"{row.queue}\0{row.id}"
