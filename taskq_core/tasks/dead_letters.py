"""Dead letters: the task that is enqueued when another one is archived (option `dead_letter`).

The Lua script that archives a task records in the same step that archive handlers must be called and that a dead letter
must be enqueued. So a crash loses neither. `taskq_core.worker.dead_letters` then does both.
"""

import hashlib
import json
from collections.abc import Mapping

from taskq_core.handles.records import TaskInfo
from taskq_core.wire import DEAD_LETTER, MAX_NAME_BYTES


def read_dead_letter(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return queue and name of the dead letter of a task with these headers, None if the task has no dead letter."""
    text = headers.get(DEAD_LETTER)
    if text is None:
        return None
    try:
        queue, name = json.loads(text)
    except (ValueError, TypeError):
        return None
    return (queue, name) if isinstance(queue, str) and isinstance(name, str) and queue and name else None


def dead_letter_id(task: TaskInfo) -> str:
    """Return the id of the dead letter of an archived task.

    The id contains the time at which the task was archived. If a worker handles the same archived task again, it gets
    the same id, so the dead letter is enqueued only once.
    """
    at_s = 0 if task.archived_at is None else int(task.archived_at.timestamp())
    task_id = f"dead:{task.queue}:{task.id}:{at_s}"
    if len(task_id.encode()) <= MAX_NAME_BYTES:
        return task_id
    return f"dead:{hashlib.blake2b(task_id.encode(), digest_size=16).hexdigest()}"


def dead_letter_arguments(task: TaskInfo) -> dict[str, object]:
    """Return the arguments of the dead letter of an archived task.

    The arguments do not contain the payload of the archived task.
    """
    return {
        "task_id": task.id,
        "queue": task.queue,
        "name": task.name,
        "error": task.last_error,
        "retried": task.retried,
        "archived_at": task.archived_at,
    }
