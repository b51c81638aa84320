"""Tasks by state, of a queue, a group or all queues, with a filter and actions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from taskq_core.cli.render import shown_rate, shown_span
from taskq_core.cli.terminal.actions import act_on, act_on_all
from taskq_core.cli.terminal.figures import page_words, short, shown, state_label
from taskq_core.cli.terminal.filtering import HINT, wanted_of
from taskq_core.cli.terminal.frames import FilteredScreen
from taskq_core.cli.terminal.listing import Listed, key_of, ref_of
from taskq_core.cli.terminal.poller import Poller
from taskq_core.cli.terminal.queues import pause_or_resume
from taskq_core.cli.terminal.screen import Item
from taskq_core.cli.terminal.table import STATE_KEYS, Column, Records, Row, page_keys
from taskq_core.inspector import (
    ALLOWED_STATES,
    LISTED_STATES,
    GroupPage,
    QueueInfo,
    TaskAction,
    TaskRef,
    total_of,
)
from taskq_core.inspector.records import GROUPS_COUNTED
from taskq_core.views import STATES, FoundTasks, TaskFilter, TaskRecord, WorkersOverview
from taskq_core.wire import TaskState

SCAN = 5_000
"""Most tasks that one page of a filter reads."""
MARKED_MAX = 10_000
_GROUPS = (Column(title="Group", least=10, grows=True), Column(title="Tasks", right=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A read of this screen.

    Attributes:
        infos: The figures of one queue, or of all.
        tasks: The tasks of the page.
        total: Number of tasks in the list, None for a search.
        now: The time of Redis's clock.
        workers: The running tasks, for state active.
        groups: The groups of the page, if groups are listed.
        search: The result of the filter, if there is one.
    """

    infos: Sequence[QueueInfo]
    tasks: Sequence[TaskRecord]
    total: int | None
    now: datetime
    workers: WorkersOverview | None = None
    groups: GroupPage | None = None
    search: FoundTasks | None = None


