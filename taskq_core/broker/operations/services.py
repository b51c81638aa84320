"""Requests of a worker's services: forward, recover, clean, lead, wait, publish presence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import (
    ARCHIVE,
    Argument,
    Operation,
    command,
    has_start_mark,
    housekeeping,
    owner_of,
    script,
    time_argument,
)
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import QueueKeys

LOOKOUT = "lookout"
"""Service whose lease one taskq worker of each queue holds at all times."""


@dataclass(slots=True)
class Forwarded:
    """Answer to a forward: Redis's time (Unix ns), whether this worker leads, tasks moved, ids dropped."""

    now_ns: int
    leads: bool
    moved: int
    dropped: int


def forward(
    queue: QueueKeys, *, owner: str, leader_ms: int, limit: int = 100, now_ns: int | None = None
) -> Operation[Forwarded]:
    """Move due scheduled tasks, then due retries, to pending, if this worker leads or takes the lead."""
    keys = (
        queue.scheduled,
        queue.retry,
        queue.pending,
        queue.groups,
        queue.wake,
        queue.leader("forwarder"),
    )
    args = (time_argument(now_ns), owner, leader_ms, queue.prefix, limit)
    return script(
        "forward", keys, args, lambda reply: Forwarded(int(reply[0]), int(reply[1]) == 1, int(reply[2]), int(reply[3]))
    )


@dataclass(slots=True)
class ExpiredTask:
    """A task whose lease ran out.

    Attributes:
        task_id: Its id.
        lease_expiry: When the lease ended, as listed.
        message: TaskMessage bytes, b"" where there are none.
        owner: Token of the worker that had it, "" if unknown.
        started_s: Unix second at which that worker got it, None if unknown.
        has_start_mark: False if the worker has not marked that it started this run. Only a run that may be the last
            of its task is marked; see `mark_starts`.
    """

    task_id: str
    lease_expiry: str
    message: bytes
    owner: str = ""
    started_s: float | None = None
    has_start_mark: bool = True


@dataclass(slots=True)
class Expired:
    """Redis's time (Unix ns) and the tasks whose lease ran out."""

    now_ns: int
    tasks: list[ExpiredTask]


def _read_expired(reply: Any) -> Expired:
    words = iter(reply[1:])
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
            for task_id, expiry, message, fence, started, mark in zip(*[words] * 6, strict=True)
        ],
    )


def list_expired(queue: QueueKeys, *, grace_s: int, limit: int = 100, now_ns: int | None = None) -> Operation[Expired]:
    """List tasks whose lease ran out at least `grace_s` ago."""
    args = (time_argument(now_ns), grace_s, limit, queue.task_prefix)
    return script("list_expired", (queue.lease,), args, _read_expired)


LEASES_LOOKED_AT = 200
"""About how many leases one call of `list_held` looks at."""


@dataclass(slots=True)
class Held:
    """Answer to a look at leases: the cursor of the next look ("0" at the end), and what the worker holds of these."""

    cursor: str
    found: Expired


def list_held(queue: QueueKeys, *, owner: str, cursor: str = "0", now_ns: int | None = None) -> Operation[Held]:
    """List the tasks that a worker holds, among some leases of the queue: those from a cursor on."""
    args = (time_argument(now_ns), owner, cursor, LEASES_LOOKED_AT, queue.task_prefix)
    return script(
        "list_held", (queue.lease,), args, lambda reply: Held(replies.text(reply[0]), _read_expired(reply[1:]))
    )


class Verdict(StrEnum):
    """What to do with a task taken back from a silent worker."""

    RETRY = "r"
    RETRY_UNCOUNTED = "n"
    ARCHIVE = "a"
    QUARANTINE = "z"
    DROP = "x"


@dataclass(slots=True)
class Recovery:
    """A verdict on one listed task: the message to store, the ms until the next attempt, the record of this one.

    `is_dead_letter` says whether a handler has to receive the task once it is archived.
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
    now_ns: int | None = None,
) -> Operation[str]:
    """Take tasks back: those whose lease ran out at least `grace_s` ago, or those of one worker that is known gone.

    `gone` is the token of that worker; how long its leases would hold does not matter then.

    Reads as one character per task: "1" moved, "0" left alone, since it was settled, extended or taken before, "2"
    not looked at, since so many are active that a call takes fewer.
    """
    args: list[Argument] = [time_argument(now_ns), grace_s, *housekeeping(queue, archive), queue.quarantined(""), gone]
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


def clean(
    queue: QueueKeys, *, limit: int = 100, archive: ArchiveLimits = ARCHIVE, now_ns: int | None = None
) -> Operation[tuple[int, int]]:
    """Delete tasks whose retention has ended. Reads as (completed, archived) tasks deleted; at most `limit` and 100."""
    args = (time_argument(now_ns), queue.task_prefix, limit, archive.kept_s, archive.max_tasks)
    return script("clean", (queue.completed, queue.archived), args, lambda reply: (int(reply[0]), int(reply[1])))


def lead(leader_key: str, *, owner: str, leader_ms: int) -> Operation[bool]:
    """Take or renew the lease of a service. Reads as True while this worker leads."""
    return script("lead", (leader_key,), (owner, leader_ms), replies.boolean)


def renew_lead(queue: QueueKeys, service: str, *, owner: str, leader_ms: int) -> Operation[bool]:
    """Renew the lease of a service that this worker led just now. Reads as False if it is another's, or has ended.

    That of another one lasts a little longer then, which does no harm.
    """
    key = queue.leader(service)
    return command(
        "renew_lead", ("GETEX", key, "PX", leader_ms), lambda reply: reply is not None and replies.text(reply) == owner
    )


def lead_left(queue: QueueKeys, service: str) -> Operation[int]:
    """Read how many milliseconds the lease of a service lasts: -2 if it is free, -1 if it never ends."""
    key = queue.leader(service)
    return command("lead_left", ("PTTL", key), replies.integer)


def has_worker(queue: QueueKeys) -> Operation[bool]:
    """Ask whether a taskq worker serves a queue: one of them always leads it. Go's workers take no such lease."""
    key = queue.leader(LOOKOUT)
    return command("has_worker", ("EXISTS", key), replies.boolean)


