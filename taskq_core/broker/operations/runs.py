"""Requests of a worker for the tasks that it runs: dequeue them, extend their leases, settle their runs."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import groupby
from typing import Any

from msgspec import Struct, field

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import (
    ARCHIVE,
    BATCH_BYTES,
    MESSAGE_MAX,
    NOW,
    STATISTICS_KEPT_S,
    Argument,
    Operation,
    housekeeping,
    run_owner,
    script,
)
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import QueueKeys


class Dequeued(Struct):
    """Answer of `dequeue`: the tasks that the worker now holds.

    Attributes:
        now_ns: Redis's time, Unix ns.
        lease_expiry_s: End of the lease of these tasks, Unix s by Redis's clock.
        dropped: Number of deleted ids that were listed without a message.
        tasks: Pairs of id and message bytes, oldest first.
        waits_s: Seconds for which each task was pending, None if unknown; empty without `with_waits`.
        foreign_locks: Number of tasks without their lock, because their hash names a key outside the queue's locks.
        too_large: Number of tasks that were moved to quarantine, because their messages exceed the limit.
    """

    now_ns: int
    lease_expiry_s: int
    dropped: int
    tasks: list[tuple[str, bytes]]
    waits_s: list[float | None] = field(default_factory=list)
    foreign_locks: int = 0
    too_large: int = 0


TaskRun = tuple[str, int]
"""Id of a task, and the number of one of its runs: the `call` of the dequeue that returned it."""


def _runs_argument(runs: Sequence[int]) -> str:
    """Return the run numbers of several tasks as a script argument: "<run>x<tasks>," per sequence of equal numbers."""
    return "".join([f"{run}x{len(list(same))}," for run, same in groupby(runs)])


def _read_dequeued(reply: Any) -> Dequeued:
    ids, messages = replies.names(reply[4::2]), reply[5::2]
    dropped, *rest = (reply[2],) if isinstance(reply[2], int) else map(int, reply[2].split())
    return Dequeued(
        int(reply[0]),
        int(reply[1]),
        dropped,
        list(zip(ids, messages, strict=True)),
        [int(each) / 1000 if each else None for each in reply[3].split(b",")[:-1]] if reply[3] else [],
        *rest,
    )


def dequeue(
    queue: QueueKeys,
    *,
    owner: str,
    call: int,
    limit: int,
    lease_s: int,
    lane: str = "",
    max_active: int | None = None,
    max_bytes: int = BATCH_BYTES,
    with_waits: bool = False,
    lock_s: int | None = None,
    max_message: int = MESSAGE_MAX,
) -> Operation[Dequeued]:
    """Dequeue up to `limit` pending tasks for the worker `owner`. A paused queue returns no tasks.

    Args:
        queue: Key names of the queue.
        owner: Token of the worker.
        call: Number of the runs that this call starts, unique and growing per worker. A repeat with the same number on
            the same `lane` returns the same tasks. A call that arrives after one with a larger number returns none.
        limit: Maximum number of tasks. 0 cancels the call with this number: the answer has the tasks that the call
            returned before, and if it arrives later, it returns none.
        lease_s: Length of the leases in seconds.
        lane: Name of the connection on which a repeat is recognized.
        max_active: Maximum number of active tasks of the queue on all workers. At this number, no task is returned.
        max_bytes: Bytes of messages after which no further task is returned.
        with_waits: Also read how long each task was pending.
        lock_s: Least seconds for which the tasks hold their unique locks, by default twice the lease. A lock that is
            held until the start only is released.
        max_message: Largest message in bytes. A task with a larger one is moved to quarantine unread.
    """
    keys = (queue.pending, queue.active, queue.lease, queue.paused, queue.wake, queue.call(owner + lane), queue.limits)
    args: list[Argument] = [
        NOW,
        owner,
        call,
        limit,
        max_bytes,
        lease_s,
        queue.task_prefix,
        queue.done,
        int(with_waits),
        2 * lease_s if lock_s is None else lock_s,
        "" if max_active is None else max_active,
        "",
        max_message,
    ]
    return script("dequeue", keys, args, _read_dequeued, deadline_at=len(args) - 2)


def settle_and_dequeue(done: Sequence[TaskRun], asked: Operation[Dequeued]) -> Operation[Dequeued | None]:
    """Settle runs that succeeded without a result or a lock, at most 200, and dequeue other tasks, in one script.

    The script does the work of `settle_done` and of the dequeue `asked`, which has the same worker and queue, or
    nothing. It does nothing, and the answer is None, if a task must not just be deleted or no longer belongs to this
    worker. Then, and also without an answer, the caller sends the two operations separately.
    """
    return script(
        "settle_and_dequeue",
        asked.keys,
        [*asked.args, STATISTICS_KEPT_S, _runs_argument([run for _, run in done]), *[task_id for task_id, _ in done]],
        lambda reply: None if reply is None else _read_dequeued(reply),
        repeatable=False,
        deadline_at=asked.deadline_at,
    )


class Outcome(StrEnum):
    """What the settlement of a run does with its task. See the letters in `settle.lua`."""

    DONE = "d"
    COMPLETE = "c"
    RETRY = "r"
    RETRY_UNCOUNTED = "n"
    ARCHIVE = "a"
    REQUEUE = "q"
    WAIT = "w"


class SettleCode(StrEnum):
    """Whether a run was settled."""

    SETTLED = "1"
    SETTLED_DISPATCH = "3"
    """Settled, and workflows have steps or ends of steps to send to other queues."""
    NOT_OWNED = "0"
    SEND_AGAIN = "2"


class Settlement(Struct):
    """The end of one run.

    Attributes:
        task_id: Id of the task.
        outcome: How the run ended.
        run: Number of the run: the `call` of the dequeue that returned it.
        message: TaskMessage bytes to store (COMPLETE, RETRY, RETRY_UNCOUNTED, ARCHIVE, WAIT).
        seconds: Retention in seconds for COMPLETE.
        delay_ms: Milliseconds until the next attempt for RETRY and RETRY_UNCOUNTED; for WAIT the Unix ms of its end, 0
            without a time limit.
        unique_key: Unique lock of the task, "" for no lock.
        result: Result bytes for COMPLETE, b"" for no result.
        is_oversized: True if `result` holds size and limit of a result that is too large to be stored.
        record: Record of the attempt for COMPLETE, RETRY, RETRY_UNCOUNTED and ARCHIVE, one line; b"" to record nothing.
            For WAIT what the task waits for, see `settle.lua`.
        is_dead_letter: Whether a dead-letter handler must receive the task once it is archived.
        is_young: True if the task is among the youngest active tasks, which makes it cheaper to find.
    """

    task_id: str
    outcome: Outcome
    run: int
    message: bytes = b""
    seconds: int = 0
    delay_ms: int = 0
    unique_key: str = ""
    result: bytes = b""
    record: bytes = b""
    is_young: bool = True
    is_dead_letter: bool = False
    is_oversized: bool = False


PROGRESS_FIELD = "taskq_progress"
"""Field of a task: the progress that it last reported."""
RESULT_FIELD = "result"
"""Field of a task: its result, as in Asynq, so that Go programs can read it."""
OVERSIZED_FIELD = "taskq_oversized"
"""Field of a task: size and limit of a result that was not stored. It is valid only while the result is empty."""


def settle(
    queue: QueueKeys, settlements: Sequence[Settlement], *, owner: str, archive: ArchiveLimits = ARCHIVE
) -> Operation[str]:
    """Settle the runs of tasks of one queue.

    The answer has one character per task: a `SettleCode`, or one of `SETTLE_CANCELS` for a run that would wait.
    A repeat after a lost reply answers NOT_OWNED for the tasks that the first call settled.
    """
    if all(each.outcome is Outcome.DONE and each.is_young and not each.unique_key for each in settlements):
        return settle_done(queue, [(each.task_id, each.run) for each in settlements], owner=owner)
    args: list[Argument] = [NOW, owner, *housekeeping(queue, archive), 7]
    args.append(_runs_argument([each.run for each in settlements]))
    for each in settlements:
        args += (
            ("b" if each.is_dead_letter else "o" if each.is_oversized else each.outcome.value)
            + ("+" if each.is_young else ""),
            each.task_id,
            each.message,
            each.seconds if each.outcome is Outcome.COMPLETE else each.delay_ms,
            each.unique_key,
            each.result,
            each.record,
        )
    return script("settle", _settle_keys(queue), args, replies.text)


def settle_done(queue: QueueKeys, done: Sequence[TaskRun], *, owner: str) -> Operation[str]:
    """Settle young runs that succeeded without a result or a lock. The answer is that of `settle`."""
    args: list[Argument] = [NOW, owner, *housekeeping(queue, ARCHIVE), 1]  # default limits: no task is archived
    args.append(_runs_argument([run for _, run in done]))
    args += [task_id for task_id, _ in done]
    return script("settle", _settle_keys(queue), args, replies.text)


def _settle_keys(queue: QueueKeys) -> tuple[str, ...]:
    return (queue.active, queue.lease, queue.pending, queue.completed, queue.retry, queue.archived, queue.wake)


class Extended(Struct):
    """Answer of `extend_leases`: Redis's time (Unix ns), and for each task whether this worker still owns it."""

    now_ns: int
    owned: list[bool]


