"""Requests of a worker's services: forward, recover, clean, elect leaders, wait for tasks, publish presence."""

from collections.abc import Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Any

from msgspec import Struct

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import (
    ARCHIVE,
    BATCH_BYTES,
    MESSAGE_MAX,
    NOW,
    Argument,
    Operation,
    command,
    has_start_mark,
    housekeeping,
    owner_of,
    script,
)
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import QueueKeys

LOOKOUT = "lookout"
"""Name of the leader lease that one taskq worker of each served queue always holds."""


class Forwarded(Struct):
    """Answer of `forward`: Redis's time (Unix ns), whether this worker leads, number of moved tasks and dropped ids."""

    now_ns: int
    leads: bool
    moved: int
    dropped: int


def forward(queue: QueueKeys, *, owner: str, leader_ms: int, limit: int = 100) -> Operation[Forwarded]:
    """Move due scheduled tasks, then due retries, to pending, if this worker leads or takes the lead."""
    keys = (
        queue.scheduled,
        queue.retry,
        queue.pending,
        queue.groups,
        queue.wake,
        queue.leader("forwarder"),
    )
    args = (NOW, owner, leader_ms, queue.prefix, limit)
    return script(
        "forward", keys, args, lambda reply: Forwarded(int(reply[0]), int(reply[1]) == 1, int(reply[2]), int(reply[3]))
    )


class ExpiredTask(Struct):
    """A task whose lease has expired.

    Attributes:
        task_id: Id of the task.
        lease_expiry: End of the lease in Unix seconds, as stored.
        message: TaskMessage bytes, b"" if they are missing.
        owner: Token of its worker, "" if unknown.
        started_s: When that worker dequeued it, Unix s, None if unknown.
        has_start_mark: False if the worker has not marked the start of this run. Only a run that may be the last of its
            task is marked; see `mark_starts`.
    """

    task_id: str
    lease_expiry: str
    message: bytes
    owner: str = ""
    started_s: float | None = None
    has_start_mark: bool = True


class Expired(Struct):
    """Redis's time (Unix ns), the tasks whose lease has expired, and whether more of them may follow."""

    now_ns: int
    tasks: list[ExpiredTask]
    has_more: bool


def _read_expired(reply: Any) -> Expired:
    return Expired(
        int(reply[0]),
        [
            ExpiredTask(
                replies.name(task_id),
                replies.text(expiry),
                message,
                owner=(owner := owner_of(fence, expiry)),
                started_s=int(started) / 1000 if owner and started.isdigit() else None,
                has_start_mark=not owner or has_start_mark(fence, mark),
            )
            for task_id, expiry, message, fence, started, mark in reply[2:]
        ],
        replies.text(reply[1]) != "0",
    )


def list_expired(
    queue: QueueKeys, *, grace_s: int, limit: int = 100, max_message: int = MESSAGE_MAX
) -> Operation[Expired]:
    """List at most `limit` tasks whose lease expired at least `grace_s` seconds ago, until `BATCH_BYTES` are read.

    Of a message over `max_message` bytes only the size is read. `decode_message` then raises an error that names it.
    """
    args = (NOW, queue.task_prefix, limit, grace_s, "", "", max_message, BATCH_BYTES)
    return script("list_leases", (queue.lease,), args, _read_expired, name="list_expired")


LEASES_LOOKED_AT = 200
"""Approximate number of leases that one call of `list_held` reads."""


class Held(Struct):
    """Answer of `list_held`: the next cursor ("0" at the end), and the tasks of the worker among the leases read."""

    cursor: str
    found: Expired


def list_held(queue: QueueKeys, *, owner: str, cursor: str = "0", max_message: int = MESSAGE_MAX) -> Operation[Held]:
    """Read some leases of the queue, from a cursor on, and list the tasks among them that a worker holds.

    For `max_message` see `list_expired`.
    """

    def read(reply: Any) -> Held:
        return Held(replies.text(reply[1]), _read_expired(reply))

    args = (NOW, queue.task_prefix, LEASES_LOOKED_AT, "", owner, cursor, max_message, BATCH_BYTES)
    return script("list_leases", (queue.lease,), args, read, name="list_held")


class Verdict(StrEnum):
    """Decision on a task of a lost worker."""

    RETRY = "r"
    RETRY_UNCOUNTED = "n"
    ARCHIVE = "a"
    QUARANTINE = "z"
    DROP = "x"


class Recovery(Struct):
    """The decision on one task of a lost worker.

    Attributes:
        task: The task, as listed.
        verdict: The decision.
        message: TaskMessage bytes to store.
        delay_ms: Milliseconds until the next attempt, for retries.
        record: Record of the lost attempt, one line; b"" to record nothing.
        is_dead_letter: Whether a dead-letter handler must receive the task once it is archived.
    """

    task: ExpiredTask
    verdict: Verdict
    message: bytes = b""
    delay_ms: int = 0
    record: bytes = b""
    is_dead_letter: bool = False


