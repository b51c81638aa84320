"""Edit the payload of a task: check the text, ask, and save it unless the payload has changed."""

import json
from typing import Any

from taskq_core.cli.base import failure_text
from taskq_core.cli.terminal.dialogs import Edit, Question
from taskq_core.cli.terminal.screen import DashScreen
from taskq_core.errors import PayloadError, TaskQError
from taskq_core.handles.records import TaskInfo
from taskq_core.views import as_text, edited_payload


async def edit_payload(screen: DashScreen[Any], task: TaskInfo) -> None:
    """Edit and replace the payload of an editable task.

    Errors are shown beside the text: arguments that do not fit the task, invalid JSON, or why saving failed, for
    example because the payload has changed. If the user does not confirm, the editor opens again.
    """
    known = screen.poller.taskq.tasks.get(task.name)
    text = _harmless(task.payload)
    if text is None:
        screen.say("It contains control characters and is not JSON, so it cannot be edited here.", "warning")
        return

    def wrong(text: str) -> str:
        try:
            edited_payload(task, text, known)
        except PayloadError as error:
            return f"{error.parameter}: {error.problem}" if error.parameter else error.problem
        return ""

    checked = (
        "the parameters of the task" if known is not None else "JSON only, because the task is not registered here"
    )
    answer, problem = text, ""
    while True:
        typed = await screen.app.push_screen_wait(
            Edit(
                f"The payload of “{task.id}”",
                text,
                hint=f"Ctrl-S checks it against {checked}.",
                check=wrong,
                typed=answer,
                problem=problem,
            )
        )
        if typed is None:
            return
        answer, problem = typed, ""
        payload = task.payload if answer == text else edited_payload(task, answer, known)
        if payload == task.payload:
            screen.say("The payload has not changed.", "warning")
            return
        sizes = f"{len(task.payload):,} bytes become {len(payload):,}"
        question = f"Replace the payload of the task “{task.id}” of the queue “{task.queue}”? {sizes}."
        if await screen.ask(Question(text=question, button="Replace")):
            try:
                await screen.poller.inspector.update_payload(task.queue, task.id, payload, expected=task.payload)
            except TaskQError as error:
                screen.show_failure(error)
                problem = failure_text(error)
            else:
                screen.say("The payload was changed.")
                return


def _harmless(payload: bytes) -> str | None:
    """Return a payload as text without control characters, which JSON can escape.

    Return None for a payload with control characters that is not JSON.
    """
    text = as_text(payload)
    if all(line.isprintable() for line in text.replace("\r\n", "\n").replace("\t", " ").split("\n")):
        return text
    try:
        json.loads(payload)
    except (ValueError, RecursionError):
        return None
    # Outside of strings, the only control characters in JSON are tabs and line breaks.
    return "".join(each if each.isprintable() or each in "\t\r\n" else json.dumps(each)[1:-1] for each in text)
