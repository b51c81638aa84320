"""One task: all its facts, and the actions on it."""

import json
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from taskq_core import TaskInfo, TaskState
from taskq_core.cli.plugin import shown_bytes, shown_moment, shown_size, shown_span, task_facts
from taskq_core.inspector import ALLOWED_STATES, TaskAction, TaskRef, UnreadableTask
from taskq_core.views import LIMITS_HEADER as LIMITS
from taskq_core.views import Attempt, TaskRecord, as_text, trace_url, workflow_of
from taskq_core.views.labels import error_heading, not_stored
from taskq_terminal.actions import act_on
from taskq_terminal.figures import shown, shown_lines
from taskq_terminal.frames import TextScreen
from taskq_terminal.state import DashState

SHOWN_BYTES = 64 * 1024
"""Maximum number of bytes of a payload or result on the screen."""
LINES_MAX = 2000
"""Maximum number of lines of a payload or result on the screen. More lines would be slow to draw."""
MESSAGE_BYTES = 4096
"""Maximum number of bytes of an unreadable message on the screen."""


class TaskScreen(TextScreen[TaskRecord]):
    """One task."""

    TOP = "tasks"
    HELP = (
        "Everything that is stored about a task: times, progress, last error, attempts with their tracebacks, result, "
        "payload and headers. Times are UTC."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "change_task('run')", "Run", tooltip="the task now"),
        Binding("t", "change_task('retry')", "Later", tooltip="the task is retried"),
        Binding("a", "change_task('archive')", "Archive", tooltip="the task"),
        Binding("c", "change_task('cancel')", "Cancel", tooltip="the running task"),
        Binding("m", "change_task('move')", "Move", tooltip="the task to another queue"),
        Binding("d", "change_task('delete')", "Delete", tooltip="the task"),
        Binding("w", "workflow", "Workflow", tooltip="of the task"),
        Binding("y", "copy", "Copy id", show=False, tooltip="to the clipboard"),
    ]

    def __init__(self, shared: DashState, queue: str, task_id: str) -> None:
        super().__init__(shared)
        self.queue, self.task_id = queue, task_id
        self._hide = not shared.config.payloads

    @property
    def heading(self) -> str:
        """The title."""
        return f"task {self.task_id} of queue {self.queue}"

    async def read(self) -> TaskRecord:
        """Read the task."""
        return await self.shared.inspector.task(self.queue, self.task_id)

    # --- facts --------------------------------------------------------------------------------------------------------

    def text(self, found: TaskRecord) -> Text:
        """Return all facts."""
        text = Text(end="")
        if isinstance(found, UnreadableTask):
            self.pairs(text, {"queue": found.queue, "id": found.id, "state": found.state.value})
            text.append_text(shown(found.problem, self.palette["bad"])).append("\n")
            if found.message and not self._hide:
                self.section(text, f"Message, {shown_size(len(found.message))}")
                text.append(found.message[:MESSAGE_BYTES].hex(" ", -2)).append("\n")
            return text
        self.pairs(text, {**task_facts(found, self.shared.now(), hide=self._hide), **self._links(found)})
        style = self.palette["quiet" if found.state is TaskState.COMPLETED else "bad"]  # of errors
        if found.last_error:
            self.section(text, error_heading(found))
            text.append_text(shown_lines(found.last_error, style)).append("\n")
        if found.attempts:
            self.section(text, "Attempts, the latest first")
            for attempt in reversed(found.attempts):
                self._attempt(text, attempt, style)
        self._octets(text, "Result", found.result)
        if found.oversized_result is not None:
            self.section(text, "Result")
            text.append(not_stored(found.oversized_result), self.palette["bad"]).append("\n")
        self._octets(text, "Payload", found.payload)
        # The header of limits contains arguments of the task. So it is hidden together with the payload.
        headers = {name: value for name, value in sorted(found.headers.items()) if not self._hide or name != LIMITS}
        if headers:
            self.section(text, "Headers")
            self.pairs(text, headers)
        return text

    def _links(self, task: TaskInfo) -> dict[str, str]:
        home = workflow_of(task)
        trace = trace_url(self.shared.taskq.settings.trace.url, task.headers)
        return {
            **({} if home is None else {"workflow": f"{home[1]} of queue {home[0]}  (w shows it)"}),
            **({"trace": trace} if trace else {}),
        }

    def _attempt(self, text: Text, attempt: Attempt, error_style: str) -> None:
        took = ""
        if attempt.started_at and attempt.ended_at:
            took = f"  took {shown_span(attempt.ended_at - attempt.started_at)}"
        text.append(f"{attempt.number}  {shown_moment(attempt.started_at)}{took}  ", "bold")
        text.append_text(shown(attempt.error or "succeeded", error_style if attempt.error else ""))
        text.append("\n")
        if attempt.traceback and not self._hide:
            text.append_text(shown_lines(attempt.traceback.rstrip(), self.palette["quiet"])).append("\n")

    def _octets(self, text: Text, title: str, data: bytes) -> None:
        if not data:
            return
        self.section(text, f"{title}, {shown_size(len(data))}")
        if self._hide:
            text.append("hidden\n", self.palette["quiet"])
            return
        text.append_text(shown_lines(_laid_out(data[:SHOWN_BYTES]))).append("\n")
        if len(data) > SHOWN_BYTES:
            text.append(f"The first {SHOWN_BYTES:,} of {len(data):,} bytes.\n", self.palette["quiet"])

    # --- actions ------------------------------------------------------------------------------------------------------

    def action_copy(self) -> None:
        """Copy the id of the task to the clipboard, if the terminal allows it."""
        self.app.copy_to_clipboard(self.task_id)
        self.show_message("The id is on the clipboard, if this terminal allows it.")

    def action_workflow(self) -> None:
        """Show the workflow of the task."""
        home = workflow_of(self.found) if isinstance(self.found, TaskInfo) else None
        if home is not None:
            self.go("workflow", *home)

    def action_change_task(self, word: str) -> None:
        """Run an action on the task."""
        if self.found is not None:
            self.change(self._act(TaskAction(word), TaskRef.of(self.found)))

    async def _act(self, action: TaskAction, ref: TaskRef) -> None:
        report = await act_on(self, [ref], action)
        is_gone = report is not None and report.done and action in (TaskAction.DELETE, TaskAction.MOVE)
        if is_gone and self.app.screen is self:  # the task was deleted or moved, so close its screen
            said = str(self.query_one("#notice").render())
            self.app.pop_screen()
            self.show_message(said)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the keys of actions that the state allows, and the key for the workflow if the task is a step."""
        if action == "workflow":
            return isinstance(self.found, TaskInfo) and workflow_of(self.found) is not None
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
    if len(lines) > LINES_MAX:
        lines[LINES_MAX:] = [f"… {len(lines) - LINES_MAX:,} more lines"]
    return "\n".join(lines)
