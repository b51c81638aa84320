"""Tasks by state, of a queue, a group or all queues, with a filter and actions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from taskq_core import TaskState
from taskq_core.cli.plugin import Column, shown_distance, shown_rate, shown_span, task_columns
from taskq_core.inspector import (
    ALLOWED_STATES,
    LISTED_STATES,
    GroupInfo,
    GroupPage,
    QueueInfo,
    RunningTask,
    TaskAction,
    TaskRef,
    total_of,
)
from taskq_core.views import GROUPS_COUNTED, STATES, FoundTasks, TaskRecord, WorkersOverview, is_orphaned
from taskq_core.views.labels import search_text
from taskq_terminal.actions import act_on, act_on_all
from taskq_terminal.figures import count_of, short, shown, state_label
from taskq_terminal.filtering import HINT, wanted_of
from taskq_terminal.frames import ListScreen, Page
from taskq_terminal.queues import pause_or_resume
from taskq_terminal.state import DashState

MARKED_MAX = 10_000
_GROUPS = (Column("Group", lambda group: group.name), Column("Tasks", lambda group: f"{group.size:,}", right=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The data that `read` of this screen returns.

    Attributes:
        infos: The figures of one queue, or of all queues.
        now: The time of Redis's clock.
        total: Number of tasks or groups in the list. With a filter: number of tasks to search.
        tasks: The tasks of the page.
        workers: The running tasks, for state active.
        groups: The groups of the page, if groups are listed.
        search: The result of the filter, if there is one.
    """

    infos: Sequence[QueueInfo]
    now: datetime
    total: int
    tasks: Sequence[TaskRecord] = ()
    workers: WorkersOverview | None = None
    groups: GroupPage | None = None
    search: FoundTasks | None = None


