"""What is sent to Redis and how its answer reads: every rule once, without input or output.

Each function returns an `Operation`: a script (or a plain command) with its keys and arguments, a reader that turns the
reply into a typed value, and whether it may be sent again when the reply was lost. The runners in `sync` and `aio` only
send it. A repeat is safe because the script recognises it: an enqueue by the receipt of its caller's last call, a
dequeue by the number of the call, everything else because doing it twice changes nothing more.

`now_ns` replaces Redis's clock in tests and is None in production.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from taskq_core.broker.scripts import Script, load
from taskq_core.errors import BrokerReplyError
from taskq_core.wire import QueueKeys, TaskState

T = TypeVar("T")
Argument = str | bytes | int

STATISTICS_KEPT_S = 7_776_000
"""Seconds a daily counter is kept: 90 days, as upstream."""
ARCHIVE_KEPT_S = 7_776_000
"""Seconds an archived task is kept: 90 days, as upstream."""
ARCHIVE_MAX = 10_000
"""Most archived tasks of a queue."""
RECEIPT_KEPT_S = 120
"""Seconds an enqueue's receipt is kept: longer than any caller repeats it."""
BATCH_MAX = 200
"""Most tasks one script call handles."""
BATCH_BYTES = 1 << 20
"""Bytes of messages after which a batch takes no further task."""


@dataclass(slots=True)
class Operation(Generic[T]):
    """One request to Redis as a value.

    Attributes:
        name: What it does, for errors and tests.
        script: The script, or None when `args` is a plain command.
        keys: Keys the script declares. They share one cluster slot.
        args: The script's arguments, or the whole command.
        read: Turns the reply into the typed answer.
        repeatable: True if it may be sent again when its outcome is unknown.
        block_s: Seconds a blocking command may wait in Redis, beyond the usual time for an answer.
    """

    name: str
    script: Script | None
    keys: tuple[str, ...]
    args: Sequence[Argument]
    read: Callable[[Any], T]
    repeatable: bool = True
    block_s: float = 0.0

    def command(self) -> tuple[Argument, ...]:
        """The words to send."""
        if self.script is None:
            return tuple(self.args)
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def command_with_text(self) -> tuple[Argument, ...]:
        """The words to send to a server that does not know the script yet."""
        assert self.script is not None
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)


def _time(now_ns: int | None) -> str:
    return "" if now_ns is None else str(now_ns)


def _text(reply: Any) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _integer(reply: Any) -> int:
    return int(reply)


def _boolean(reply: Any) -> bool:
    return int(reply) == 1


def _nothing(reply: Any) -> None:
    return None


# --- enqueue ----------------------------------------------------------------------------------------------------------


