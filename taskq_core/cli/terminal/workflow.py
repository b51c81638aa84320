"""One workflow with its steps as a tree, and one step with its result or its members; cancel and retry."""

from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.cli.render import shown_bytes, shown_distance, shown_moment, shown_size
from taskq_core.cli.terminal.dialogs import Question
from taskq_core.cli.terminal.figures import page_words, shown, shown_lines
from taskq_core.cli.terminal.poller import Poller
from taskq_core.cli.terminal.screen import DashScreen
from taskq_core.cli.terminal.table import Column, Records, Row, page_keys
from taskq_core.views import MemberRow, StepDetail, WorkflowDetail, has_task
from taskq_core.views.labels import step_state
from taskq_core.views.messages import cancel_question, cancelled, retried, retry_question, step_stands
from taskq_core.views.step_tree import StepLine, step_tree
from taskq_core.workflow import StepInfo, WorkflowInfo, WorkflowState

_STEPS = (
    Column(title="Step", least=16, most=60),
    Column(title="State", least=24),
    Column(title="Task", least=10, most=32),
    Column(title="Queue", least=6, most=20, drop=3),
    Column(title="Ended", least=8, drop=2),
    Column(title="Error", least=10, drop=1, grows=True),
)
_MEMBERS = (
    Column(title="Member", right=True),
    Column(title="State", least=9),
    Column(title="Task", least=10, most=44),
    Column(title="Queue", least=6, most=20, drop=1),
    Column(title="Error or result", least=12, grows=True),
)
_RAIL, _NO_RAIL, _BRANCH, _LAST_BRANCH = "│  ", "   ", "├─ ", "└─ "
_RAILS_MAX = 8
"""Most levels of indentation."""


CHANGE_KEYS = (
    Binding("r", "change_retry", "Retry", tooltip="Retry the failed steps of the workflow"),
    Binding("c", "change_cancel", "Cancel", tooltip="Cancel the workflow"),
)


