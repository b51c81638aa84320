"""The screens of workflows: a list of all, one workflow with its steps, and one step with its result or members."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from taskq_core.cli.plugin import (
    Column,
    member_columns,
    shown_bytes,
    shown_distance,
    shown_moment,
    shown_size,
    workflow_columns,
)
from taskq_core.views import (
    MemberRow,
    StepDetail,
    StepInfo,
    WorkflowDetail,
    WorkflowFilter,
    WorkflowInfo,
    WorkflowRow,
    WorkflowSearch,
    WorkflowState,
    after_text,
    has_task,
)
from taskq_core.views.labels import search_text
from taskq_core.views.messages import cancel_question, cancelled, retried, retry_question, step_text
from taskq_terminal.figures import count_of, shown, shown_lines
from taskq_terminal.frames import ListScreen, Page
from taskq_terminal.screen import DashScreen
from taskq_terminal.state import DashState

MEMBERS_MAX = 500
"""Maximum number of group members on a page."""
STEPS_MAX = 500
"""Maximum number of steps on a page."""
CHANGE_KEYS = (
    Binding("r", "change_retry", "Retry", tooltip="the failed steps of the workflow"),
    Binding("c", "change_cancel", "Cancel", tooltip="the workflow"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The data of one read of the list of workflows.

    Attributes:
        rows: The workflows of the page.
        total: Number of workflows to list or to search.
        sizes: Number of running and of ended workflows.
        next: Position of the next page, None on the last page.
        search: The result of the filter, if there is one.
    """

    rows: Sequence[WorkflowRow]
    total: int
    sizes: tuple[int, int]
    next: int | str | None
    search: WorkflowSearch | None = None


class WorkflowsScreen(ListScreen[Found, WorkflowRow]):
    """Workflows of all queues. The user can choose a state; None means all states."""

    TOP = "workflows"
    FILTER = "part of name, id or queue"
    HELP = (
        "Workflows of all queues, running ones first, each with its number of ended steps. Left and right select a "
        "state; the filter searches for a part of name, id or queue. Enter shows the steps of a workflow."
    )
    BINDINGS: ClassVar[list[BindingType]] = [*CHANGE_KEYS]

    async def read(self) -> Found:
        """Read a page of workflows."""
        dashboard = self.shared.dashboard
        counts = await dashboard.workflow_counts(await self.shared.inspector.queues())
        sizes = sum(each.running for each in counts), sum(each.ended for each in counts)
        wanted = WorkflowFilter(state=self.choice, text=self.text)
        total = wanted.size(counts)
        if not wanted.needs_reading:
            rows = await dashboard.list_workflows(counts, wanted, skip=self.position, count=self.table.fits)
            return Found(rows=rows, total=total, sizes=sizes, next=self.next_number(total))
        found: dict[str, WorkflowRow] = {}  # new workflows shift the others, so some are read twice
        cursor, count = self.position or None, self.table.fits
        while True:
            part = await dashboard.search_workflows(counts, wanted, cursor=cursor, limit=count - len(found))
            found |= {_key(row): row for row in part.rows}
            page = Found(rows=tuple(found.values()), total=total, sizes=sizes, next=part.cursor, search=part)
            cursor = part.cursor
            if cursor is None or len(found) >= count:
                return page
            self.found = page
            self.redraw()

    def page_of(self, found: Found) -> Page[WorkflowRow]:
        """Return a page of workflows. The user can choose a state."""
        now, (running, ended) = self.shared.now(), found.sizes
        states = [(state, Text(state.value, self.palette.of(state.value))) for state in WorkflowState]
        below = self.page_text(found.total) if found.search is None else search_text(found.search, "workflows")
        empty = "There is no workflow." if found.search is None else below
        if found.search is not None:
            more = " n continues" if found.next is not None else ""
            below = f"{f'filter: {self.text}   ' if self.text else ''}{below}{more}"
        return Page(
            heading=f"{count_of(running, 'workflow')} running, {ended:,} ended",
            columns=[
                *workflow_columns(lambda time: shown_distance(time, now)),
                Column("Queue", lambda row: row.queue, least=6, drop=3),
            ],
            records=found.rows,
            key=_key,
            next=found.next,
            choices=[(None, Text("all")), *states],
            below=below,
            empty=empty,
        )

    def open(self, record: WorkflowRow) -> None:
        """Show a workflow."""
        self.go("workflow", record.queue, record.id)

    def action_change_cancel(self) -> None:
        """Cancel the selected workflow."""
        if self.chosen is not None:
            self.change(_cancel(self, self.chosen.queue, self.chosen.id))

    def action_change_retry(self) -> None:
        """Retry the failed steps of the selected workflow."""
        if self.chosen is not None:
            self.change(_retry(self, self.chosen.queue, self.chosen.id))


