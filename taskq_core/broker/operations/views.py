"""Read tasks and counts of queues, and withdraw a task."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Struct, field

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.limits import WAITING_SCORE_S
from taskq_core.broker.operations.operation import BATCH_BYTES, MESSAGE_MAX, NOW, Operation, command, owner_of, script
from taskq_core.errors import BrokerReplyError
from taskq_core.wire import QueueKeys, TaskState


class StoredTask(Struct):
    """One task as Redis stores it.

    Attributes:
        task_id: Id of the task.
        state: State word, None in a list of one state.
        message: TaskMessage bytes, b"" if they are missing.
        result: Result bytes, b"" if there is none.
        score: Unix s in the set of its state: lease expiry, start, next attempt, time archived, end of retention.
        owner: Token of the worker that runs it, "" if it does not run. Scans omit this and all later fields except
            `pending_ms`.
        started_ms: When that worker dequeued it, Unix ms, None if unknown.
        attempts: Records of its attempts, one line each. Listings omit it.
        progress: Progress last reported by the task.
        pending_ms: When it became pending, Unix ms, None if unknown or not pending. Listings and scans have it.
        last_attempt: Beginning of the record of its last attempt. Only listings have it.
        wait: The wait of a scheduled task, "<end, Unix ms, or '-'> <wait>", see `_steps.lua`. Listings have it.
        unique_rule: Rule of its unique lock, "" if it has no lock, or one as Asynq's.
        oversized: Size and limit of a result that was too large to store or read, else b"". Listings have it.
        line: Limit for which it waits, as kind:name:key, "" if it waits for none; None in a listing.
        generation: Its generation, "" if unknown, see `_generation.lua`. Listings and scans have it.
    """

    task_id: str
    state: TaskState | None
    message: bytes
    result: bytes
    score: int | None
    owner: str = ""
    started_ms: int | None = None
    attempts: bytes = b""
    progress: bytes = b""
    unique_rule: str = ""
    line: str | None = None
    oversized: bytes = b""
    pending_ms: int | None = None
    last_attempt: bytes = b""
    wait: str = ""
    generation: str = ""


def key_of(queue: QueueKeys, state: TaskState, group: str | None = None) -> str:
    """Return the key of the list or sorted set of a state. Aggregating tasks are in the set of their group."""
    if state is TaskState.AGGREGATING:
        assert group is not None
        return queue.group(group)
    return queue.prefix + state.value


def is_list(state: TaskState) -> bool:
    """Return whether Redis stores the tasks of a state in a list, and not in a sorted set."""
    return state in (TaskState.PENDING, TaskState.ACTIVE)


def _score(value: Any) -> int | None:
    try:
        return int(float(value)) if value else None
    except OverflowError:
        return None  # an infinite score does not represent a time


def _state(queue: QueueKeys, task_id: str, word: Any) -> TaskState:
    try:
        return TaskState(replies.text(word))
    except ValueError:
        raise BrokerReplyError(f"task {task_id!r} in {queue.name!r} has an unknown state") from None


def read_task(
    queue: QueueKeys,
    task_id: str,
    *,
    publish_end: bool = False,
    publish_changes: bool = False,
    max_message: int = MESSAGE_MAX,
    max_result: int = 512 << 20,
    identify: bool = False,
) -> Operation[StoredTask | None]:
    """Read one task. The answer is None if it does not exist.

    `publish_end` requests that its end is published on `queue.done`. `publish_changes` requests this also for its
    progress and its changes of state. Of a message or a result over its limit, only the size is read. By
    default, any result is read, because Redis stores at most 512 MiB. With `identify`, the task gets a generation if it
    has none.
    """

    def read(reply: Any) -> StoredTask | None:
        if reply is None:
            return None
        state = _state(queue, task_id, reply[0])
        stored = StoredTask(task_id, state, reply[1], reply[2], _score(reply[3]), attempts=reply[6], progress=reply[7])
        stored.oversized = reply[10]
        owner = owner_of(reply[4], reply[3])
        if state is TaskState.ACTIVE and owner:
            stored.owner = owner
            stored.started_ms = int(reply[5]) if reply[5].isdigit() else None
        stored.unique_rule = replies.shown(reply[8])
        stored.line = replies.shown(reply[9]) if stored.score == WAITING_SCORE_S else ""
        stored.wait, stored.generation = replies.shown(reply[11]), replies.shown(reply[12])
        return stored

    args = (
        task_id,
        queue.prefix,
        2 if publish_changes else int(publish_end),
        queue.own_prefix,
        max_message,
        max_result,
        int(identify),
    )
    return script("read_task", (queue.task(task_id),), args, read)


def locate(queues: Sequence[QueueKeys], task_id: str) -> Operation[list[str]]:
    """Find the queues, among at most 500 given ones, that have a task with this id. Not for a cluster.

    Queues whose keys the user may not read are ignored, unless that holds for all of them.
    """

    def read(reply: Any) -> list[str]:
        return [queue.name for queue, exists in zip(queues, reply, strict=True) if exists]

    return script("locate", (), tuple(queue.task(task_id) for queue in queues), read)


LISTED_WORDS = 12
"""Number of reply elements per task in the answer of `list_tasks`."""


def _listed(
    state: TaskState,
    task_id: bytes,
    message: bytes,
    result: bytes,
    score: bytes,
    oversized: bytes,
    *more: bytes,
) -> StoredTask:
    fence, started, progress, since, wait, attempt, generation = more
    stored = StoredTask(replies.shown(task_id), state, message, result, _score(score), oversized=oversized)
    owner = owner_of(fence, score) if state is TaskState.ACTIVE else ""
    if owner:
        stored.owner, stored.started_ms = owner, int(started) if started.isdigit() else None
    stored.last_attempt, stored.progress, stored.wait = attempt, progress, replies.shown(wait)
    stored.pending_ms = _pending_ms(state, since)
    stored.generation = replies.shown(generation)
    return stored


def _pending_ms(state: TaskState, since_ns: bytes) -> int | None:
    """Return when a pending task became pending. Tasks of other states may have kept an earlier value."""
    return int(since_ns) // 1_000_000 if since_ns.isdigit() and state is TaskState.PENDING else None


class Page(Struct):
    """A page of tasks in one state, and the number of all of them."""

    size: int
    tasks: list[StoredTask]


def list_tasks(
    queue: QueueKeys,
    state: TaskState,
    *,
    skip: int,
    count: int,
    group: str | None = None,
    max_bytes: int = BATCH_BYTES,
    is_reversed: bool = False,
) -> Operation[Page]:
    """Read a page of the tasks in one state, at most 1000.

    The task that runs next or was started first comes first, or last if `is_reversed`. Aggregating tasks are listed by
    group, oldest first. The page ends once `max_bytes` are read.
    """

    def read(reply: Any) -> Page:
        words = iter(reply[1:])
        return Page(int(reply[0]), [_listed(state, *each) for each in zip(*[words] * LISTED_WORDS, strict=True)])

    key = key_of(queue, state, group)
    lease = queue.lease if state is TaskState.ACTIVE else ""
    own = queue.own_prefix if state is TaskState.SCHEDULED else ""
    kind = "list" if is_list(state) else "zset"
    args = (kind, skip, count, queue.task_prefix, lease, max_bytes, int(is_reversed), own, MESSAGE_MAX)
    return script("list_tasks", (key,), args, read)


class QueueCounts(Struct):
    """Counts of one queue.

    Attributes:
        now_ns: Redis's time, Unix ns.
        sizes: Tasks by state.
        is_paused: True while workers take no tasks of the queue, because a user has paused it.
        processed, failed: Number of runs and of failed runs since the queue was created.
        processed_today, failed_today: The same numbers since midnight UTC.
        latency_s: Seconds the next task to run has been pending, None if unknown.
        groups: Number of groups that have members.
        limited: Number of scheduled tasks that wait for a limit.
    """

    now_ns: int
    sizes: dict[TaskState, int] = field(default_factory=lambda: dict.fromkeys(TaskState, 0))
    is_paused: bool = False
    processed: int = 0
    failed: int = 0
    processed_today: int = 0
    failed_today: int = 0
    latency_s: float | None = None
    groups: int = 0
    limited: int = 0


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
        groups=int(reply[14]),
        limited=int(reply[15]),
    )


def count_tasks(queue: QueueKeys) -> Operation[QueueCounts]:
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
    return script("count_tasks", keys, (NOW, queue.prefix), _read_counts)


def list_queues(queues_key: str) -> Operation[list[str]]:
    """Read the names of all known queues, sorted."""
    return command("list_queues", ("SMEMBERS", queues_key), lambda reply: sorted(replies.shown(name) for name in reply))


def has_queue(queues_key: str, name: str) -> Operation[bool]:
    """Return whether a queue is in the set of known queues."""
    return command("has_queue", ("SISMEMBER", queues_key, name), replies.boolean)


def read_state(queue: QueueKeys, task_id: str) -> Operation[str | None]:
    """Read the stored state word of a task, None if the task does not exist."""
    key = queue.task(task_id)

    def read(reply: Any) -> str | None:
        return None if reply is None else replies.shown(reply)  # the state of a damaged task may be any bytes

    return command("read_state", ("HGET", key, "state"), read)


def count_state(queue: QueueKeys, state: TaskState, *, group: str | None = None) -> Operation[int]:
    """Count the tasks of one state, or of one group."""
    key = key_of(queue, state, group)
    return command("count_state", ("LLEN" if is_list(state) else "ZCARD", key), replies.integer)


class ScanPlace(NamedTuple):
    """Position of a scan: number of tasks read of a list, or score and id of the last task read of a sorted set."""

    skip: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0
    score: Annotated[str, msgspec.Meta(pattern="^[-+.0-9einf]*$")] = ""
    task_id: str = ""


SCAN_START = ScanPlace()


class Scan(Struct):
    """Tasks that `scan_tasks` has read, and the position after each.

    Attributes:
        size: Number of all tasks in the structure.
        is_end: True if no task follows.
        ids: Ids of the tasks, maybe with bytes that are not UTF-8.
        places: Position of the scan after each task.
        tasks: The tasks, empty with `ids_only`. The score of a pending task is the second in which it became pending.
    """

    size: int
    is_end: bool
    ids: list[str]
    places: list[ScanPlace]
    tasks: list[StoredTask]


def scan_tasks(
    queue: QueueKeys,
    state: TaskState,
    place: ScanPlace,
    *,
    count: int,
    group: str | None = None,
    ids_only: bool = False,
    max_bytes: int = BATCH_BYTES,
    is_reversed: bool = False,
) -> Operation[Scan]:
    """Read tasks after a position: of a list from the newest on, of a sorted set from the lowest score on.

    With `is_reversed`, a sorted set is read from the highest score on. `count` is at most 1000 ids, and should be at
    most 200 without `ids_only`.
    """
    listed = is_list(state)

    def read(reply: Any) -> Scan:
        scan = Scan(int(reply[0]), int(reply[1]) == 1, [], [], [])
        words = iter(reply[2:])
        for number, raw_id in enumerate(words, start=1):
            score = next(words)
            task_id = replies.name(raw_id)
            scan.ids.append(task_id)
            scan.places.append(ScanPlace(place.skip + number) if listed else ScanPlace(0, replies.text(score), task_id))
            if not ids_only:
                message, result, oversized, since, generation = (next(words) for _ in range(5))
                since_ms = _pending_ms(state, since)
                second = None if since_ms is None else since_ms // 1000
                stored = StoredTask(replies.shown(raw_id), state, message, result, second if listed else _score(score))
                stored.oversized, stored.pending_ms = oversized, since_ms
                stored.generation = replies.shown(generation)
                scan.tasks.append(stored)
        return scan

    kind = "reversed" if is_reversed else "zset"
    at = ("list", place.skip, "") if listed else (kind, place.score, place.task_id)
    args = (*at, count, "" if ids_only else queue.task_prefix, max_bytes, MESSAGE_MAX)
    return script("scan_tasks", (key_of(queue, state, group),), args, read)


def count_groups(queue: QueueKeys, cursor: str, *, count: int = 200) -> Operation[tuple[str, dict[str, int]]]:
    """Count the members of some groups. The answer is the next cursor ("0" at both ends), and the sizes by name."""

    def read(reply: Any) -> tuple[str, dict[str, int]]:
        return replies.text(reply[0]), {replies.name(name): int(size) for name, size in replies.pairs(reply[1:])}

    return script("count_groups", (queue.groups,), (cursor, queue.group_prefix, count), read)


def count_group_names(queue: QueueKeys) -> Operation[int]:
    """Count the groups of a queue."""
    return command("count_group_names", ("SCARD", queue.groups), replies.integer)


def _counted(value: bytes | None) -> int:
    """Read a counter. A value that is not a number counts as 0, and the next increment replaces it."""
    try:
        return int(value or 0)
    except ValueError:
        return 0


def count_days(queue: QueueKeys, days: Sequence[date]) -> Operation[list[tuple[int, int]]]:
    """Read the counters of days: (processed, failed) of each."""
    keys = tuple(key(day) for day in days for key in (queue.daily_processed, queue.daily_failed))

    def read(reply: Any) -> list[tuple[int, int]]:
        numbers = iter([_counted(value) for value in reply])
        return list(zip(numbers, numbers, strict=True))

    return command("count_days", ("MGET", *keys), read, keys=keys)


def estimate_memory(queue: QueueKeys, *, samples: int = 20) -> Operation[int]:
    """Estimate the memory of the tasks of a queue in bytes, from the sizes of some of them."""
    keys = (queue.active, queue.pending, queue.scheduled, queue.retry, queue.archived, queue.completed, queue.groups)
    return script("estimate_memory", keys, (queue.prefix, samples), replies.integer)


def ping() -> Operation[bool]:
    """Check that Redis answers."""
    return command("ping", ("PING",), lambda reply: reply is True or replies.text(reply) == "PONG", keys=())