class WorkflowScreen(DashScreen[WorkflowDetail]):
    """One workflow, its steps as a tree."""

    TOP = "workflows"
    ABOUT = (
        "The steps of a workflow, each below the steps that it depends on. Enter shows the result of a step, or the "
        "members of a group; o shows its task."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "task", "Task", tooltip="Show the task of the step"),
        *CHANGE_KEYS,
        *page_keys(show=False),
    ]
    PAGE = 500
    """Most steps on a page."""

    def __init__(self, poller: Poller, queue: str, workflow_id: str) -> None:
        super().__init__(poller)
        self.queue, self.workflow_id = queue, workflow_id
        self._page = 0

    def body(self) -> ComposeResult:
        """Return facts and tree."""
        yield Static(id="facts", classes="facts")
        yield Records(id="table")
        yield Static(id="pages", classes="line quiet")

    @property
    def heading(self) -> str:
        """The title."""
        name = "" if self.found is None else self.found.graph.info.name
        return f"workflow {name or self.workflow_id} of queue {self.queue}"

    async def read(self) -> WorkflowDetail:
        """Read the workflow."""
        return await self.poller.dashboard.workflow(self.queue, self.workflow_id)

    def draw(self, found: WorkflowDetail) -> None:
        """Show facts and table."""
        self.query_one("#facts", Static).update(self._facts(found.graph.info))
        lines = step_tree(found.graph)
        pages = max(1, -(-len(lines) // self.PAGE))
        self._page = min(self._page, pages - 1)
        part = lines[self._page * self.PAGE : (self._page + 1) * self.PAGE]
        self.query_one(Records).fill(_STEPS, [Row(line.step.name, self._cells(line)) for line in part])
        paging = self.query_one("#pages", Static)
        paging.display = pages > 1
        where = page_words(self._page * self.PAGE, self.PAGE, len(lines))
        paging.update(Text(f"{where}   {len(lines):,} steps   n next, p back"))

    def _facts(self, info: WorkflowInfo) -> Text:
        now, palette = self.poller.now(), self.poller.palette
        text = Text.assemble(shown(info.name or info.id, "bold"), "  ", self.styled(info.state.value), end="")
        text.append(f"   {info.ended:,} of {info.total:,} steps ended", palette.quiet)
        counts = ", ".join(f"{count:,} {state}" for state, count in info.counts.items() if count)
        text.append(f" ({counts})\n" if counts else "\n", palette.quiet)
        text.append_text(shown(f"id {info.id}   began {shown_moment(info.created_at, now=now)}", palette.quiet))
        if info.ended_at is not None:
            text.append(f"   ended {shown_moment(info.ended_at, now=now)}", palette.quiet)
        return text

    def _cells(self, line: StepLine) -> list[Text]:
        step, palette = line.step, self.poller.palette
        rails = line.rails[:_RAILS_MAX]
        name = Text(end="")
        for number, goes_on in enumerate(rails):
            is_own = line.is_branch and number == len(rails) - 1
            mark = (_BRANCH if goes_on else _LAST_BRANCH) if is_own else _RAIL if goes_on else _NO_RAIL
            name.append(mark, palette.quiet)
        name.append_text(shown(step.name, "bold"))
        name.append_text(self.quiet(_after(step)))
        state = shown(step_stands(step), palette.of(step.state.value))
        return [
            name,
            state,
            shown(step.task),
            shown(step.queue),
            shown(shown_distance(step.ended_at, self.poller.now())),
            self.first_line(step.error),
        ]

    @property
    def chosen(self) -> StepInfo | None:
        """The selected step."""
        key = self.query_one(Records).current
        steps = () if self.found is None else self.found.graph.steps
        return next((step for step in steps if step.name == key), None)

    def on_data_table_row_selected(self) -> None:
        """Show the selected step."""
        step = self.chosen
        if step is not None:
            self.go("step", self.queue, self.workflow_id, step.name)

    def action_task(self) -> None:
        """Show the task of the selected step."""
        step = self.chosen
        if step is None:
            return
        if step.members is not None:
            self.go("step", self.queue, self.workflow_id, step.name)
        elif has_task(step):
            self.go("task", step.queue, step.task_id)
        else:
            self.say(f"The step “{step.name}” has no task: it is {step.state}.", "warning")

    def action_page(self, by: int) -> None:
        """Show the next or previous page."""
        self._page = max(0, self._page + by)
        self.redraw()

    def action_change_cancel(self) -> None:
        """Cancel the workflow."""
        self.change(cancel(self, self.queue, self.workflow_id))

    def action_change_retry(self) -> None:
        """Retry the failed steps."""
        self.change(retry(self, self.queue, self.workflow_id))


class StepScreen(DashScreen[StepDetail]):
    """One step of a workflow: its result, or the members of a group."""

    TOP = "workflows"
    ABOUT = (
        "A step of a workflow with its result, or a group with its members; f shows only failed members. Enter shows "
        "the task."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "task", "Task", tooltip="Show the task of the step, or of the selected member"),
        Binding("f", "failed", "Failed", tooltip="Show only failed members, or all"),
        *page_keys(),
    ]

    def __init__(self, poller: Poller, queue: str, workflow_id: str, step: str) -> None:
        super().__init__(poller)
        self.queue, self.workflow_id, self.step = queue, workflow_id, step
        self.only_failed = False
        self._skip = 0

    def body(self) -> ComposeResult:
        """Return facts and members."""
        yield Static(id="facts", classes="facts")
        yield Records(id="table")
        yield Static(classes="empty", id="empty")
        yield Static(id="pages", classes="line quiet")

    @property
    def heading(self) -> str:
        """The title."""
        return f"step {self.step} of workflow {self.workflow_id}"

    async def read(self) -> StepDetail:
        """Read the step and a page of its members."""
        return await self.poller.dashboard.workflow_step(
            self.queue,
            self.workflow_id,
            self.step,
            skip=0 if self.only_failed else self._skip,
            count=min(500, self.query_one(Records).fits),
            only_failed=self.only_failed,
        )

    def draw(self, found: StepDetail) -> None:
        """Show facts and table."""
        step, members = found.step, found.members
        self.query_one("#facts", Static).update(self._facts(found))
        table, empty = self.query_one(Records), self.query_one("#empty", Static)
        table.fill(_MEMBERS, [Row(str(each.number), self._cells(each)) for each in members])
        is_group = step.members is not None
        table.display, empty.display = is_group and bool(members), is_group and not members
        empty.update("No member has failed." if self.only_failed else "It has no members yet.")
        pages = self.query_one("#pages", Static)
        pages.display = is_group
        if step.members is not None:
            pages.update(Text(self._pages(len(members), step)))
        self.refresh_bindings()

    def _pages(self, count: int, step: StepInfo) -> str:
        if self.only_failed:
            return f"{count:,} of {step.failed:,} failed members   f shows all"
        fits = min(500, self.query_one(Records).fits)
        members = step.members or 0
        return f"{page_words(self._skip, fits, members)}   {members:,} members"

    def _facts(self, found: StepDetail) -> Text:
        step, palette = found.step, self.poller.palette
        text = Text.assemble(
            shown(step.name, "bold"), "  ", shown(step_stands(step), palette.of(step.state.value)), end=""
        )
        text.append_text(self.quiet(_after(step) if step.after else "")).append("\n")
        if step.members is None:
            where = f"task {step.task_id} of queue {step.queue}" if has_task(step) else "no task yet"
            text.append_text(shown(f"{step.task}   {where}   (o shows it)", palette.quiet)).append("\n")
        if step.error:
            text.append_text(shown_lines(step.error, palette.bad)).append("\n")
        if found.result:
            text.append(f"\nResult, {shown_size(found.result_size)}\n", f"bold {palette.quiet}")
            if self.poller.config.payloads:
                text.append_text(shown_lines(shown_bytes(found.result)))
                cut = found.result_size > len(found.result)
                text.append(f"\nThe first {len(found.result):,} bytes." if cut else "", palette.quiet)
            else:
                text.append("hidden", palette.quiet)
        return text

    def _cells(self, member: MemberRow) -> list[Text]:
        if member.error:
            told = self.first_line(member.error)
        elif self.poller.config.payloads:
            told = self.quiet(shown_bytes(member.result[:800], most=200))
        else:
            told = self.quiet("hidden" if member.result else "")
        return [
            shown(str(member.number)),
            shown(step_state(member), self.poller.palette.of(member.state.value)),
            shown(member.task_id, "bold"),
            shown(member.queue),
            told,
        ]

    def action_failed(self) -> None:
        """Show only failed members, or all."""
        self.only_failed = not self.only_failed
        self._skip = 0
        self.turn()

    def on_records_refit(self) -> None:
        """Read as many members as fit."""
        self.turn()

    def action_page(self, by: int) -> None:
        """Show the next or previous page."""
        if self.found is None or self.only_failed:
            return
        skip = self._skip + by * min(500, self.query_one(Records).fits)
        if 0 <= skip < max(1, self.found.step.members or 0):
            self._skip = skip
            self.turn()

    def on_data_table_row_selected(self) -> None:
        """Show the task of the selected member."""
        self.action_task()

    def action_task(self) -> None:
        """Show the task of the step, or of the selected member."""
        if self.found is None:
            return
        each: StepInfo | MemberRow | None = self.found.step
        if self.found.step.members is not None:
            key = self.query_one(Records).current
            each = next((member for member in self.found.members if str(member.number) == key), None)
        if each is not None and has_task(each):
            self.go("task", each.queue, each.task_id)
        elif each is not None:
            self.say(f"It has no task: it is {each.state}.", "warning")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the keys of groups only for groups."""
        if action in ("failed", "page") and (self.found is None or self.found.step.members is None):
            return False
        return super().check_action(action, parameters)


async def cancel(screen: DashScreen[Any], queue: str, workflow_id: str) -> None:
    """Cancel a workflow after a confirmation."""
    info = (await screen.poller.dashboard.workflow(queue, workflow_id)).graph.info
    if info.state is not WorkflowState.RUNNING:
        screen.say(cancelled(info, is_done=False), "warning")
        return
    if await screen.ask(Question(text=cancel_question(info), button="Cancel the workflow", is_destructive=True)):
        is_done = await screen.poller.taskq.workflow(info.id, info.queue).acancel()
        screen.say(cancelled(info, is_done=is_done), "success" if is_done else "warning")


async def retry(screen: DashScreen[Any], queue: str, workflow_id: str) -> None:
    """Retry the failed steps of a workflow after a confirmation."""
    detail = await screen.poller.dashboard.workflow(queue, workflow_id)
    info = detail.graph.info
    if not detail.can_be_retried:
        screen.say(retried(info, 0), "warning")
        return
    if await screen.ask(Question(text=retry_question(detail), button="Run again")):
        count = await screen.poller.taskq.workflow(info.id, info.queue).aretry()
        screen.say(retried(info, count), "success" if count else "warning")


def _after(step: StepInfo) -> str:
    """Return when a step runs, unless it simply follows the success of one step."""
    whens = [name if when == "success" else f"{when} of {name}" for name, when in step.after.items()]
    is_plain = len(whens) == 1 and set(step.after.values()) == {"success"}
    return "" if is_plain or not whens else f"  after {', '.join(whens)}"