def _read_extended(reply: Any) -> Extended:
    return Extended(int(reply[0]), replies.flags(reply[1]))


def extend_leases(
    queue: QueueKeys, tasks: Sequence[TaskRun], *, owner: str, lease_s: int, lock_s: int | None = None
) -> Operation[Extended]:
    """Extend the leases of running tasks to `lease_s` seconds from now, and their unique locks to at least `lock_s`.

    `lock_s` is by default twice the lease.
    """
    held_s = 2 * lease_s if lock_s is None else lock_s
    args: list[Argument] = [NOW, owner, lease_s, queue.task_prefix, held_s]
    for task_id, run in tasks:
        args += (run, task_id)
    return script("extend_leases", (queue.lease, queue.absent), args, _read_extended)


def mark_starts(queue: QueueKeys, tasks: Sequence[TaskRun], *, owner: str) -> Operation[list[bool]]:
    """Mark that runs have started. Only for runs that may be the last of their task; at most 200.

    If the worker is lost, a task is archived only if its last run is marked. The answer has True for each run that may
    start, False if its lease has ended.
    """
    args: list[Argument] = [NOW, owner, queue.task_prefix]
    for task_id, run in tasks:
        args += (run, task_id)
    return script("mark_starts", (queue.lease, queue.absent), args, replies.flags)


def write_fields(
    queue: QueueKeys, task_id: str, fields: Mapping[str, bytes], *, owner: str, run: int
) -> Operation[bool]:
    """Store the progress or the result of a running task, by field. The answer is False if it is over."""
    words: list[Argument] = [run_owner(owner, run), task_id, queue.done]
    for name, value in fields.items():
        words += (name, value)
    return script("write_fields", (queue.task(task_id), queue.lease), words, replies.boolean)


def quarantine(queue: QueueKeys, task_id: str, *, owner: str, run: int) -> Operation[bool]:
    """Move an active task with an unreadable message to the quarantine, which stores its bytes."""
    keys = (queue.active, queue.lease, queue.task(task_id), queue.quarantine, queue.quarantined(task_id))
    args = (NOW, run_owner(owner, run), task_id)
    return script("quarantine", keys, args, replies.boolean)