def resign(leader_key: str, *, owner: str) -> Operation[bool]:
    """Give up the lease of a service, if this worker holds it."""
    return script("resign", (leader_key,), (owner,), replies.boolean)


class Notified(IntEnum):
    """What became of the wish to wake a worker."""

    PUT = 1
    """A token was put."""
    LIES = 0
    """One lies there already: no worker waits."""
    NOTHING = -1
    """No task is pending."""
    HELD = -2
    """A worker would be given nothing: the queue is paused, or as many of its tasks are active as may be."""


def notify(queue: QueueKeys, *, max_active: int | None = None) -> Operation[Notified]:
    """Put a wake token if tasks are pending, none lies there, and a worker would be given one.

    It would not while the queue is paused, or `max_active` of its tasks are active.
    """
    keys = (queue.pending, queue.wake, queue.paused, queue.active, queue.limits)
    most = "" if max_active is None else max_active
    return script("notify", keys, (most,), lambda reply: Notified(int(reply)))


def count_keys(keys: Sequence[str]) -> Operation[int]:
    """Count those of some keys of a queue that are there."""
    return command("count_keys", ("EXISTS", *keys), replies.integer, keys=tuple(keys))


def first_score(key: str) -> Operation[float | None]:
    """Read the lowest score of a sorted set. Reads as None if it is empty."""

    def read(reply: Any) -> float | None:
        if not reply:
            return None
        return float(reply[0][1] if isinstance(reply[0], list) else reply[1])  # a pair where the protocol has pairs

    return command("first_score", ("ZRANGE", key, 0, 0, "WITHSCORES"), read)


def wait_for_wake(wake_keys: Sequence[str], *, timeout_s: float) -> Operation[str | None]:
    """Wait for a wake token on any of the keys. Reads as the key it came from, or None after the time."""
    return command(
        "wait_for_wake",
        ("BLPOP", *wake_keys, f"{timeout_s:.3f}"),
        lambda reply: None if reply is None else replies.text(reply[0]),
        keys=tuple(wake_keys),
        block_s=timeout_s,
    )


def watch_pending(queue: QueueKeys, *, timeout_s: float) -> Operation[bool]:
    """Wait until the queue has a pending task, changing nothing. Reads as False after the time.

    The tail is moved onto itself, which blocks while the list is empty.
    """
    return command(
        "watch_pending",
        ("BLMOVE", queue.pending, queue.pending, "RIGHT", "RIGHT", f"{timeout_s:.3f}"),
        replies.is_given,
        block_s=timeout_s,
    )


def index_presence(index_key: str, member: str, *, expiry_s: int) -> Operation[int]:
    """Note in an index until when a server (or its workers) counts as alive, Unix s."""
    return script("index_presence", (index_key,), (expiry_s, member), replies.integer)


def beat(
    server_key: str, workers_key: str, *, ttl_s: int, server_info: bytes, workers: Mapping[str, bytes]
) -> Operation[None]:
    """Write a worker's presence: itself and its running tasks."""
    args: list[Argument] = [ttl_s, server_info]
    for task_id, info in workers.items():
        args += (task_id, info)
    return script("beat", (server_key, workers_key), args, replies.nothing)


def keep_presence(server_key: str, *, ttl_s: int) -> Operation[bool]:
    """Extend the presence of an idle worker. Reads as False if it does not exist."""
    return command("keep_presence", ("EXPIRE", server_key, ttl_s), replies.boolean)


def unindex_presence(index_key: str, member: str) -> Operation[int]:
    """Take a server (or its workers) out of an index."""
    return command("unindex_presence", ("ZREM", index_key, member), replies.integer)


def clear_presence(server_key: str, workers_key: str) -> Operation[int]:
    """Delete a worker's presence."""
    return command("clear_presence", ("DEL", server_key, workers_key), replies.integer, keys=(server_key, workers_key))


class CancelWish(StrEnum):
    """State of a running task after its worker has cancelled it."""

    ARCHIVE = "archive"
    RETRY = "retry"
    DISCARD = "discard"


def ask_cancel(queue: QueueKeys, task_id: str, wish: CancelWish) -> Operation[str | None]:
    """Store the wish of a caller that cancels a running task. Reads as the task's state, None if it does not exist."""
    return script(
        "ask_cancel",
        (queue.task(task_id),),
        (wish.value,),
        lambda reply: None if reply is None else replies.text(reply),
    )


def read_cancel(queue: QueueKeys, task_id: str) -> Operation[CancelWish]:
    """Read the wish of the caller that cancelled a running task."""

    def read(reply: Any) -> CancelWish:
        note, started = (b"" if each is None else each for each in reply)
        run, _, wish = note.rpartition(b":")
        try:
            return CancelWish(wish.decode()) if run == started else CancelWish.ARCHIVE
        except ValueError:
            return CancelWish.ARCHIVE

    key = queue.task(task_id)
    return command("read_cancel", ("HMGET", key, "taskq_cancel", "taskq_started"), read)


def cancel(channel: str, task_id: str) -> Operation[int]:
    """Ask whichever worker runs the task to cancel it. Reads as the number of subscribers, of all databases."""
    return command("cancel", ("PUBLISH", channel, task_id), replies.integer)
