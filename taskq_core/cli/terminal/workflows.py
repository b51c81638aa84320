"""Workflows of all queues."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from taskq_core.cli.render import shown_distance
from taskq_core.cli.terminal.figures import gauge, page_words, shown
from taskq_core.cli.terminal.frames import FilteredScreen, ListScreen
from taskq_core.cli.terminal.poller import Poller
from taskq_core.cli.terminal.screen import Item
from taskq_core.cli.terminal.table import STATE_KEYS, Cell, Column, Records, page_keys
from taskq_core.cli.terminal.workflow import CHANGE_KEYS, cancel, retry
from taskq_core.views import WORKFLOW_SCAN_MAX, WorkflowFilter, WorkflowRow
from taskq_core.workflow import WorkflowState

_STATES = (None, *WorkflowState)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A read of this screen.

    Attributes:
        rows: The workflows of the page.
        total: Number of workflows to list or to search.
        sizes: Number of running and of ended workflows.
        cursor: Cursor of the next page of a search, None at its end.
    """

    rows: Sequence[WorkflowRow]
    total: int
    sizes: tuple[int, int]
    cursor: str | None = None


class WorkflowsScreen(ListScreen[Found, WorkflowRow], FilteredScreen[Found]):
    """Workflows of all queues."""

    TOP = "workflows"
    HINT = "part of name or id"
    OPENS = "workflow"
    COLUMNS = (
        Column(title="Workflow", least=12, most=36),
        Column(title="State", least=9),
        Column(title="", width=12, least=5, drop=2),
        Column(title="Steps", right=True),
        Column(title="Queue", least=6, most=20, drop=1),
        Column(title="Began", least=8),
        Column(title="Ended", least=8, drop=3),
        Column(title="Id", least=8, drop=4, grows=True),
    )
    ABOUT = (
        "Workflows of all queues, running ones first, each with its number of ended steps. Left and right select a "
        "state; the filter searches for a part of name or id. Enter shows the steps of a workflow."
    )
    BINDINGS: ClassVar[list[BindingType]] = [*CHANGE_KEYS, *page_keys(), *STATE_KEYS]

    def __init__(self, poller: Poller) -> None:
        super().__init__(poller)
        self.state: WorkflowState | None = None
        self._skip = 0
        self._cursors: list[str | None] = [None]

    def body(self) -> ComposeResult:
        """Return states, table and filter."""
        with Horizontal(classes="chips"):
            for number, state in enumerate(_STATES):
                label = Text("all" if state is None else state.value, self.poller.palette.of(state or ""))
                yield Item(label, f"screen.choose_state({number})", id=f"chip-{number}")
        yield from super().body()
        yield Static(id="pages", classes="line quiet")
        yield self.field()

    @property
    def heading(self) -> str:
        """The number of workflows."""
        if self.found is None:
            return "reading…"
        running, ended = self.found.sizes
        return f"{running:,} workflow{'' if running == 1 else 's'} running, {ended:,} ended"

    async def read(self) -> Found:
        """Read a page of workflows."""
        dashboard, count = self.poller.dashboard, self.query_one(Records).fits
        counts = await dashboard.workflow_counts(await self.poller.inspector.queues())
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
        """Show states and table."""
        for number, state in enumerate(_STATES):
            self.query_one(f"#chip-{number}").set_class(state is self.state, "-on")
        super().draw(found)
        is_filtered = self.state is not None or self.text
        text = "No workflow on this page matches." if is_filtered else "There is no workflow."
        self.query_one("#empty", Static).update(text)
        self.query_one("#pages", Static).update(shown(self._pages(found)))

    def _pages(self, found: Found) -> str:
        if self.text or self.state not in (None, WorkflowState.RUNNING):
            more = "; n continues" if found.cursor is not None else ""
            return f"{f'filter: {self.text}   ' if self.text else ''}{len(found.rows):,} found{more}"
        return f"{page_words(self._skip, self.query_one(Records).fits, found.total)}   n next, p back"

    def records(self, found: Found) -> Sequence[WorkflowRow]:
        """Return the workflows of the page."""
        return found.rows

    def key(self, record: WorkflowRow) -> str:
        """Return queue and id of a workflow."""
        return f"{record.queue}\0{record.id}"

    def opens(self, record: WorkflowRow) -> tuple[Any, ...]:
        """Return queue and id of the workflow to show."""
        return record.queue, record.id

    def cells(self, record: WorkflowRow) -> Sequence[Cell]:
        """Return the cells of a workflow."""
        row, now, palette = record, self.poller.now(), self.poller.palette

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

    def begin(self, text: str) -> None:
        """Show the first page of a filter."""
        self.text = text
        self._skip, self._cursors = 0, [None]
        self.turn()

    def action_state(self, by: int) -> None:
        """Select the next or previous state."""
        self.action_choose_state((_STATES.index(self.state) + by) % len(_STATES))

    def action_choose_state(self, number: int) -> None:
        """Select a state."""
        self.state = _STATES[number]
        self.begin(self.text)

    def on_records_refit(self) -> None:
        """Read as many rows as fit."""
        self.turn()

    def action_page(self, by: int) -> None:
        """Show the next or previous page."""
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
        """Cancel the selected workflow."""
        row = self.chosen
        if row is not None:
            self.change(cancel(self, row.queue, row.id))

    def action_change_retry(self) -> None:
        """Retry the failed steps of the selected workflow."""
        row = self.chosen
        if row is not None:
            self.change(retry(self, row.queue, row.id))
