"""Store new tasks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from taskq_core.broker.operations.operation import (
    RECEIPT_KEPT_S,
    Argument,
    Confirmation,
    Operation,
    integer,
    text,
    time_argument,
)
from taskq_core.broker.scripts import load
from taskq_core.wire import QueueKeys

T = TypeVar("T")


class EnqueueCode(StrEnum):
    """What became of one task of an enqueue."""

    STORED = "1"
    ID_CONFLICT = "0"
    DUPLICATE = "d"
    FULL = "f"


@dataclass(slots=True)
class NewTask:
    """A task to store.

    Attributes:
        task_id: Its id.
        message: TaskMessage bytes.
        start_at_s: Unix second before which it must not start, or None.
        start_in_ms: Milliseconds from Redis's now before which it must not start, or None.
        unique_key: Name of the lock to take, "" for none.
        unique_s: Seconds the lock is held after the start.
        group: Group it waits in, "" for none.
        limit: Its limits as `_limits.lua` reads them, "" for none.
        confirm: Who must have it before its caller is told that it is stored; None: the server alone.
        marks: What the script is to see to beyond that, "" for nothing; see `wire.control`.
        digest: Of name and payload, by which a call that is made again is known; only with `confirm`.
    """

    task_id: str
    message: bytes
    start_at_s: int | None = None
    start_in_ms: int | None = None
    unique_key: str = ""
    unique_s: int = 0
    group: str = ""
    limit: str = ""
    confirm: Confirmation | None = None
    digest: str = ""
    marks: str = ""

    @property
    def is_plain(self) -> bool:
        """True if it is stored as pending at once, without a lock, a limit and marks."""
        is_now = self.start_at_s is None and self.start_in_ms is None
        return is_now and not (self.unique_key or self.group or self.marks or self.limit)

    def arguments(self) -> tuple[Argument, ...]:
        """What a script is told of a task that may not be plain."""
        if self.start_at_s is not None:
            start = f"={self.start_at_s}"
        elif self.start_in_ms is not None:
            start = f"+{self.start_in_ms}"
        else:
            start = ""
        if self.marks:
            start += f"|{self.marks}"
        return (self.task_id, self.message, start, self.unique_key, self.unique_s, self.group, self.limit)


class ReceiptLane:
    """Numbers the enqueue calls of one caller, who makes one call at a time.

    A repeat under the same number finds the receipt of the first and changes nothing.
    """

    __slots__ = ("call", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.call = 0


@dataclass(slots=True)
class Admitted:
    """What became of the tasks of an enqueue that may have met a full queue.

    Attributes:
        codes: One `EnqueueCode` character per task.
        pending: Tasks that were pending when some found no room, 0 if all did.
        limit: Most that may be pending, 0 for no limit.
    """

    codes: str
    pending: int = 0
    limit: int = 0


def enqueue(
    queue: QueueKeys, tasks: Sequence[NewTask], lane: ReceiptLane, *, now_ns: int | None = None
) -> Operation[str]:
    """Store tasks of one queue; at most `BATCH_MAX` of about `BATCH_BYTES`.

    All have the same `confirm`. Reads as one `EnqueueCode` character per task. Refused whole when Redis is over its
    memory limit.
    """
    return _operation(queue, tasks, *_words(queue, tasks, lane, now_ns), text)


def enqueue_limited(
    queue: QueueKeys, tasks: Sequence[NewTask], lane: ReceiptLane, *, max_pending: int, now_ns: int | None = None
) -> Operation[Admitted]:
    """As `enqueue`, while no more than `max_pending` tasks are pending; those beyond are refused (`FULL`)."""
    keys, args = _words(queue, tasks, lane, now_ns)
    args.append(max_pending)

    def read(reply: Any) -> Admitted:
        codes, _, pending = text(reply).partition(":")
        return Admitted(codes, int(pending or 0), max_pending)

    return _operation(queue, tasks, keys, args, read)


def _operation(
    queue: QueueKeys,
    tasks: Sequence[NewTask],
    keys: tuple[str, ...],
    args: list[Argument],
    read: Callable[[Any], T],
) -> Operation[T]:
    confirm = tasks[0].confirm if tasks else None
    receipts = () if confirm is None else _receipts(queue, tasks)
    return Operation("enqueue", load("enqueue"), keys, args, read, tasks=tasks, confirm=confirm, receipts=receipts)


def _receipts(queue: QueueKeys, tasks: Sequence[NewTask]) -> tuple[str, ...]:
    return tuple([queue.unconfirmed(task.task_id) for task in tasks])


def _words(
    queue: QueueKeys, tasks: Sequence[NewTask], lane: ReceiptLane, now_ns: int | None
) -> tuple[tuple[str, ...], list[Argument]]:
    """Return the keys and arguments of the next call of a lane."""
    lane.call += 1
    keys: tuple[str, ...] = (queue.pending, queue.scheduled, queue.wake, queue.receipt(lane.token))
    args: list[Argument] = [time_argument(now_ns), lane.call, RECEIPT_KEPT_S, queue.prefix]
    if tasks and tasks[0].confirm is not None:
        keys += (queue.groups, *_receipts(queue, tasks))
        args.append(8)
        for task in tasks:
            args += (*task.arguments(), task.digest)
    elif all(task.is_plain for task in tasks):
        args.append(2)
        for task in tasks:
            args += (task.task_id, task.message)
    else:
        keys += (queue.groups,)
        args.append(7)
        for task in tasks:
            args += task.arguments()
    return keys, args


def register_queue(queues_key: str, names: Iterable[str]) -> Operation[int]:
    """Add queues to the set of known ones. Not in the enqueue script: the set lives on another cluster slot."""
    return Operation("register_queue", None, (queues_key,), ("SADD", queues_key, *names), integer)