class EnqueueCode(StrEnum):
    """What became of one task of an enqueue."""

    STORED = "1"
    ID_CONFLICT = "0"
    DUPLICATE = "d"


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
    """

    task_id: str
    message: bytes
    start_at_s: int | None = None
    start_in_ms: int | None = None
    unique_key: str = ""
    unique_s: int = 0

    @property
    def is_plain(self) -> bool:
        """True if it is stored as pending at once, without a lock."""
        return self.start_at_s is None and self.start_in_ms is None and not self.unique_key


class ReceiptLane:
    """Numbers the enqueue calls of one caller, who makes one call at a time.

    A repeat under the same number finds the receipt of the first and changes nothing.
    """

    __slots__ = ("call", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.call = 0


def _read_codes(reply: Any) -> str:
    return _text(reply)


def enqueue(
    queue: QueueKeys, tasks: Sequence[NewTask], lane: ReceiptLane, *, now_ns: int | None = None
) -> Operation[str]:
    """Store tasks of one queue; at most `BATCH_MAX` of about `BATCH_BYTES`.

    Reads as one `EnqueueCode` character per task. Refused whole when Redis is over its memory limit.
    """
    lane.call += 1
    args: list[Argument] = [_time(now_ns), lane.call, RECEIPT_KEPT_S, queue.task_prefix]
    if all(task.is_plain for task in tasks):
        args.append(2)
        for task in tasks:
            args += (task.task_id, task.message)
    else:
        args.append(5)
        for task in tasks:
            if task.start_at_s is not None:
                start = f"={task.start_at_s}"
            elif task.start_in_ms is not None:
                start = f"+{task.start_in_ms}"
            else:
                start = ""
            args += (task.task_id, task.message, start, task.unique_key, task.unique_s)
    keys = (queue.pending, queue.scheduled, queue.wake, queue.receipt(lane.token))
    return Operation("enqueue", load("enqueue"), keys, args, _read_codes)


def register_queue(queues_key: str, names: Iterable[str]) -> Operation[int]:
    """Add queues to the set of known ones. Not in the enqueue script: the set lives on another cluster slot."""
    return Operation("register_queue", None, (queues_key,), ("SADD", queues_key, *names), _integer)


# --- worker -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Dequeued:
    """Tasks handed out by one dequeue.

    Attributes:
        now_ns: Redis's time, Unix ns.
        lease_expiry_s: Unix second at which the lease of these tasks ends, by Redis's clock.
        dropped: Ids that were listed but had no message; they are gone.
        tasks: Pairs of id and message bytes, oldest first.
    """

    now_ns: int
    lease_expiry_s: int
    dropped: int
    tasks: list[tuple[str, bytes]]


def _read_dequeued(reply: Any) -> Dequeued:
    pairs = iter(reply[3:])
    return Dequeued(
        int(reply[0]),
        int(reply[1]),
        int(reply[2]),
        [(task_id.decode("utf-8", "surrogateescape"), message) for task_id, message in zip(pairs, pairs, strict=True)],
    )


def dequeue(
    queue: QueueKeys,
    *,
    owner: str,
    call: int,
    limit: int,
    lease_s: int,
    lane: str = "",
    max_bytes: int = BATCH_BYTES,
    now_ns: int | None = None,
) -> Operation[Dequeued]:
    """Take up to `limit` pending tasks for the worker `owner`. A paused queue gives none.

    The same `call` number again on the same `lane` of the worker returns the tasks it handed out before.
    """
    keys = (queue.pending, queue.active, queue.lease, queue.paused, queue.wake, queue.call(owner + lane))
    args = (_time(now_ns), owner, call, limit, max_bytes, lease_s, queue.task_prefix)
    return Operation("dequeue", load("dequeue"), keys, args, _read_dequeued)


class Outcome(StrEnum):
    """How the run of an active task ended."""

    DONE = "d"
    COMPLETE = "c"
    RETRY = "r"
    RETRY_UNCOUNTED = "n"
    ARCHIVE = "a"
    REQUEUE = "q"


class SettleCode(StrEnum):
    """What became of one settlement."""

    SETTLED = "1"
    NOT_OWNED = "0"
    SEND_AGAIN = "2"


@dataclass(slots=True)
class Settlement:
    """The end of one run.

    Attributes:
        task_id: Id of the task.
        outcome: How it ended.
        message: TaskMessage bytes to store (complete, retry, archive).
        seconds: Retention for COMPLETE.
        delay_ms: Milliseconds until the next attempt for RETRY and RETRY_UNCOUNTED.
        unique_key: Lock to free for DONE and COMPLETE, "" for none.
        result: Result bytes for COMPLETE, b"" for none.
        is_young: True if the task is among the youngest active ones, which makes it cheaper to find.
    """

    task_id: str
    outcome: Outcome
    message: bytes = b""
    seconds: int = 0
    delay_ms: int = 0
    unique_key: str = ""
    result: bytes = b""
    is_young: bool = True


def _housekeeping(queue: QueueKeys) -> tuple[Argument, ...]:
    return (queue.prefix, queue.done, STATISTICS_KEPT_S, ARCHIVE_KEPT_S, ARCHIVE_MAX)


def settle(
    queue: QueueKeys, settlements: Sequence[Settlement], *, owner: str, now_ns: int | None = None
) -> Operation[str]:
    """End the runs of tasks of one queue. Reads as one `SettleCode` character per task.

    A repeat after a lost reply answers NOT_OWNED for what the first call settled.
    """
    args: list[Argument] = [_time(now_ns), owner, *_housekeeping(queue)]
    if all(each.outcome is Outcome.DONE and not each.unique_key for each in settlements):
        args.append(2)
        for each in settlements:
            args += ("d+" if each.is_young else "d", each.task_id)
    else:
        args.append(6)
        for each in settlements:
            args += (
                each.outcome + "+" if each.is_young else each.outcome.value,
                each.task_id,
                each.message,
                each.seconds if each.outcome is Outcome.COMPLETE else each.delay_ms,
                each.unique_key,
                each.result,
            )
    return Operation("settle", load("settle"), _settle_keys(queue), args, _read_codes)


def settle_done(queue: QueueKeys, task_ids: Sequence[str], *, owner: str, now_ns: int | None = None) -> Operation[str]:
    """End runs that succeeded lately with nothing to keep and no lock. Reads as `settle`."""
    args: list[Argument] = [_time(now_ns), owner, *_housekeeping(queue), 2]
    for task_id in task_ids:
        args += ("d+", task_id)
    return Operation("settle", load("settle"), _settle_keys(queue), args, _read_codes)


def _settle_keys(queue: QueueKeys) -> tuple[str, ...]:
    return (queue.active, queue.lease, queue.pending, queue.completed, queue.retry, queue.archived, queue.wake)


@dataclass(slots=True)
class Extended:
    """Answer to an extension: Redis's time (Unix ns) and per task whether it is still this worker's."""

    now_ns: int
    kept: list[bool]


def _read_extended(reply: Any) -> Extended:
    return Extended(int(reply[0]), [code == "1" for code in _text(reply[1])])


def extend_leases(
    queue: QueueKeys, task_ids: Sequence[str], *, owner: str, lease_s: int, now_ns: int | None = None
) -> Operation[Extended]:
    """Let the leases of running tasks end `lease_s` from now."""
    args: tuple[Argument, ...] = (_time(now_ns), owner, lease_s, queue.task_prefix, *task_ids)
    return Operation("extend_leases", load("extend"), (queue.lease, queue.absent), args, _read_extended)


def write_result(queue: QueueKeys, task_id: str, result: bytes, *, owner: str) -> Operation[bool]:
    """Store the result of a running task. Reads as False when the task is not this worker's any more."""
    keys = (queue.task(task_id), queue.lease)
    return Operation("write_result", load("write_result"), keys, (owner, task_id, result), _boolean)