def _key(row: WorkflowRow) -> str:
    return f"{row.queue}\0{row.id}"


class WorkflowScreen(ListScreen[WorkflowDetail, StepInfo]):
    """One workflow with its steps."""

    TOP = "workflows"
    HELP = (
        "The steps of a workflow, each after the steps that it depends on. Enter shows the result of a step, or the "
        "members of a group; o shows its task."
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("o", "task", "Task", tooltip="of the step"), *CHANGE_KEYS]

    def __init__(self, shared: DashState, queue: str, workflow_id: str) -> None:
        super().__init__(shared)
        self.queue, self.workflow_id = queue, workflow_id

    async def read(self) -> WorkflowDetail:
        """Read the workflow."""
        return await self.shared.dashboard.workflow(self.queue, self.workflow_id)

    def page_of(self, found: WorkflowDetail) -> Page[StepInfo]:
        """Return the steps."""
        now, palette = self.shared.now(), self.palette
        info, steps = found.graph.info, found.graph.steps
        end, count = self.position + STEPS_MAX, len(steps)
        return Page(
            heading=f"workflow {info.name or self.workflow_id} of queue {self.queue}",
            columns=[
                Column("Step", lambda step: step.name, least=16, style="bold"),
                Column("State", lambda step: shown(step_text(step), palette.of(step.state.value)), least=16),
                Column("After", after_text, drop=2, style="quiet"),
                Column("Task", lambda step: step.task, drop=4),
                Column("Queue", lambda step: step.queue, least=6, drop=5),
                Column("Ended", lambda step: shown_distance(step.ended_at, now), least=8, drop=3),
                Column("Error", lambda step: first_line(step.error), drop=1, style="bad"),
            ],
            records=steps[self.position : end],
            key=lambda step: step.name,
            next=end if end < count else None,
            facts=self._facts(info),
            below=f"{count:,} steps, from {self.position + 1:,}   n next, p back" if count > STEPS_MAX else "",
        )

    def _facts(self, info: WorkflowInfo) -> Text:
        """Return the state of the workflow."""
        now, quiet = self.shared.now(), self.palette["quiet"]
        text = Text.assemble(shown(info.name or info.id, "bold"), "  ", end="")
        text.append(info.state.value, self.palette.of(info.state.value))
        counts = ", ".join(f"{count:,} {state}" for state, count in info.counts.items() if count)
        text.append(f"   {info.ended:,} of {info.total:,} steps ended{f' ({counts})' if counts else ''}\n", quiet)
        text.append_text(shown(f"id {info.id}   began {shown_moment(info.created_at, now=now)}", quiet))
        return text.append(f"   ended {shown_moment(info.ended_at, now=now)}" if info.ended_at else "", quiet)

    def open(self, record: StepInfo) -> None:
        """Show a step."""
        self.go("step", self.queue, self.workflow_id, record.name)

    def action_task(self) -> None:
        """Show the task of the selected step, or the members of a group."""
        step = self.chosen
        if step is not None and step.members is not None:
            self.open(step)
        elif step is not None:
            show_task(self, step)

    def action_change_cancel(self) -> None:
        """Cancel the workflow."""
        self.change(_cancel(self, self.queue, self.workflow_id))

    def action_change_retry(self) -> None:
        """Retry the failed steps."""
        self.change(_retry(self, self.queue, self.workflow_id))


