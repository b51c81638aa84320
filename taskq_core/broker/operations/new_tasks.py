"""Store new tasks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from msgspec import Struct

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import NOW, Argument, Confirmation, Operation, command
from taskq_core.broker.scripts import load
from taskq_core.errors import ConfigurationError
from taskq_core.wire import QueueKeys

T = TypeVar("T")


class StoreCode(StrEnum):
    """Result of storing one task."""

    STORED = "1"
    STORED_BEFORE = "s"
    """An earlier delivery of the same outbox row has already stored the task."""
    ID_CONFLICT = "0"
    DUPLICATE = "d"
    FULL = "f"
    EXISTING = "x"
    CHANGED = "u"
    TOO_LATE = "l"
    """The sender's claim on the outbox row has ended, so the task was not stored."""
    GONE = "g"
    """The aggregation set that the task combines does not exist any more, or has changed. The task was not stored."""


HELD = frozenset((StoreCode.EXISTING, StoreCode.CHANGED))
"""Codes of tasks that were not stored because another task holds their unique lock and runs in their place."""
NAMES_HOLDER = frozenset((StoreCode.DUPLICATE, *HELD))
"""Codes with the id of the task that holds the lock."""


class Codes(str):
    """Answer of an enqueue: one `StoreCode` for each task.

    Attributes:
        holders: Id of the task that holds the lock, for each code with such a task, in order.
        pending: Number of pending tasks when a task was refused with `FULL`, else 0.
        limit: Maximum number of pending tasks, 0 for no limit.
    """

    holders: tuple[str, ...] = ()
    pending = 0
    limit = 0

    def each(self) -> list[tuple[str, str]]:
        """Return each code with the id of the task that holds the lock, "" if no task holds it or the id is unknown."""
        holders = iter(self.holders)
        return [(code, next(holders, "") if code in NAMES_HOLDER else "") for code in self]


def read_codes(reply: Any, limit: int = 0) -> Codes:
    """Read the answer of an enqueue."""
    first, _, rest = reply.partition(b"\n")
    codes, _, pending = first.decode().partition(":")
    answer = Codes(codes)
    answer.pending, answer.limit = int(pending or 0), limit
    while rest:
        size, _, rest = rest.partition(b":")
        answer.holders += (replies.name(rest[: int(size)]),)
        rest = rest[int(size) :]
    return answer


class NewTask(Struct):
    """A task to store.

    Attributes:
        task_id: Id of the task.
        message: TaskMessage bytes.
        start_at_s: Earliest start, Unix s. None: at once.
        start_in_ms: Earliest start, in milliseconds from Redis's time. None: at once.
        unique_key: Key of the unique lock to take, "" for no lock.
        unique_s: Seconds for which the lock is held after the start.
        unique_rule: Further rules of the lock, see `Unique.rule`; "" for a lock as Asynq's.
        group: Group in which the task waits, "" for no group.
        limit: Limits of the task in the form of `_limits.lua`, "" for no limit.
        confirm: Replicas or disk that must have the task before the enqueue succeeds. None: only the primary.
        marks: Marks for the script, such as priority and expiry, "" for no marks; see `wire.control`.
        digest: Digest of name and payload, by which a script recognizes a repeated call; only with `confirm`.
        fields: Further fields of the task's hash. Only `deliver` stores them.
        generation: Distinguishes the task from others with the same id, see `_generation.lua`. "" if the id is random.
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
    unique_rule: str = ""
    generation: str = ""
    fields: Mapping[bytes, bytes] = MappingProxyType({})

    @property
    def moves_start(self) -> bool:
        """True if a duplicate only changes the start of the task that holds the lock (`Unique`)."""
        return self.unique_rule[1:2] == "m"

    def arguments(self, queue: QueueKeys) -> tuple[Argument, ...]:
        """Return the arguments with which a script stores this task in a queue.

        Raises:
            ConfigurationError: The unique lock does not belong to this queue. Nothing was written.
        """
        if self.unique_key and not queue.is_lock(self.unique_key):
            raise ConfigurationError(
                f"the unique lock of task {self.task_id!r} must begin with {queue.unique_prefix!r}, "
                f"got {self.unique_key!r}"
            )
        if self.start_at_s is not None:
            start = f"={self.start_at_s}"
        elif self.start_in_ms is not None:
            start = f"+{self.start_in_ms}"
        else:
            start = ""
        if self.marks or self.generation:
            start += f"|{self.marks}" + (f"g{self.generation};" if self.generation else "")
        stored: Argument = start
        if self.fields:
            words = [b"%d:%s" % (len(word), word) for pair in self.fields.items() for word in pair]
            stored = start.encode() + b"\n" + b"".join(words)
        lock_word = f"{self.unique_s}{self.unique_rule}" if self.unique_rule else self.unique_s
        return (self.task_id, self.message, stored, self.unique_key, lock_word, self.group, self.limit)


class ReceiptSlot:
    """Numbers the enqueue calls of one caller, so that Redis recognizes a repeated call. One call at a time.

    A repeat has the number of the first attempt, finds its receipt, and changes nothing.
    """

    __slots__ = ("call", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.call = 0


def enqueue(
    queue: QueueKeys, tasks: Sequence[NewTask], slot: ReceiptSlot, *, max_pending: int | None = None
) -> Operation[Codes]:
    """Store tasks of one queue: at most `BATCH_MAX`, about `BATCH_BYTES` in total, with the same `confirm`.

    While the queue has `max_pending` or more pending tasks, new ones are refused (`FULL`). If Redis is over its memory
    limit, it refuses all of them.
    """
    slot.call += 1
    keys: tuple[str, ...] = (queue.pending, queue.scheduled, queue.wake, queue.receipt_prefix + slot.token)
    args: list[Argument] = [NOW, slot.call, "", queue.prefix]
    confirm = tasks[0].confirm if tasks else None
    receipts: tuple[str, ...] = ()
    if confirm is not None:
        receipts = tuple([queue.unconfirmed(task.task_id) for task in tasks])
        keys += (queue.groups, *receipts)
        args.append(8)
        for task in tasks:
            args += (*task.arguments(queue), task.digest)
    elif all([task == NewTask(task.task_id, task.message) for task in tasks]):  # noqa: C419 - a generator is slower
        args.append(2)
        for task in tasks:
            args += (task.task_id, task.message)
    else:
        keys += (queue.groups,)
        args.append(7)
        for task in tasks:
            args += task.arguments(queue)
    read: Callable[[Any], Codes] = read_codes
    if max_pending is not None:
        args.append(max_pending)
        read = partial(read_codes, limit=max_pending)
    return Operation(
        "enqueue", load("enqueue"), keys, args, read, tasks=tasks, confirm=confirm, receipts=receipts, deadline_at=2
    )


def register_queue(queues_key: str, names: Iterable[str]) -> Operation[int]:
    """Add queues to the set of known queues. Not part of the enqueue script: the set has another cluster slot."""
    return command("register_queue", ("SADD", queues_key, *names), replies.integer)
