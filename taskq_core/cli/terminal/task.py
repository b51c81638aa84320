"""One task: all that is known of it, and what is done to it."""

import json
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.cli.render import shown_bytes, shown_distance, shown_moment, shown_size, shown_span
from taskq_core.cli.terminal.actions import act_on
from taskq_core.cli.terminal.editing import edit_payload
from taskq_core.cli.terminal.figures import gauge, shown, shown_lines
from taskq_core.cli.terminal.frames import TextLook
from taskq_core.cli.terminal.places import WorkflowPlace
from taskq_core.cli.terminal.poller import Desk
from taskq_core.handles.attempts import Attempt
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import ALLOWED_STATES, TaskAction, TaskRef, UnreadableTask
from taskq_core.views import (
    TaskRecord,
    as_text,
    is_editable,
    is_orphaned,
    times_of,
    trace_headers,
    trace_url,
    workflow_of,
)
from taskq_core.views.labels import not_stored
from taskq_core.views.messages import time_of

SHOWN_BYTES = 64 * 1024
"""Most bytes of a payload or result that are shown."""
LINES_MOST = 2000
"""Most lines of a payload or result that are drawn: a terminal takes its time for each."""
MESSAGE_BYTES = 4096
"""Most bytes of a message that cannot be read that are shown."""
_BAR = 30