class StepScreen(ListScreen[StepDetail, MemberRow]):
    """Shows one step of a workflow: its result, or the members of a group. The user can choose failed members only."""

    TOP = "workflows"
    HELP = (
        "A step of a workflow with its result, or a group with its members; left and right select all members or "
        "failed ones. Enter shows the task."
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("o", "task", "Task", tooltip="of the step or member")]

    def __init__(self, shared: DashState, queue: str, workflow_id: str, step: str) -> None:
        super().__init__(shared, False)
        self.queue, self.workflow_id, self.step = queue, workflow_id, step

    async def read(self) -> StepDetail:
        """Read the step and a page of its members."""
        return await self.shared.dashboard.workflow_step(
            self.queue,
            self.workflow_id,
            self.step,
            skip=self.position,
            count=min(MEMBERS_MAX, self.table.fits),
            only_failed=self.choice,
        )

    def draw(self, found: StepDetail) -> None:
        """Show the step, with a table only for a group."""
        super().draw(found)
        self.table.display = found.step.members is not None

    def page_of(self, found: StepDetail) -> Page[MemberRow]:
        """Return the members of a group, below the state and the result of the step."""
        step, below, empty = found.step, "", ""
        choices: Sequence[tuple[bool, Text]] = ()
        if step.members is not None:
            failed = Text(f"failed {step.failed:,}", self.palette["bad" if step.failed else "quiet"])
            choices = ((False, Text(f"members {step.members:,}")), (True, failed))
            below = self.page_text(step.members) if step.members else ""
            empty = "No member has failed." if self.choice else "It has no members yet."
        if self.choice:
            below = f"{len(found.members):,} of {count_of(step.failed, 'failed member')}"
        return Page(
            heading=f"step {self.step} of workflow {self.workflow_id}",
            columns=member_columns(hide=not self.shared.config.payloads),
            records=found.members,
            key=lambda member: str(member.number),
            next=None if self.choice else self.next_number(step.members or 0),
            facts=self._facts(found),
            choices=choices,
            below=below,
            empty=empty,
        )

    def open(self, record: MemberRow) -> None:
        """Show the task of a member."""
        show_task(self, record)

    def _facts(self, found: StepDetail) -> Text:
        """Return the state and the result of the step."""
        step, quiet = found.step, self.palette["quiet"]
        text = Text.assemble(shown(step.name, "bold"), "  ", end="")
        text.append_text(shown(step_text(step), self.palette.of(step.state.value)))
        text.append_text(shown(f"  after {after_text(step)}" if step.after else "", quiet))
        if step.members is None:
            where = f"task {step.task_id} of queue {step.queue}" if has_task(step) else "no task yet"
            text.append("\n").append_text(shown(f"{step.task}   {where}   (o shows it)", quiet))
        if step.error:
            text.append("\n").append_text(shown_lines(step.error, self.palette["bad"]))
        if found.result:
            text.append(f"\n\nResult, {shown_size(found.result_size)}\n", f"bold {quiet}")
            if not self.shared.config.payloads:
                return text.append("hidden", quiet)
            text.append_text(shown_lines(shown_bytes(found.result)))
            is_cut = found.result_size > len(found.result)
            text.append(f"\nThe first {len(found.result):,} bytes." if is_cut else "", quiet)
        return text

    def action_task(self) -> None:
        """Show the task of the step, or of the selected member."""
        if self.found is not None and self.found.step.members is None:
            show_task(self, self.found.step)
        elif self.chosen is not None:
            show_task(self, self.chosen)


def show_task(screen: DashScreen[Any], step: StepInfo | MemberRow) -> None:
    """Show the task of a step or member."""
    if has_task(step):
        screen.go("task", step.queue, step.task_id)
    else:
        screen.show_message(f"This step has no task, because it is {step.state}.", "warning")


def first_line(error: str) -> str:
    """Return the first line of an error."""
    return error.strip().partition("\n")[0]


async def _cancel(screen: DashScreen[Any], queue: str, workflow_id: str) -> None:
    """Cancel a workflow after a confirmation."""
    info = (await screen.shared.dashboard.workflow(queue, workflow_id)).graph.info
    if info.state is not WorkflowState.RUNNING:
        screen.show_message(cancelled(info, is_done=False), "warning")
    elif await screen.ask(cancel_question(info), "Cancel the workflow", is_destructive=True):
        is_done = await screen.shared.taskq.workflow(info.id, info.queue).acancel()
        screen.show_message(cancelled(info, is_done=is_done), "success" if is_done else "warning")


async def _retry(screen: DashScreen[Any], queue: str, workflow_id: str) -> None:
    """Retry the failed steps of a workflow after a confirmation."""
    detail = await screen.shared.dashboard.workflow(queue, workflow_id)
    info = detail.graph.info
    if not detail.can_be_retried:
        screen.show_message(retried(info, 0), "warning")
    elif await screen.ask(retry_question(detail), "Run again"):
        count = await screen.shared.taskq.workflow(info.id, info.queue).aretry()
        screen.show_message(retried(info, count), "success" if count else "warning")
