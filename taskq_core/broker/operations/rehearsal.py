"""Requests of the testing helpers: find waiting tasks, and make them due earlier."""

from typing import Any

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import Operation, command
from taskq_core.wire import QueueKeys, TaskState


def waiting_key(queue: QueueKeys, state: TaskState, group: str = "") -> str:
    """Return the key of the tasks that wait in a state: scheduled tasks, retries, or the members of a group."""
    if state is TaskState.AGGREGATING:
        return queue.group(group)
    return {TaskState.SCHEDULED: queue.scheduled, TaskState.RETRY: queue.retry}[state]


def list_waiting(key: str, first: int, last: int) -> Operation[list[tuple[str, int]]]:
    """Read waiting tasks from rank `first` to `last`, the earliest first. A negative rank counts from the end.

    The answer has pairs of id and start (Unix s). For members of a group, it is the second in which they joined it.
    """

    def read(reply: Any) -> list[tuple[str, int]]:
        return [(replies.name(task_id), int(float(score))) for task_id, score in replies.pairs(reply)]

    return command("list_waiting", ("ZRANGE", key, first, last, "WITHSCORES"), read)


def bring_forward(key: str, task_id: str, *, by_s: int) -> Operation[bool]:
    """Move the start of a waiting task `by_s` seconds earlier. The answer is False if the task does not wait in `key`.

    Runners do not repeat it, because a second attempt would bring the start forward again.
    """
    return command("bring_forward", ("ZADD", key, "XX", "INCR", -by_s, task_id), replies.is_given, repeatable=False)
