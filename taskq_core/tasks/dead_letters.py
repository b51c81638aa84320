"""What is done about tasks that were archived: functions that are told, and tasks that are enqueued in their place.

That a task is to be told of is noted in Redis in the same step that archives it, so no crash loses the one without the
other, whoever archives it: the worker that ran it, or the one that took it back from a worker that was lost. See
`taskq_core.worker.dead_letters` for the rest.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from taskq_core.errors import TaskDefinitionError
from taskq_core.handles.records import TaskInfo
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.tasks.functions import function_name
from taskq_core.tasks.handlers import check_callable
from taskq_core.wire import DEAD_LETTER, MAX_NAME_BYTES


class ArchiveHandler:
    """A function that is told of archived tasks.

    Attributes:
        name: Where it was written, for logs.
        function: The function itself.
        is_coroutine: True for a coroutine function.

    Raises:
        TaskDefinitionError: The function cannot take a task.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        check_callable("a handler of archived tasks", function)
        try:
            inspect.signature(function).bind(None)
        except (TypeError, ValueError) as error:
            raise TaskDefinitionError(
                f"a handler of archived tasks takes the task, which {function!r} does not: {error}"
            ) from None
        self.name = function_name(function)
        self.function = function
        self.is_coroutine = is_coroutine_function(function)


def read_dead_letter(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return queue and name of the task that is to be enqueued when this one is archived, None for none."""
    text = headers.get(DEAD_LETTER)
    if text is None:
        return None
    try:
        queue, name = json.loads(text)
    except (ValueError, TypeError):
        return None
    return (queue, name) if isinstance(queue, str) and isinstance(name, str) and queue and name else None


def letter_id(task: TaskInfo) -> str:
    """Return the id of the task that is enqueued for an archived one: the same for the same archiving."""
    at_s = 0 if task.archived_at is None else int(task.archived_at.timestamp())
    task_id = f"dead:{task.queue}:{task.id}:{at_s}"
    if len(task_id.encode()) <= MAX_NAME_BYTES:
        return task_id
    return f"dead:{hashlib.blake2b(task_id.encode(), digest_size=16).hexdigest()}"


def letter_arguments(task: TaskInfo) -> dict[str, object]:
    """Return what the task is told that is enqueued for an archived one. The payload stays where it is."""
    return {
        "task_id": task.id,
        "queue": task.queue,
        "name": task.name,
        "error": task.last_error,
        "retried": task.retried,
        "archived_at": task.archived_at,
    }