def quarantine(queue: QueueKeys, task_id: str, *, owner: str, now_ns: int | None = None) -> Operation[bool]:
    """Set an active task with an unreadable message aside, its bytes kept."""
    keys = (queue.active, queue.lease, queue.task(task_id), queue.quarantine, queue.quarantined(task_id))
    return Operation("quarantine", load("quarantine"), keys, (_time(now_ns), owner, task_id), _boolean)


# --- services ---------------------------------------------------------------------------------------------------------


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
        queue.absent,
    )
    args = (_time(now_ns), owner, leader_ms, queue.prefix, limit)
    return Operation(
        "forward",
        load("forward"),
        keys,
        args,
        lambda reply: Forwarded(int(reply[0]), int(reply[1]) == 1, int(reply[2]), int(reply[3])),
    )


@dataclass(slots=True)
class ExpiredTask:
    """A task whose lease ran out: id, lease expiry (as listed) and message bytes, b"" where there is none."""

    task_id: str
    lease_expiry: str
    message: bytes


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
            ExpiredTask(task_id.decode("utf-8", "surrogateescape"), _text(expiry), message)
            for task_id, expiry, message in zip(words, words, words, strict=True)
        ],
    )


def list_expired(queue: QueueKeys, *, grace_s: int, limit: int = 100, now_ns: int | None = None) -> Operation[Expired]:
    """List tasks whose lease ran out at least `grace_s` ago."""
    args = (_time(now_ns), grace_s, limit, queue.task_prefix)
    return Operation("list_expired", load("expired"), (queue.lease,), args, _read_expired)


class Verdict(StrEnum):
    """What to do with a task taken back from a silent worker."""

    RETRY = "r"
    RETRY_UNCOUNTED = "n"
    ARCHIVE = "a"
    QUARANTINE = "z"
    DROP = "x"


@dataclass(slots=True)
class Recovery:
    """A verdict on one listed task, with the message to store and the ms until the next attempt."""

    task: ExpiredTask
    verdict: Verdict
    message: bytes = b""
    delay_ms: int = 0


def recover(
    queue: QueueKeys, recoveries: Sequence[Recovery], *, grace_s: int, now_ns: int | None = None
) -> Operation[str]:
    """Take tasks back.

    Reads as one character per task: "1" moved, "0" left alone, since it was settled, extended or taken meanwhile.
    """
    args: list[Argument] = [_time(now_ns), grace_s, *_housekeeping(queue), queue.quarantined("")]
    for each in recoveries:
        args += (
            each.verdict.value,
            each.task.task_id,
            each.task.lease_expiry,
            each.task.message,
            each.message,
            each.delay_ms,
        )
    keys = (queue.active, queue.lease, queue.retry, queue.archived, queue.quarantine)
    return Operation("recover", load("recover"), keys, args, _read_codes)


