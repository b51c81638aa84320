"""Texts of errors of the core in the language of a page.

Errors that users see in normal work are translated. All other errors are in English, as in logs and in the reference.
"""

from taskq_core.errors import (
    DuplicateTaskError,
    EntryNotFoundError,
    QueueFullError,
    QueueNotEmptyError,
    QueueNotFoundError,
    QueueNotPausedError,
    QueuePausedError,
    TaskIdConflictError,
    TaskNotFoundError,
    TaskQError,
    TaskStateError,
    WorkerNotFoundError,
    WorkflowNotFoundError,
)
from taskq_core.settings.language import gettext, marked, pgettext

_TEXTS: dict[type[TaskQError], str] = {
    QueueNotFoundError: marked("no queue “%(queue)s”"),
    QueuePausedError: marked("queue “%(queue)s” is already paused"),
    QueueNotPausedError: marked("queue “%(queue)s” is not paused"),
    QueueNotEmptyError: marked(
        "queue “%(queue)s” was not deleted: %(active)s of its tasks are running, and %(waiting)s others would be lost"
    ),
    TaskNotFoundError: marked("no task “%(task_id)s”; succeeded tasks are stored only if they have a retention"),
    TaskStateError: marked("task “%(task_id)s” of queue “%(queue)s” is %(state)s, which does not allow it"),
    EntryNotFoundError: marked("no periodic entry “%(entry_id)s”"),
    WorkerNotFoundError: marked("no worker “%(worker)s”"),
    WorkflowNotFoundError: marked("no workflow “%(workflow_id)s” in queue “%(queue)s”, or no such step in it"),
    DuplicateTaskError: marked("“%(task)s” was not enqueued: task “%(existing_id)s” holds its unique lock"),
    TaskIdConflictError: marked("“%(task)s” was not enqueued: id “%(task_id)s” is taken in queue “%(queue)s”"),
    QueueFullError: marked("“%(task)s” was not enqueued: queue “%(queue)s” is full (%(limit)s tasks)"),
}


def error_text(error: TaskQError) -> str:
    """Return the text of an error in the current language."""
    text = next((_TEXTS[kind] for kind in type(error).__mro__ if kind in _TEXTS), "")
    translated = gettext(text) if text else text
    if translated == text:
        return str(error)
    facts = vars(error)
    return translated % {**facts, "state": pgettext("task state", str(facts.get("state", "")))}