class TaskLook(TextLook[TaskRecord]):
    """One task."""

    TOP = "tasks"
    ABOUT = (
        "All that Redis has of a task: its times, how far it is, its last error, its attempts with their tracebacks, "
        "what it returned, its payload and its headers. Times are UTC."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "change_task('run')", "Run", tooltip="Let the task run now"),
        Binding("t", "change_task('retry')", "Later", tooltip="Let the task wait until another time"),
        Binding("a", "change_task('archive')", "Archive", tooltip="Archive the task"),
        Binding("c", "change_task('cancel')", "Cancel", tooltip="Cancel the task, which runs"),
        Binding("e", "change_payload", "Edit", tooltip="Edit the payload of the task"),
        Binding("m", "change_task('move')", "Move", tooltip="Move the task to another queue"),
        Binding("d", "change_task('delete')", "Delete", tooltip="Delete the task"),
        Binding("w", "workflow", "Workflow", tooltip="Show the workflow that the task is a step of"),
        Binding("y", "copy", "Copy id", show=False, tooltip="Copy the id to the clipboard"),
    ]

    def __init__(self, desk: Desk, queue: str, task_id: str) -> None:
        super().__init__(desk)
        self.queue, self.task_id = queue, task_id
        self._shown = Text()

    @property
    def heading(self) -> str:
        """Which task it is."""
        return f"task {self.task_id} of queue {self.queue}"

    async def read(self) -> TaskRecord:
        """Read it."""
        return await self.desk.inspector.task(self.queue, self.task_id)

    def draw(self, found: TaskRecord) -> None:
        """Show it."""
        text = self._unreadable(found) if isinstance(found, UnreadableTask) else self._whole(found)
        if text != self._shown:
            self._shown = text
            self.query_one("#text", Static).update(text)
        self.refresh_bindings()

    # --- what is shown ------------------------------------------------------------------------------------------------

    def _whole(self, task: TaskInfo) -> Text:
        now, palette, see = self.desk.now(), self.desk.palette, self.desk.config.payloads
        text = Text.assemble(shown(task.name, "bold"), "  ", self.styled(task.state.value), end="")
        if is_orphaned(task, now):
            text.append("  ").append_text(self.styled("orphaned"))
        elif self.desk.is_cancelling(task.queue, task.id):
            text.append("  ").append_text(self.styled("cancelling"))
        text.append("\n\n")
        self._pairs(text, self._facts(task))
        if task.progress is not None:
            part = task.progress.fraction
            cells = 0 if part is None else round(_BAR * min(1.0, part))
            self._section(text, "Progress")
            if part is not None:
                text.append_text(gauge(palette, _BAR, (cells, palette.good))).append("  ")
            text.append(f"{task.progress.amount}")
            if task.progress.message and see:
                text.append("  ").append_text(shown(task.progress.message))
            text.append(f"  {shown_distance(task.progress.at, now)}\n", palette.quiet)
        times = times_of(task)
        if times:
            self._section(text, "Times (UTC)")
            for time in times:
                style = palette.quiet if time.at > now else ""
                text.append(f"{shown_moment(time.at, now=now):<34}  ", style).append(f"{time_of(time)}\n", style)
        if task.last_error:
            self._section(text, "Last error")
            text.append_text(shown_lines(task.last_error, palette.bad)).append("\n")
        if task.attempts:
            self._section(text, "Attempts, the latest first")
            for attempt in reversed(task.attempts):
                self._attempt(text, attempt)
        self._octets(text, "Result", task.result)
        if task.oversized_result is not None:
            self._section(text, "Result")
            text.append(not_stored(task.oversized_result), palette.bad).append("\n")
        self._octets(text, "Payload", task.payload)
        headers = self.desk.headers(task.headers)
        if headers:
            self._section(text, "Headers")
            self._pairs(text, {name: shown(value) for name, value in headers.items()})
        return text

    def _facts(self, task: TaskInfo) -> dict[str, Text]:
        known = self.desk.taskq.tasks.get(task.name)
        traced = trace_headers(task, () if known is None else known.codec.parameters)
        trace = trace_url(self.desk.taskq.settings.trace.url, traced)
        facts = {
            "id": shown(task.id),
            "queue": shown(task.queue),
            "retried": shown(f"{task.retried} of {task.max_retry}"),
            "priority": shown(str(task.priority)) if task.priority else None,
            "group": shown(task.group) if task.group else None,
            "timeout": shown(shown_span(task.timeout)) if task.timeout else None,
            "kept after success": shown(shown_span(task.retention)) if task.retention else None,
            "waits for": shown(f"the limit {task.limit}" if task.limit else "a limit")
            if task.waits_for_limit
            else None,
            "worker": shown(task.worker) if task.worker else None,
            "workflow": self._workflow(task),
            "trace": shown(trace, self.desk.palette.link) if trace else None,
        }
        return {name: text for name, text in facts.items() if text is not None}

    def _workflow(self, task: TaskInfo) -> Text | None:
        home = workflow_of(task)
        return None if home is None else shown(f"{home[1]} of queue {home[0]}  (w shows it)", self.desk.palette.link)

    def _attempt(self, text: Text, attempt: Attempt) -> None:
        took = ""
        if attempt.started_at and attempt.ended_at:
            took = f"  took {shown_span(attempt.ended_at - attempt.started_at)}"
        text.append(f"{attempt.number}  {shown_moment(attempt.started_at)}{took}  ", "bold")
        text.append_text(shown(attempt.error or "succeeded", self.desk.palette.bad if attempt.error else ""))
        text.append("\n")
        if attempt.traceback and self.desk.config.payloads:
            text.append_text(shown_lines(attempt.traceback.rstrip(), self.desk.palette.quiet)).append("\n")

    def _octets(self, text: Text, title: str, data: bytes) -> None:
        if not data:
            return
        self._section(text, f"{title}, {shown_size(len(data))}")
        if not self.desk.config.payloads:
            text.append("hidden\n", self.desk.palette.quiet)
            return
        text.append_text(shown_lines(_laid_out(data[:SHOWN_BYTES]))).append("\n")
        if len(data) > SHOWN_BYTES:
            text.append(f"The first {SHOWN_BYTES:,} of {len(data):,} bytes.\n", self.desk.palette.quiet)

    def _unreadable(self, task: UnreadableTask) -> Text:
        text = Text.assemble(
            shown(task.problem, self.desk.palette.bad), "  ", self.styled(task.state.value), "\n\n", end=""
        )
        self._pairs(text, {"id": shown(task.id), "queue": shown(task.queue)})
        if task.message and self.desk.config.payloads:
            self._section(text, f"Message, {shown_size(len(task.message))}")
            text.append(task.message[:MESSAGE_BYTES].hex(" ", -2)).append("\n")
        return text

    def _section(self, text: Text, title: str) -> None:
        text.append(f"\n{title}\n", f"bold {self.desk.palette.quiet}")

    def _pairs(self, text: Text, pairs: dict[str, Text]) -> None:
        width = max((len(name) for name in pairs), default=0)
        for name, value in pairs.items():
            text.append_text(shown(f"{name:<{width}}  ", self.desk.palette.quiet)).append_text(value).append("\n")

    # --- what is done -------------------------------------------------------------------------------------------------

    def action_copy(self) -> None:
        """Copy the id, where the terminal lets that be done."""
        self.app.copy_to_clipboard(self.task_id)
        self.say("The id is on the clipboard, if this terminal allows it.")

    def action_workflow(self) -> None:
        """Show the workflow that the task is a step of."""
        home = workflow_of(self.found) if isinstance(self.found, TaskInfo) else None
        if home is not None:
            self.go(WorkflowPlace(*home))

    def action_change_task(self, word: str) -> None:
        """Do something to the task."""
        if self.found is not None:
            self.change(self._act(TaskAction(word), TaskRef(self.queue, self.task_id, self.found.state)))

    def action_change_payload(self) -> None:
        """Edit the payload."""
        if isinstance(self.found, TaskInfo):
            self.change(edit_payload(self, self.found))

    async def _act(self, action: TaskAction, ref: TaskRef) -> None:
        report = await act_on(self, [ref], action)
        if report is not None and report.done and action in (TaskAction.DELETE, TaskAction.MOVE):
            self.left()

    def left(self) -> None:
        """Go back to where it was listed, unless that was left already: it is not here any more."""
        if self.app.screen is self:
            told = self.said
            self.app.pop_screen()
            self.say(told)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done in its state, and its workflow if it has one."""
        if action == "workflow":
            return isinstance(self.found, TaskInfo) and workflow_of(self.found) is not None
        if action == "change_payload" and not (
            self.desk.config.payloads and self.found is not None and is_editable(self.found)
        ):
            return False
        if action == "change_task" and self.found is not None:
            states = ALLOWED_STATES[TaskAction(str(parameters[0]))]
            return self.found.state in states and super().check_action(action, parameters)
        return super().check_action(action, parameters)


def _laid_out(data: bytes) -> str:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return shown_bytes(data)
    lines = as_text(data).splitlines()
    if len(lines) > LINES_MOST:
        lines[LINES_MOST:] = [f"… {len(lines) - LINES_MOST:,} more lines"]
    return "\n".join(lines)