class TasksScreen(FilteredScreen[Found]):
    """Tasks by state.

    Args:
        poller: The shared state.
        queue: The queue; None for all queues.
        state: The state; None for the first state with tasks, or for all states of all queues.
        group: The group.
    """

    TOP = "tasks"
    HINT = HINT
    ABOUT = (
        "Tasks of one state; left and right select another state. Actions apply to the marked tasks, or to the "
        f"selected one; x applies to all listed tasks, on all pages. The filter searches for a {HINT}; use quotes for "
        "texts with spaces. The result of a filter is not updated: F5 searches again."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark", key_display="␣", tooltip="Mark or unmark the task"),
        Binding("ctrl+a", "mark_all", "Mark page", show=False, tooltip="Mark all tasks of the page, or none"),
        Binding("r", "change_tasks('run')", "Run", tooltip="Run tasks now"),
        Binding("t", "change_tasks('retry')", "Later", show=False, tooltip="Retry tasks later"),
        Binding("a", "change_tasks('archive')", "Archive", tooltip="Archive tasks"),
        Binding("c", "change_tasks('cancel')", "Cancel", tooltip="Cancel running tasks"),
        Binding("m", "change_tasks('move')", "Move", show=False, tooltip="Move tasks to another queue"),
        Binding("d", "change_tasks('delete')", "Delete", tooltip="Delete tasks"),
        Binding("x", "change_all", "All", tooltip="Run an action on all tasks of the list"),
        Binding("P", "change_pause", "Pause", show=False, tooltip="Pause or resume the queue"),
        *page_keys(show=False),
        *STATE_KEYS,
    ]

    def __init__(
        self, poller: Poller, queue: str | None = None, state: TaskState | None = None, group: str | None = None
    ) -> None:
        super().__init__(poller)
        self.queue, self.state, self.group = queue, state, group
        self.marked: set[TaskRef] = set()
        self._skip = 0
        self._cursors: list[str | None] = [None]
        self._wanted = TaskFilter(queue=queue, state=state)
        self._search: FoundTasks | None = None
        self._chooses_state = queue is not None and state is None

    # --- reading and drawing ------------------------------------------------------------------------------------------

    def body(self) -> ComposeResult:
        """Return states, table and filter."""
        yield Static(id="about", classes="line")
        with Horizontal(classes="chips"):
            for number in range(len(self._states)):
                yield Item(Text(""), f"screen.choose_state({number})", id=f"chip-{number}")
        yield Records(has_marks=True, id="table")
        yield Static(classes="empty", id="empty")
        yield Static(id="pages", classes="line quiet")
        yield self.field()

    @property
    def _states(self) -> Sequence[TaskState | None]:
        if self.group is not None:
            return ()
        return (None, *LISTED_STATES) if self.queue is None else STATES

    @property
    def heading(self) -> str:
        """The queue and group."""
        whose = "all queues" if self.queue is None else f"queue {self.queue}"
        return f"{whose}, group {self.group}" if self.group is not None else whose

    @property
    def _shows_groups(self) -> bool:
        return self.state is TaskState.AGGREGATING and self.group is None

    async def read(self) -> Found:
        """Read the figures of the queues and the tasks of the page."""
        inspector, dashboard = self.poller.inspector, self.poller.dashboard
        if self.queue is None:
            infos = await inspector.queue_infos()
        else:
            infos = [await inspector.queue_info(self.queue)]
        if self._chooses_state:
            self.state = next((state for state in STATES if infos[0].sizes[state]), TaskState.PENDING)
            self._wanted = replace(self._wanted, state=self.state)
            self._chooses_state = False
        now = max((info.as_of for info in infos), default=self.poller.now())
        count = self.query_one(Records).fits
        if self.queue is not None and infos[0].problem:
            return Found(infos=infos, tasks=(), total=0, now=now)
        if self._shows_groups:
            assert self.queue is not None
            groups = await inspector.groups_page(self.queue, limit=count, cursor=self._cursors[-1])
            return Found(infos=infos, tasks=(), total=groups.total, now=now, groups=groups)
        if self.group is not None:
            assert self.queue is not None
            page = await inspector.tasks(
                self.queue, self.state, group=self.group, page=self._skip // count + 1, page_size=count
            )
            return Found(infos=infos, tasks=page.tasks, total=page.total, now=now)
        wanted = self._wanted
        workers = await dashboard.workers() if self.state is TaskState.ACTIVE else None
        if wanted.looks_inside:
            if self._search is None:
                self._search = await dashboard.search_tasks(
                    infos, wanted, cursor=self._cursors[-1], scan=SCAN, limit=count
                )
            return Found(
                infos=infos, tasks=self._search.tasks, total=None, now=now, workers=workers, search=self._search
            )
        total = total_of(infos, self.state)
        self._skip = min(self._skip, max(0, (total - 1) // count * count))
        tasks = await dashboard.tasks(infos, wanted, skip=self._skip, count=count)
        return Found(infos=infos, tasks=tasks, total=total, now=now, workers=workers)

    def draw(self, found: Found) -> None:
        """Show states and table."""
        self.query_one("#about", Static).update(self._about(found))
        self._draw_chips(found)
        table = self.query_one(Records)
        if found.groups is not None:
            rows = [Row(each.name, (shown(each.name), shown(f"{each.size:,}"))) for each in found.groups.groups]
            table.fill(_GROUPS, rows)
        else:
            listed = Listed(self, whole=self.queue is None, marked=self.marked, now=found.now)
            columns, rows = listed.table(self.state, found.tasks, found.workers)
            table.fill(columns, rows)
        table.display = bool(rows)
        empty = self.query_one("#empty", Static)
        empty.display = not rows
        empty.update(shown(self._nothing(found)))
        self.query_one("#pages", Static).update(shown(self._pages(found)))
        self.refresh_bindings()

    def _about(self, found: Found) -> Text:
        palette = self.poller.palette
        if self.queue is None:
            return Text(
                f"{sum(info.size for info in found.infos):,} tasks in {len(found.infos):,} queues", palette.quiet
            )
        row = found.infos[0]
        text = Text.assemble(shown(row.name, "bold"), "  ", self.styled(row.status.value), end="")
        wait = f"   wait {shown_span(row.latency)}" if row.latency is not None else ""
        text.append(
            f"{wait}   today {short(row.processed_today)} ran, {shown_rate(row.error_rate)} failed", palette.quiet
        )
        return text

    def _draw_chips(self, found: Found) -> None:
        for number, state in enumerate(self._states):
            chip = self.query_one(f"#chip-{number}", Item)
            size = total_of(found.infos, state) if state is None else sum(info.sizes[state] for info in found.infos)
            colour = "" if state is None else self.poller.palette.states[state]
            label = "all" if state is None else state_label(state, self.size.width)
            is_cut = state is TaskState.AGGREGATING and any(info.groups > GROUPS_COUNTED for info in found.infos)
            count = f"{short(size)}{'+' if is_cut else ''}"
            chip.update(Text.assemble((label, colour if size else self.poller.palette.quiet), " ", (count, "bold")))
            chip.set_class(state is self.state, "-on")

    def _nothing(self, found: Found) -> str:
        if self.queue is not None and found.infos[0].problem:
            return f"It cannot be counted: {found.infos[0].problem}. taskq doctor says why."
        if found.groups is not None:
            return "No group has tasks."
        if found.search is not None:
            return "No task on this page matches the filter."
        return f"No task is {self.state}." if self.state is not None else "There is no task."

    def _pages(self, found: Found) -> str:
        count = self.query_one(Records).fits
        marked = f"{len(self.marked):,} marked   " if self.marked else ""
        if found.search is not None:
            search = found.search
            more = "; n continues" if search.cursor is not None else ""
            filtered = (
                f"filter: {self.text}   {len(search.tasks):,} found in {search.scanned:,} of {search.total:,}{more}"
            )
            return marked + filtered
        total = found.total or 0
        if found.groups is not None:
            more = "; n continues" if found.groups.cursor is not None else ""
            return f"{total:,} group{'' if total == 1 else 's'}{more}"
        word = "task" if total == 1 else "tasks"
        return f"{marked}{page_words(self._skip, count, total)}   {total:,} {word}   n next, p back"

    # --- pages and filters --------------------------------------------------------------------------------------------

    def begin(self, text: str) -> None:
        """Show the first page of a filter.

        Raises:
            ConfigurationError: The filter is invalid.
        """
        self._wanted = wanted_of(text, queue=self.queue, state=self.state, in_payload=self.poller.config.payloads)
        self.text = text
        self._skip, self._cursors, self._search = 0, [None], None
        self.marked.clear()
        self.turn()

    def action_state(self, by: int) -> None:
        """Select the next or previous state."""
        states = self._states
        if states and self.state in states:
            self.action_choose_state((states.index(self.state) + by) % len(states))

    def action_choose_state(self, number: int) -> None:
        """Select a state."""
        self.state = self._states[number]
        self._chooses_state = False
        self.begin(self.text)

    def action_page(self, by: int) -> None:
        """Show the next or previous page."""
        if self.found is None:
            return
        cursor = (
            self.found.groups.cursor if self.found.groups else self.found.search.cursor if self.found.search else None
        )
        if self.found.groups is not None or self.found.search is not None:
            if by > 0 and cursor is not None:
                self._cursors.append(cursor)
            elif by < 0 and len(self._cursors) > 1:
                self._cursors.pop()
            else:
                return
            self._search = None
        else:
            count = self.query_one(Records).fits
            skip = self._skip + by * count
            if not 0 <= skip < max(1, self.found.total or 0):
                return
            self._skip = skip
        self.turn()

    def on_records_refit(self) -> None:
        """Read as many rows as fit."""
        self._search = None
        self.turn()

    def search_again(self) -> None:
        """Repeat the search of the filter."""
        self._search = None

    def on_data_table_row_selected(self) -> None:
        """Show a task, or the tasks of a group."""
        key = self.query_one(Records).current
        if key is None or self.found is None:
            return
        if self._shows_groups:
            assert self.queue is not None
            self.go("tasks", self.queue, TaskState.AGGREGATING, key)
            return
        task = self._listed(key)
        if task is not None:
            self.go("task", task.queue, task.id)

    # --- actions ------------------------------------------------------------------------------------------------------

    def _listed(self, key: str | None) -> TaskRecord | None:
        tasks = () if self.found is None else self.found.tasks
        return next((task for task in tasks if key_of(task) == key), None)

    @property
    def meant(self) -> list[TaskRef]:
        """The marked tasks, or else the selected one."""
        if self.marked:
            return sorted(self.marked, key=lambda ref: (ref.queue, str(ref.state), ref.id))
        task = self._listed(self.query_one(Records).current)
        return [] if task is None else [ref_of(task)]

    def on_records_marked(self, event: Records.Marked) -> None:
        """Mark the clicked task."""
        self.action_mark()

    def action_mark(self) -> None:
        """Mark or unmark the selected task, and go to the next."""
        task = self._listed(self.query_one(Records).current)
        if task is None:
            return
        if len(self.marked) >= MARKED_MAX and ref_of(task) not in self.marked:
            self.say(f"At most {MARKED_MAX:,} tasks can be marked; x applies to all tasks of the list.", "warning")
            return
        self.marked ^= {ref_of(task)}
        self.redraw()
        self.query_one(Records).action_cursor_down()

    def action_mark_all(self) -> None:
        """Mark all tasks of the page, or unmark them if all are marked."""
        if self.found is None:
            return
        refs = {ref_of(task) for task in self.found.tasks}
        self.marked = self.marked - refs if refs <= self.marked else self.marked | refs
        self.redraw()

    def action_change_tasks(self, word: str) -> None:
        """Run an action on the marked tasks."""
        self.change(self._act(TaskAction(word)))

    async def _act(self, action: TaskAction) -> None:
        report = await act_on(self, self.meant, action)
        if report is not None:
            self.marked.clear()
            self._search = None

    def action_change_all(self) -> None:
        """Run an action on all tasks of the list."""
        if self.state is None:
            self.say("Choose a state first, with left and right.", "warning")
        elif self.found is not None:
            self.change(self._act_on_all(self.found))

    async def _act_on_all(self, found: Found) -> None:
        assert self.state is not None
        total = found.total if found.search is None else found.search.total
        if await act_on_all(self, replace(self._wanted, group=self.group), total=total or 0):
            self.marked.clear()
            self._search = None

    def action_change_pause(self) -> None:
        """Pause or resume the queue."""
        if self.queue is not None and self.found is not None:
            self.change(pause_or_resume(self, self.queue, is_paused=self.found.infos[0].is_paused))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the actions that fit the state."""
        if action == "change_pause" and self.queue is None:
            return False
        if action in ("mark", "mark_all", "filter", "change_all") and self._shows_groups:
            return False
        if action == "filter" and self.group is not None:
            return False
        if action == "change_tasks" and self.state is not None:
            states = ALLOWED_STATES[TaskAction(str(parameters[0]))]
            if self.state not in states or self._shows_groups:
                return False
        return super().check_action(action, parameters)