def recover(
    queue: QueueKeys,
    recoveries: Sequence[Recovery],
    *,
    grace_s: int,
    archive: ArchiveLimits = ARCHIVE,
    gone: str = "",
    max_message: int = MESSAGE_MAX,
) -> Operation[str]:
    """Recover tasks of lost workers: those whose lease expired at least `grace_s` seconds ago, or all of one worker.

    `gone` is the token of a worker that is known to have ended. Its leases need not have expired. `max_message` is the
    value with which the tasks were listed.

    The answer has one character per task: "1" recovered; "0" skipped, because it was settled, extended or recovered
    before; "2" not handled, because many tasks are active and one call then handles fewer.
    """
    args: list[Argument] = [NOW, grace_s, *housekeeping(queue, archive), queue.quarantined(""), gone, max_message]
    for each in recoveries:
        args += (
            "b" if each.is_dead_letter else each.verdict.value,
            each.task.task_id,
            each.task.lease_expiry,
            each.task.message,
            each.message,
            each.delay_ms,
            each.record,
        )
    keys = (queue.active, queue.lease, queue.retry, queue.archived, queue.quarantine)
    return script("recover", keys, args, replies.text)


def clean(queue: QueueKeys, *, limit: int = 100, archive: ArchiveLimits = ARCHIVE) -> Operation[tuple[int, int]]:
    """Delete tasks whose retention has ended, at most `limit` completed and 100 archived ones.

    The answer is the numbers of deleted (completed, archived) tasks.
    """
    args = (NOW, queue.task_prefix, limit, archive.kept_s, archive.max_tasks)
    return script("clean", (queue.completed, queue.archived), args, lambda reply: (int(reply[0]), int(reply[1])))


def lead(leader_key: str, *, owner: str, leader_ms: int) -> Operation[bool]:
    """Take or renew the leader lease of a service. The answer is True if this worker leads."""
    return script("lead", (leader_key,), (owner, leader_ms), replies.boolean)


def renew_lead(queue: QueueKeys, service: str, *, owner: str, leader_ms: int) -> Operation[bool]:
    """Renew the leader lease that this worker held just before. The answer is False if it has expired or changed hands.

    If the lease now belongs to another worker, the call extends that worker's lease, which does no harm.
    """
    key = queue.leader(service)
    return command(
        "renew_lead", ("GETEX", key, "PX", leader_ms), lambda reply: reply is not None and replies.text(reply) == owner
    )


def lead_left(queue: QueueKeys, service: str) -> Operation[int]:
    """Read the milliseconds until a leader lease expires: -2 if the lease is free, -1 if it never expires."""
    key = queue.leader(service)
    return command("lead_left", ("PTTL", key), replies.integer)


def has_worker(queue: QueueKeys) -> Operation[bool]:
    """Return whether a taskq worker serves a queue: one of them always holds the lease `LOOKOUT`. Go's do not."""
    key = queue.leader(LOOKOUT)
    return command("has_worker", ("EXISTS", key), replies.boolean)


def resign(leader_key: str, *, owner: str) -> Operation[bool]:
    """Give up the leader lease of a service if this worker holds it."""
    return script("resign", (leader_key,), (owner,), replies.boolean)


class Notified(IntEnum):
    """Answer of `notify`: whether it has woken a worker, or why not."""

    PUT = 1
    """A wake token was put."""
    EXISTS = 0
    """There is a token already: no worker waits."""
    NOTHING = -1
    """No task is pending."""
    HELD = -2
    """A worker would get no task: the queue is paused, or has its maximum number of active tasks."""


def notify(queue: QueueKeys, *, max_active: int | None = None) -> Operation[Notified]:
    """Put a wake token if tasks are pending, there is no token yet, and a worker would get a task.

    A worker gets none while the queue is paused or `max_active` of its tasks are active.
    """
    keys = (queue.pending, queue.wake, queue.paused, queue.active, queue.limits)
    most = "" if max_active is None else max_active
    return script("notify", keys, (most,), lambda reply: Notified(int(reply)))


def count_keys(keys: Sequence[str]) -> Operation[int]:
    """Count how many of some keys of a queue exist."""
    return command("count_keys", ("EXISTS", *keys), replies.integer, keys=tuple(keys))


def first_score(key: str) -> Operation[float | None]:
    """Read the lowest score of a sorted set, None if it is empty."""

    def read(reply: Any) -> float | None:
        if not reply:
            return None
        return float(reply[0][1] if isinstance(reply[0], list) else reply[1])  # RESP3 answers pairs, RESP2 a flat list

    return command("first_score", ("ZRANGE", key, 0, 0, "WITHSCORES"), read)


