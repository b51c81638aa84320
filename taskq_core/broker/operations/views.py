"""Read what stands in Redis, and withdraw a task."""

from dataclasses import dataclass
from typing import Any

from taskq_core.broker.operations.operation import Operation, text, time_argument
from taskq_core.broker.scripts import load
from taskq_core.errors import BrokerReplyError
from taskq_core.wire import QueueKeys, TaskState


@dataclass(slots=True)
class StoredTask:
    """One task as it stands in Redis.

    Attributes:
        task_id: Its id.
        state: State word, None where a listing implies it.
        message: TaskMessage bytes, b"" where there is none.
        result: Result bytes, b"" for none.
        score: Unix s in the set of its state: lease expiry, start, next attempt, time archived, end of retention.
    """

    task_id: str
    state: TaskState | None
    message: bytes
    result: bytes
    score: int | None


def _score(value: Any) -> int | None:
    return int(float(value)) if value else None


def _state(queue: QueueKeys, task_id: str, word: Any) -> TaskState:
    try:
        return TaskState(text(word))
    except ValueError:
        raise BrokerReplyError(f"task {task_id!r} in {queue.name!r} has an unknown state") from None


def look(queue: QueueKeys, task_id: str, *, tell_end: bool = False) -> Operation[StoredTask | None]:
    """Read one task; `tell_end` asks that its end be published on `queue.done`. Reads as None if it does not exist."""

    def read(reply: Any) -> StoredTask | None:
        if reply is None:
            return None
        return StoredTask(task_id, _state(queue, task_id, reply[0]), reply[1], reply[2], _score(reply[3]))

    args = (task_id, queue.prefix, 1 if tell_end else 0)
    return Operation("look", load("look"), (queue.task(task_id),), args, read)


def revoke(queue: QueueKeys, task_id: str) -> Operation[TaskState | None]:
    """Delete a task that waits (pending, scheduled, retry, aggregating). Reads as the state it was in."""
    keys = (queue.task(task_id), queue.pending, queue.scheduled, queue.retry, queue.groups)
    return Operation(
        "revoke",
        load("revoke"),
        keys,
        (task_id, queue.prefix, queue.done),
        lambda reply: None if reply is None else _state(queue, task_id, reply),
    )


@dataclass(slots=True)
class Page:
    """A page of tasks in one state, and how many there are."""

    size: int
    tasks: list[StoredTask]


def list_tasks(queue: QueueKeys, state: TaskState, *, skip: int, count: int) -> Operation[Page]:
    """Read a page of tasks. First comes what is next to run or was started first; `count` is at most 1000."""
    is_list = state in (TaskState.PENDING, TaskState.ACTIVE)

    def read(reply: Any) -> Page:
        words = iter(reply[1:])
        return Page(
            int(reply[0]),
            [
                StoredTask(task_id.decode("utf-8", "replace"), state, message, result, _score(score))
                for task_id, message, result, score in zip(words, words, words, words, strict=True)
            ],
        )

    key = queue.prefix + state.value
    lease = queue.lease if state is TaskState.ACTIVE else ""
    args = ("list" if is_list else "zset", skip, count, queue.task_prefix, lease)
    return Operation("list_tasks", load("list"), (key,), args, read)


@dataclass(slots=True)
class QueueCounts:
    """Counts of one queue.

    Attributes:
        now_ns: Redis's time, Unix ns.
        sizes: Tasks by state.
        is_paused: True while workers take nothing.
        processed, failed: Over the queue's life.
        processed_today, failed_today: Since midnight UTC.
        latency_s: Seconds the next task to run has been pending, None if unknown.
    """

    now_ns: int
    sizes: dict[TaskState, int]
    is_paused: bool
    processed: int
    failed: int
    processed_today: int
    failed_today: int
    latency_s: float | None


def _read_counts(reply: Any) -> QueueCounts:
    now_ns = int(reply[0])
    states = (
        TaskState.PENDING,
        TaskState.ACTIVE,
        TaskState.SCHEDULED,
        TaskState.RETRY,
        TaskState.ARCHIVED,
        TaskState.COMPLETED,
        TaskState.AGGREGATING,
    )
    since = reply[13]
    return QueueCounts(
        now_ns=now_ns,
        sizes={state: int(size) for state, size in zip(states, reply[1:8], strict=True)},
        is_paused=int(reply[8]) == 1,
        processed=int(reply[9]),
        failed=int(reply[10]),
        processed_today=int(reply[11]),
        failed_today=int(reply[12]),
        latency_s=max(0.0, (now_ns - int(since)) / 1e9) if since else None,
    )


def count_tasks(queue: QueueKeys, *, now_ns: int | None = None) -> Operation[QueueCounts]:
    """Count the tasks of a queue."""
    keys = (
        queue.pending,
        queue.active,
        queue.scheduled,
        queue.retry,
        queue.archived,
        queue.completed,
        queue.groups,
        queue.paused,
        queue.processed,
        queue.failed,
    )
    return Operation("count_tasks", load("info"), keys, (time_argument(now_ns), queue.prefix), _read_counts)


def list_queues(queues_key: str) -> Operation[list[str]]:
    """Read the names of all known queues, sorted."""
    return Operation(
        "list_queues",
        None,
        (queues_key,),
        ("SMEMBERS", queues_key),
        lambda reply: sorted(name.decode("utf-8", "replace") for name in reply),
    )


def ping() -> Operation[bool]:
    """Ask whether Redis answers."""
    return Operation("ping", None, (), ("PING",), lambda reply: reply is True or text(reply) == "PONG")
