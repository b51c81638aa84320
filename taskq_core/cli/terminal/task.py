"""One task: all its facts, and the actions on it."""

import json
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.cli.render import shown_bytes, shown_distance, shown_moment, shown_size, shown_span
from taskq_core.cli.terminal.actions import act_on
from taskq_core.cli.terminal.editing import edit_payload
from taskq_core.cli.terminal.figures import gauge, shown, shown_lines
from taskq_core.cli.terminal.frames import TextScreen
from taskq_core.cli.terminal.poller import Poller
from taskq_core.handles.attempts import Attempt
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import ALLOWED_STATES, TaskAction, TaskRef, UnreadableTask
from taskq_core.views import (
    TaskRecord,
    as_text,
    is_editable,
    is_orphaned,
    times_of,
    trace_url,
    workflow_of,
)
from taskq_core.views.labels import not_stored, time_text

SHOWN_BYTES = 64 * 1024
"""Most bytes of a payload or result that are shown."""
LINES_MAX = 2000
"""Most lines of a payload or result that are shown. Drawing is slow."""
MESSAGE_BYTES = 4096
"""Most bytes of an unreadable message that are shown."""
_BAR = 30


class TaskScreen(TextScreen[TaskRecord]):
    """One task."""

    TOP = "tasks"
    ABOUT = (
        "Everything that is stored about a task: times, progress, last error, attempts with their tracebacks, result, "
        "payload and headers. Times are UTC."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "change_task('run')", "Run", tooltip="Run the task now"),
        Binding("t", "change_task('retry')", "Later", tooltip="Retry the task later"),
        Binding("a", "change_task('archive')", "Archive", tooltip="Archive the task"),
        Binding("c", "change_task('cancel')", "Cancel", tooltip="Cancel the running task"),
        Binding("e", "change_payload", "Edit", tooltip="Edit the payload of the task"),
        Binding("m", "change_task('move')", "Move", tooltip="Move the task to another queue"),
        Binding("d", "change_task('delete')", "Delete", tooltip="Delete the task"),
        Binding("w", "workflow", "Workflow", tooltip="Show the workflow of the task"),
        Binding("y", "copy", "Copy id", show=False, tooltip="Copy the id to the clipboard"),
    ]

    def __init__(self, poller: Poller, queue: str, task_id: str) -> None:
        super().__init__(poller)
        self.queue, self.task_id = queue, task_id
        self._shown = Text()

    @property
    def heading(self) -> str:
        """The title."""
        return f"task {self.task_id} of queue {self.queue}"

    async def read(self) -> TaskRecord:
        """Read the task."""
        return await self.poller.inspector.task(self.queue, self.task_id)

    def draw(self, found: TaskRecord) -> None:
        """Show all facts."""
        text = self._unreadable(found) if isinstance(found, UnreadableTask) else self._whole(found)
        if text != self._shown:
            self._shown = text
            self.query_one("#text", Static).update(text)
        self.refresh_bindings()

    # --- facts --------------------------------------------------------------------------------------------------------

    def _whole(self, task: TaskInfo) -> Text:
        now, palette, see = self.poller.now(), self.poller.palette, self.poller.config.payloads
        text = Text.assemble(shown(task.name, "bold"), "  ", self.styled(task.state.value), end="")
        if is_orphaned(task, now):
            text.append("  ").append_text(self.styled("orphaned"))
        elif self.poller.is_cancelling(task.queue, task.id):
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
                at, label = shown_moment(time.at, now=now), time_text(time.kind, time.attempt)
                text.append(f"{at:<34}  {label}\n", style)
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
        headers = self.poller.headers(task.headers)
        if headers:
            self._section(text, "Headers")
            self._pairs(text, {name: shown(value) for name, value in headers.items()})
        return text

    def _facts(self, task: TaskInfo) -> dict[str, Text]:
        trace = trace_url(self.poller.taskq.settings.trace.url, task.headers)
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
            "trace": shown(trace, self.poller.palette.link) if trace else None,
        }
        return {name: text for name, text in facts.items() if text is not None}

    def _workflow(self, task: TaskInfo) -> Text | None:
        home = workflow_of(task)
        return None if home is None else shown(f"{home[1]} of queue {home[0]}  (w shows it)", self.poller.palette.link)

    def _attempt(self, text: Text, attempt: Attempt) -> None:
        took = ""
        if attempt.started_at and attempt.ended_at:
            took = f"  took {shown_span(attempt.ended_at - attempt.started_at)}"
        text.append(f"{attempt.number}  {shown_moment(attempt.started_at)}{took}  ", "bold")
        text.append_text(shown(attempt.error or "succeeded", self.poller.palette.bad if attempt.error else ""))
        text.append("\n")
        if attempt.traceback and self.poller.config.payloads:
            text.append_text(shown_lines(attempt.traceback.rstrip(), self.poller.palette.quiet)).append("\n")

    def _octets(self, text: Text, title: str, data: bytes) -> None:
        if not data:
            return
        self._section(text, f"{title}, {shown_size(len(data))}")
        if not self.poller.config.payloads:
            text.append("hidden\n", self.poller.palette.quiet)
            return
        text.append_text(shown_lines(_laid_out(data[:SHOWN_BYTES]))).append("\n")
        if len(data) > SHOWN_BYTES:
            text.append(f"The first {SHOWN_BYTES:,} of {len(data):,} bytes.\n", self.poller.palette.quiet)

    def _unreadable(self, task: UnreadableTask) -> Text:
        text = Text.assemble(
            shown(task.problem, self.poller.palette.bad), "  ", self.styled(task.state.value), "\n\n", end=""
        )
        self._pairs(text, {"id": shown(task.id), "queue": shown(task.queue)})
        if task.message and self.poller.config.payloads:
            self._section(text, f"Message, {shown_size(len(task.message))}")
            text.append(task.message[:MESSAGE_BYTES].hex(" ", -2)).append("\n")
        return text

    def _section(self, text: Text, title: str) -> None:
        text.append(f"\n{title}\n", f"bold {self.poller.palette.quiet}")

    def _pairs(self, text: Text, pairs: dict[str, Text]) -> None:
        width = max((len(name) for name in pairs), default=0)
        for name, value in pairs.items():
            text.append_text(shown(f"{name:<{width}}  ", self.poller.palette.quiet)).append_text(value).append("\n")

    # --- actions ------------------------------------------------------------------------------------------------------

    def action_copy(self) -> None:
        """Copy the id, if the terminal allows it."""
        self.app.copy_to_clipboard(self.task_id)
        self.say("The id is on the clipboard, if this terminal allows it.")

    def action_workflow(self) -> None:
        """Show the workflow of the task."""
        home = workflow_of(self.found) if isinstance(self.found, TaskInfo) else None
        if home is not None:
            self.go("workflow", *home)

    def action_change_task(self, word: str) -> None:
        """Run an action on the task."""
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
        """Go back to the list, because the task is not in this queue any more."""
        if self.app.screen is self:
            said = self.said
            self.app.pop_screen()
            self.say(said)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the actions that fit the state, and the workflow if there is one."""
        if action == "workflow":
            return isinstance(self.found, TaskInfo) and workflow_of(self.found) is not None
        if action == "change_payload" and not (
            self.poller.config.payloads and self.found is not None and is_editable(self.found)
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
    if len(lines) > LINES_MAX:
        lines[LINES_MAX:] = [f"… {len(lines) - LINES_MAX:,} more lines"]
    return "\n".join(lines)