def wait_for_wake(wake_keys: Sequence[str], *, timeout_s: float) -> Operation[str | None]:
    """Wait for a wake token on any of the keys. The answer is the key that had one, or None after `timeout_s`."""
    return command(
        "wait_for_wake",
        ("BLPOP", *wake_keys, f"{timeout_s:.3f}"),
        lambda reply: None if reply is None else replies.text(reply[0]),
        keys=tuple(wake_keys),
        block_s=timeout_s,
    )


def watch_pending(queue: QueueKeys, *, timeout_s: float) -> Operation[bool]:
    """Wait until the queue has a pending task, and change nothing. The answer is False after `timeout_s`.

    The request moves the tail of the list onto itself, which blocks while the list is empty.
    """
    return command(
        "watch_pending",
        ("BLMOVE", queue.pending, queue.pending, "RIGHT", "RIGHT", f"{timeout_s:.3f}"),
        replies.is_given,
        block_s=timeout_s,
    )


def index_presence(index_key: str, member: str, *, expiry_s: int) -> Operation[int]:
    """Record in an index until when a worker process (or the list of its running tasks) counts as alive, Unix s."""
    return script("index_presence", (index_key,), (expiry_s, member), replies.integer)


def beat(
    server_key: str, workers_key: str, *, ttl_s: int, server_info: bytes, workers: Mapping[str, bytes]
) -> Operation[None]:
    """Publish the presence of a worker process and its running tasks, for `ttl_s` seconds."""
    args: list[Argument] = [ttl_s, server_info]
    for task_id, info in workers.items():
        args += (task_id, info)
    return script("beat", (server_key, workers_key), args, replies.nothing)


def extend_presence(server_key: str, *, ttl_s: int) -> Operation[bool]:
    """Extend the presence of an idle worker. The answer is False if it has expired."""
    return command("extend_presence", ("EXPIRE", server_key, ttl_s), replies.boolean)


def unindex_presence(index_key: str, member: str) -> Operation[int]:
    """Remove a worker process (or the list of its running tasks) from an index."""
    return command("unindex_presence", ("ZREM", index_key, member), replies.integer)


def clear_presence(server_key: str, workers_key: str) -> Operation[int]:
    """Delete the presence of a worker process."""
    return command("clear_presence", ("DEL", server_key, workers_key), replies.integer, keys=(server_key, workers_key))


class CancelOutcome(StrEnum):
    """State of a running task after its cancellation, as requested by the caller."""

    ARCHIVE = "archive"
    RETRY = "retry"
    DISCARD = "discard"
    STEPS = "steps"
    """The steps of the task have begun. So its own code ends it, as requested in the record of its steps."""


def ask_cancel(
    queue: QueueKeys, channel: str, task_id: str, outcome: CancelOutcome, *, generation: str = ""
) -> Operation[tuple[str | None, int]]:
    """Ask the worker of a running task to cancel it, and store the state that the task gets then.

    With `generation`, only the task that has it is cancelled. The answer is the state of the task now, None if it is
    missing, and the number of subscribers in all databases, 0 if the task does not run.
    """

    def read(reply: Any) -> tuple[str | None, int]:
        return None if reply[0] is None else replies.shown(reply[0]), int(reply[1])

    keys = (queue.task(task_id), queue.steps_of(task_id))
    return script("ask_cancel", keys, (NOW, outcome.value, generation, channel, task_id), read)


SETTLE_CANCELS: Mapping[str, CancelOutcome] = {each.value[0]: each for each in CancelOutcome}
"""The codes of `settle` for a run that must end as cancelled instead of waiting. See `settle.lua`."""


def read_cancel(queue: QueueKeys, task_id: str) -> Operation[CancelOutcome]:
    """Read what a caller has requested for a running task after its cancellation (`CancelOutcome`)."""

    def read(reply: Any) -> CancelOutcome:
        stored, started = (b"" if each is None else each for each in reply)
        run, _, outcome = stored.rpartition(b":")
        try:
            return CancelOutcome(outcome.decode()) if run == started else CancelOutcome.ARCHIVE
        except ValueError:
            return CancelOutcome.ARCHIVE

    key = queue.task(task_id)
    return command("read_cancel", ("HMGET", key, "taskq_cancel", "taskq_started"), read)


def cancel(channel: str, task_id: str) -> Operation[int]:
    """Ask the worker of a workflow step to cancel it. The answer is the number of subscribers in all databases."""
    return command("cancel", ("PUBLISH", channel, task_id), replies.integer)