class TasksScreen(ListScreen[Found, TaskRecord | GroupInfo]):
    """Shows tasks by state. The user can choose the state; None means all states of all queues.

    Args:
        shared: The shared state.
        queue: The queue; None for all queues.
        state: The state; None for the first state with tasks, or for all states of all queues.
        group: The group.
    """

    TOP = "tasks"
    FILTER = HINT
    HELP = (
        "Tasks of one state; left and right select another state. Actions apply to the marked tasks, or to the "
        f"selected one; x marks all listed tasks, on all pages. The filter searches for a {HINT}; use quotes for "
        "texts with spaces. The result of a filter is not updated: F5 searches again."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark", key_display="␣", tooltip="or unmark the task"),
        Binding("ctrl+a", "mark_page", "Mark page", show=False, tooltip="or unmark it"),
        Binding("x", "mark_all", "All", tooltip="tasks of the list, on all pages, are marked"),
        Binding("r", "change_tasks('run')", "Run", tooltip="tasks now"),
        Binding("t", "change_tasks('retry')", "Later", show=False, tooltip="tasks are retried"),
        Binding("a", "change_tasks('archive')", "Archive", tooltip="tasks"),
        Binding("c", "change_tasks('cancel')", "Cancel", tooltip="running tasks"),
        Binding("m", "change_tasks('move')", "Move", show=False, tooltip="tasks to another queue"),
        Binding("d", "change_tasks('delete')", "Delete", tooltip="tasks"),
        Binding("P", "change_pause", "Pause", show=False, tooltip="or resume the queue"),
    ]

    def __init__(
        self, shared: DashState, queue: str | None = None, state: TaskState | None = None, group: str = ""
    ) -> None:
        super().__init__(shared, state)
        self.queue, self.group = queue, group
        self.marked: set[TaskRef] = set()
        self.is_all = False
        """Whether all tasks of the list are marked, not only those of the visible page."""
        self._wanted = wanted_of("", queue=queue, state=state, in_payload=shared.config.payloads)

    @property
    def is_live(self) -> bool:
        """Whether the list is read periodically. A search reads many tasks, so it is repeated only on request."""
        return not self._wanted.needs_reading

    # --- reading and drawing ------------------------------------------------------------------------------------------

    async def read(self) -> Found:
        """Read the figures of the queues and the tasks of the page."""
        inspector, dashboard, count = self.shared.inspector, self.shared.dashboard, self.table.fits
        if self.queue is None:
            infos: Sequence[QueueInfo] = await inspector.queue_infos()
        else:
            infos = [await inspector.queue_info(self.queue)]
            if self.choice is None:
                self.choice = next((state for state in STATES if infos[0].sizes[state]), TaskState.PENDING)
                self.filtered(self.text)
        now = max((info.as_of for info in infos), default=self.shared.now())
        if self.queue is not None and infos[0].problem:
            return Found(infos=infos, total=0, now=now)
        if self.queue is not None and self.choice is TaskState.AGGREGATING:
            if self.group:
                number = self.position // count + 1
                page = await inspector.tasks(self.queue, self.choice, group=self.group, page=number, page_size=count)
                return Found(infos=infos, tasks=page.tasks, total=page.total, now=now)
            groups = await inspector.groups_page(self.queue, limit=count, cursor=self.position or None)
            return Found(infos=infos, total=groups.total, now=now, groups=groups)
        workers = await dashboard.workers() if self.choice is TaskState.ACTIVE else None
        if self._wanted.needs_reading:
            return await self._search(Found(infos=infos, total=0, now=now, workers=workers))
        tasks = await dashboard.tasks(infos, self._wanted, skip=self.position, count=count)
        return Found(infos=infos, tasks=tasks, total=total_of(infos, self.choice), now=now, workers=workers)

    async def _search(self, found: Found) -> Found:
        """Search until the page is full or all tasks were read. Show each part as soon as it is found."""
        tasks: dict[str, TaskRecord] = {}  # new pending tasks shift the others, so some are read twice
        cursor, count = self.position or None, self.table.fits
        while True:
            part = await self.shared.dashboard.search_tasks(
                found.infos, self._wanted, cursor=cursor, limit=count - len(tasks)
            )
            tasks |= {_key(task): task for task in part.tasks}
            found = replace(found, tasks=tuple(tasks.values()), total=part.total, search=part)
            cursor = part.cursor
            if cursor is None or len(tasks) >= count:
                return found
            self.found = found
            self.redraw()

    def page_of(self, found: Found) -> Page[TaskRecord | GroupInfo]:
        """Return a page of tasks or groups. Its choices are the states, each with its number of tasks."""
        whose = "all queues" if self.queue is None else f"queue {self.queue}"
        states: Sequence[TaskState | None] = STATES if self.queue is not None else (None, *LISTED_STATES)
        next_place: int | str | None
        if found.groups is not None:
            next_place = found.groups.cursor
        elif found.search is not None:
            next_place = found.search.cursor
        else:
            next_place = self.next_number(found.total)
        return Page(
            heading=f"{whose}, group {self.group}" if self.group else whose,
            columns=self._columns(found),
            records=found.tasks if found.groups is None else found.groups.groups,
            key=_key,
            next=next_place,
            facts=self._facts(found),
            choices=() if self.group else [(state, self._label(state, found.infos)) for state in states],
            below=self._below(found, has_more=next_place is not None),
            empty=self._empty(found),
        )

    def _columns(self, found: Found) -> Sequence[Column]:
        if found.groups is not None:
            return _GROUPS
        columns = task_columns(self.queue, self.choice, found.now, hide=not self.shared.config.payloads)
        columns.insert(0, Column(" ", self._mark_of, style="link"))
        if found.workers is not None:
            columns[-2:-2] = self._run_columns(found.workers, found.now)
        return columns

    def _mark_of(self, task: TaskRecord) -> str:
        return "●" if self.is_all or TaskRef.of(task) in self.marked else "·"

    def _run_columns(self, workers: WorkersOverview, now: datetime) -> list[Column]:
        runs = {(run.queue, run.task_id): run for each in workers.workers for run in each.running}

        def run(task: TaskRecord) -> RunningTask | None:
            return runs.get((task.queue, task.id))

        def span(task: TaskRecord) -> str:
            found = run(task)
            return shown_span(None if found is None else found.running_for)

        def deadline(task: TaskRecord) -> str:
            found = run(task)
            return shown_distance(None if found is None else found.deadline, now)

        return [
            Column("Status", lambda task: "orphaned" if is_orphaned(task, now) else "running", least=8),
            Column("For", span, right=True),
            Column("Deadline", deadline, least=8, drop=3),
        ]

    def _facts(self, found: Found) -> Text:
        """Return the text above the table: the state of the queue or, for all queues, the number of tasks."""
        quiet = self.palette["quiet"]
        if self.queue is None:
            total = sum(info.size for info in found.infos)
            return Text(f"{count_of(total, 'task')} in {count_of(len(found.infos), 'queue')}", quiet)
        row = found.infos[0]
        text = Text.assemble(shown(row.name, "bold"), "  ", shown(row.status.value, self.palette.of(row.status.value)))
        wait = f"   wait {shown_span(row.latency)}" if row.latency is not None else ""
        return text.append(
            f"{wait}   today {short(row.processed_today)} ran, {shown_rate(row.error_rate)} failed", quiet
        )

    def _label(self, state: TaskState | None, infos: Sequence[QueueInfo]) -> Text:
        if state is None:
            return Text.assemble("all ", (short(total_of(infos, None)), "bold"))
        size = sum(info.sizes[state] for info in infos)
        is_cut = state is TaskState.AGGREGATING and any(info.groups > GROUPS_COUNTED for info in infos)
        colour = self.palette[state.value if size else "quiet"]
        count = f"{short(size)}{'+' if is_cut else ''}"
        return Text.assemble((state_label(state, self.size.width), colour), " ", (count, "bold"))

    def _empty(self, found: Found) -> str:
        """Return the text that an empty list shows instead of tasks."""
        if self.queue is not None and found.infos[0].problem:
            return f"The queue cannot be counted: {found.infos[0].problem}. Run taskq doctor to find the reason."
        if found.groups is not None:
            return "No group has tasks." if not found.total else "There are no more groups."
        if found.search is not None:
            return search_text(found.search, "tasks")
        return f"No task is {self.choice}." if self.choice is not None else "There is no task."

    def _below(self, found: Found, *, has_more: bool) -> str:
        """Return the text below the table.

        It has the number of marked tasks, then the page number or, with a filter, the progress of the search.
        """
        every = "all that match" if found.search is not None else f"all {count_of(found.total, 'task')}"
        marked = every if self.is_all else f"{len(self.marked):,}"
        marks = f"{marked} marked   " if self.is_all or self.marked else ""
        if found.search is not None:
            more = " n continues" if has_more else ""
            return f"{marks}filter: {self.text}   {search_text(found.search, 'tasks')}{more}"
        if found.groups is not None:
            return f"{count_of(found.total, 'group')}{'; n continues' if has_more else ''}"
        return f"{marks}{self.page_text(found.total)}   {count_of(found.total, 'task')}"

    def filtered(self, text: str) -> None:
        """Parse the filter that the user entered, and unmark all tasks."""
        payloads = self.shared.config.payloads
        self._wanted = wanted_of(text, queue=self.queue, state=self.choice, in_payload=payloads)
        self._unmark()

    def open(self, record: TaskRecord | GroupInfo) -> None:
        """Show a task, or the tasks of a group."""
        if isinstance(record, GroupInfo):
            self.go("tasks", self.queue, TaskState.AGGREGATING, record.name)
        else:
            self.go("task", record.queue, record.id)

    # --- marks and actions --------------------------------------------------------------------------------------------

    @property
    def meant(self) -> list[TaskRef]:
        """The tasks to which an action applies: the marked tasks, or the selected task if none is marked."""
        if self.marked or self.chosen is None or isinstance(self.chosen, GroupInfo):
            return sorted(self.marked, key=lambda ref: (ref.queue, str(ref.state), ref.id))
        return [TaskRef.of(self.chosen)]

    def _unmark(self) -> None:
        self.marked.clear()
        self.is_all = False

    def action_mark(self) -> None:
        """Mark or unmark the selected task, and go to the next."""
        task = self.chosen
        if task is None or isinstance(task, GroupInfo):
            return
        if len(self.marked) >= MARKED_MAX and TaskRef.of(task) not in self.marked:
            self.show_message(f"At most {MARKED_MAX:,} tasks can be marked; x marks all tasks of the list.", "warning")
            return
        self.is_all = False
        self.marked ^= {TaskRef.of(task)}
        self.redraw()
        self.table.action_cursor_down()

    def action_mark_page(self) -> None:
        """Mark all tasks of the page, or unmark them if all are marked."""
        if self.found is not None:
            refs = {TaskRef.of(task) for task in self.found.tasks}
            self.marked = self.marked - refs if refs <= self.marked else self.marked | refs
            self.is_all = False
            self.redraw()

    def action_mark_all(self) -> None:
        """Mark all tasks of the list, on all pages, or unmark them."""
        if self.choice is None:
            self.show_message("Choose a state first, with left and right.", "warning")
            return
        if self.found is not None and any(task.id == self._wanted.text for task in self.found.tasks):
            # If the filter is the id of a task, mark only the task with this id. Otherwise, after its deletion, the
            # filter would match other tasks whose data contain the id.
            self.action_mark_page()
            return
        was_all = self.is_all
        self._unmark()
        self.is_all = not was_all
        self.redraw()

    def action_change_tasks(self, word: str) -> None:
        """Run an action on the marked tasks."""
        if self.found is not None:
            self.change(self._act(TaskAction(word), self.found))

    async def _act(self, action: TaskAction, found: Found) -> None:
        if self.is_all:
            is_done = await act_on_all(self, action, replace(self._wanted, group=self.group or None), total=found.total)
        else:
            is_done = await act_on(self, self.meant, action) is not None
        if is_done:
            self._unmark()

    def action_change_pause(self) -> None:
        """Pause or resume the queue."""
        if self.queue is not None and self.found is not None:
            self.change(pause_or_resume(self, self.found.infos[0]))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the actions that fit the state."""
        lists_groups = self.choice is TaskState.AGGREGATING and not self.group
        if action == "change_pause" and self.queue is None:
            return False
        if lists_groups and action in ("mark", "mark_page", "mark_all", "filter", "change_tasks"):
            return False
        if action == "filter" and self.group:
            return False
        if action == "change_tasks" and self.choice not in (None, *ALLOWED_STATES[TaskAction(str(parameters[0]))]):
            return False
        return super().check_action(action, parameters)


def _key(record: TaskRecord | GroupInfo) -> str:
    return record.name if isinstance(record, GroupInfo) else f"{record.queue}\0{record.state}\0{record.id}"
