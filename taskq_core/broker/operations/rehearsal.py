"""What tests of tasks ask: make time pass for tasks that wait."""

from typing import Any

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import Operation, command
from taskq_core.wire import QueueKeys, TaskState


def waiting_key(queue: QueueKeys, state: TaskState, group: str = "") -> str:
    """Return the key of the tasks that wait for a time: scheduled ones, retries, or the members of a group."""
    if state is TaskState.AGGREGATING:
        return queue.group(group)
    return {TaskState.SCHEDULED: queue.scheduled, TaskState.RETRY: queue.retry}[state]


def list_waiting(key: str, first: int, last: int) -> Operation[list[tuple[str, int]]]:
    """List tasks that wait, by rank, the earliest first, as pairs of id and Unix second. A rank may count from the end.

    For tasks of a group the second is that in which they joined it.
    """

    def read(reply: Any) -> list[tuple[str, int]]:
        words = iter(reply)
        return [(replies.name(task_id), int(float(score))) for task_id, score in zip(words, words, strict=True)]

    return command("list_waiting", ("ZRANGE", key, first, last, "WITHSCORES"), read)


def bring_forward(key: str, task_id: str, *, by_s: int) -> Operation[bool]:
    """Bring the time of a task that waits forward. Reads as False if it does not wait there.

    Sent twice it would count twice, so it is not repeated.
    """
    return command("bring_forward", ("ZADD", key, "XX", "INCR", -by_s, task_id), replies.is_given, repeatable=False)
