"""Change the payload of a task: show it as text, check what somebody types, ask, and save it if nobody else has."""

import json
from typing import Any

from taskq_core.cli.base import failure_text
from taskq_core.cli.terminal.dialogs import Edit, Question
from taskq_core.cli.terminal.screen import Look
from taskq_core.errors import PayloadError, TaskQError
from taskq_core.handles.records import TaskInfo
from taskq_core.views import as_text, edited_payload


async def edit_payload(look: Look[Any], task: TaskInfo) -> None:
    """Let somebody edit the payload of a task that is editable, then replace it.

    What does not fit the task, or is no JSON though the payload was, is said beside what was typed; so is why it could
    not be saved, as that somebody else has changed it. Who does not mean it after all is back at the text.
    """
    known = look.desk.taskq.tasks.get(task.name)
    text = _harmless(task.payload)
    if text is None:
        look.say("It holds characters that a terminal obeys, and is no JSON: edit it elsewhere.", "warning")
        return

    def wrong(text: str) -> str:
        try:
            edited_payload(task, text, known)
        except PayloadError as error:
            return f"{error.parameter}: {error.problem}" if error.parameter else error.problem
        return ""

    checked = "the parameters of the task" if known is not None else "JSON alone: the task is not registered here"
    answer, problem = text, ""
    while True:
        typed = await look.app.push_screen_wait(
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
            look.say("The payload is the same as before.", "warning")
            return
        sizes = f"{len(task.payload):,} bytes become {len(payload):,}"
        question = f"Replace the payload of the task “{task.id}” of the queue “{task.queue}”? {sizes}."
        if await look.ask(Question(text=question, button="Replace")):
            try:
                await look.desk.inspector.update_payload(task.queue, task.id, payload, expected=task.payload)
            except TaskQError as error:
                look.tell_failure(error)
                problem = failure_text(error)
            else:
                look.say("The payload was changed.")
                return


def _harmless(payload: bytes) -> str | None:
    """Return a payload as it is edited, with nothing in it that a terminal obeys: JSON may spell it out, others not.

    None for text that is no JSON and holds such characters.
    """
    text = as_text(payload)
    if all(line.isprintable() for line in text.replace("\r\n", "\n").replace("\t", " ").split("\n")):
        return text
    try:
        json.loads(payload)
    except (ValueError, RecursionError):
        return None
    # Between its strings JSON has nothing that could not be printed but tabs and ends of lines.
    return "".join(each if each.isprintable() or each in "\t\r\n" else json.dumps(each)[1:-1] for each in text)