def clean(queue: QueueKeys, *, limit: int = 100, now_ns: int | None = None) -> Operation[tuple[int, int]]:
    """Delete what is kept no longer. Reads as (completed, archived) tasks deleted; at most `limit` and 100."""
    args = (_time(now_ns), queue.task_prefix, limit, ARCHIVE_KEPT_S, ARCHIVE_MAX)
    return Operation(
        "clean",
        load("clean"),
        (queue.completed, queue.archived),
        args,
        lambda reply: (int(reply[0]), int(reply[1])),
    )


def lead(queue: QueueKeys, service: str, *, owner: str, leader_ms: int) -> Operation[bool]:
    """Take or renew the lease of a service of the queue. Reads as True while this worker leads."""
    return Operation("lead", load("lead"), (queue.leader(service), queue.absent), (owner, leader_ms), _boolean)


def resign(queue: QueueKeys, service: str, *, owner: str) -> Operation[bool]:
    """Give up the lease of a service, if this worker holds it."""
    return Operation("resign", load("resign"), (queue.leader(service),), (owner,), _boolean)


def rouse(queue: QueueKeys) -> Operation[bool]:
    """Put a wake token if tasks are pending and none lies there. Reads as True if one was put."""
    return Operation("rouse", load("rouse"), (queue.pending, queue.wake), (), _boolean)


def wait_for_wake(wake_keys: Sequence[str], *, timeout_s: float) -> Operation[str | None]:
    """Wait for a wake token on any of the keys. Reads as the key it came from, or None after the time."""
    return Operation(
        "wait_for_wake",
        None,
        tuple(wake_keys),
        ("BLPOP", *wake_keys, f"{timeout_s:.3f}"),
        lambda reply: None if reply is None else _text(reply[0]),
        block_s=timeout_s,
    )


def watch_pending(queue: QueueKeys, *, timeout_s: float) -> Operation[bool]:
    """Wait until the queue has a pending task, changing nothing. Reads as False after the time.

    The tail is moved onto itself, which blocks while the list is empty.
    """
    return Operation(
        "watch_pending",
        None,
        (queue.pending,),
        ("BLMOVE", queue.pending, queue.pending, "RIGHT", "RIGHT", f"{timeout_s:.3f}"),
        lambda reply: reply is not None,
        block_s=timeout_s,
    )


def index_presence(index_key: str, member: str, *, expiry_s: int) -> Operation[int]:
    """Note in an index until when a server (or its workers) counts as alive, Unix s."""
    return Operation("index_presence", load("index"), (index_key,), (expiry_s, member), _integer)


def beat(
    server_key: str, workers_key: str, *, ttl_s: int, server_info: bytes, workers: Mapping[str, bytes]
) -> Operation[None]:
    """Write a worker's presence: itself and its running tasks."""
    args: list[Argument] = [ttl_s, server_info]
    for task_id, info in workers.items():
        args += (task_id, info)
    return Operation("beat", load("beat"), (server_key, workers_key), args, _nothing)


def unindex_presence(index_key: str, member: str) -> Operation[int]:
    """Take a server (or its workers) out of an index."""
    return Operation("unindex_presence", None, (index_key,), ("ZREM", index_key, member), _integer)


def clear_presence(server_key: str, workers_key: str) -> Operation[int]:
    """Delete a worker's presence."""
    return Operation("clear_presence", None, (server_key, workers_key), ("DEL", server_key, workers_key), _integer)


def cancel(channel: str, task_id: str) -> Operation[int]:
    """Ask whichever worker runs the task to cancel it. Reads as the number of workers told."""
    return Operation("cancel", None, (channel,), ("PUBLISH", channel, task_id), _integer)


# --- looking ----------------------------------------------------------------------------------------------------------


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
        return TaskState(_text(word))
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
    return Operation("count_tasks", load("info"), keys, (_time(now_ns), queue.prefix), _read_counts)


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
    return Operation("ping", None, (), ("PING",), lambda reply: reply is True or _text(reply) == "PONG")
