"""Act on what is stored: run, archive, delete, put off, change and move tasks; pause and remove queues."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import (
    ARCHIVE,
    BATCH_BYTES,
    Argument,
    Operation,
    command,
    script,
    time_argument,
)
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import QueueKeys, TaskState

MOVE_S = 60
"""Seconds a task that has set out for another queue may take to arrive. Later it has to set out again."""
MOVE_RECEIPT_S = 2_592_000
"""Seconds the receipt of a moved task is kept if its move is never ended: 30 days."""


class Action(StrEnum):
    """Actions on tasks that do not run."""

    RUN = "run"
    ARCHIVE = "archive"
    DELETE = "delete"
    WAIT = "wait"
    CANCEL = "cancel"
    """Archive, with that as its error."""


class Refusal(StrEnum):
    """Why an action was refused. A reply that is not among these is the task's state."""

    NOT_FOUND = ""
    LOST = "lost"
    MOVING = "moving"
    CHANGED = "changed"
    DUPLICATE = "duplicate"


OK = "ok"
"""Answer for a task to which it was done."""


def _words(reply: Any) -> list[str]:
    return [replies.shown(word) for word in reply]


def _structures(queue: QueueKeys) -> tuple[str, ...]:
    return (queue.pending, queue.scheduled, queue.retry, queue.archived, queue.completed, queue.groups)


def act(
    queue: QueueKeys,
    action: Action,
    task_ids: Sequence[str],
    *,
    state: TaskState | None = None,
    start_at_s: int | None = None,
    start_in_ms: int = 0,
    archive: ArchiveLimits = ARCHIVE,
    repeatable: bool = True,
    now_ns: int | None = None,
) -> Operation[list[str]]:
    """Do something to tasks that do not run, at most `BATCH_MAX` of them.

    With `state` only to those in it. `start_at_s` or `start_in_ms` say until when `Action.WAIT` lets them wait.
    Reads as `OK`, a `Refusal` or the state that does not allow it, per task. After a lost answer, a repeat
    finds the changes of the first call and answers with the new state.
    """
    start = f"+{start_in_ms}" if start_at_s is None else f"={start_at_s}"
    args = (
        time_argument(now_ns),
        action.value,
        queue.prefix,
        queue.done,
        archive.kept_s,
        archive.max_tasks,
        "" if state is None else state.value,
        start,
        *task_ids,
    )
    keys = (*_structures(queue), queue.wake)
    return script("act", keys, args, _words, name=f"{action.value}_tasks", repeatable=repeatable)


def rewrite(
    queue: QueueKeys, task_id: str, *, old: bytes, new: bytes, old_lock: str = "", new_lock: str = ""
) -> Operation[str]:
    """Replace the message of a waiting task, unless it has changed since it was read. Reads as one answer of `act`."""
    args = ("", queue.prefix, task_id, "", old, new, old_lock, new_lock)
    return script("change_task", _structures(queue), args, replies.shown, name="rewrite")


def reschedule(
    queue: QueueKeys,
    task_id: str,
    *,
    start_at_s: int | None = None,
    start_in_ms: int = 0,
    old: bytes = b"",
    new: bytes = b"",
    old_lock: str = "",
    new_lock: str = "",
    now_ns: int | None = None,
) -> Operation[str]:
    """Let a task wait until another time, with another message unless `old` has changed.

    Reads as one answer of `act`. A repeat finds it done.
    """
    start = f"+{start_in_ms}" if start_at_s is None else f"={start_at_s}"
    args = (time_argument(now_ns), queue.prefix, task_id, start, old, new, old_lock, new_lock)
    return script("change_task", _structures(queue), args, replies.shown, name="reschedule")


def pause(queue: QueueKeys, *, now_ns: int | None = None) -> Operation[bool]:
    """Keep workers from taking tasks. Reads as False if it was so before."""
    args = (time_argument(now_ns),)
    return script("pause", (queue.paused,), args, replies.boolean, repeatable=False)


def resume(queue: QueueKeys) -> Operation[bool]:
    """Let workers take tasks again. Reads as False if the queue was not paused."""
    return command("resume", ("DEL", queue.paused), replies.boolean, repeatable=False)


# --- removing a queue -------------------------------------------------------------------------------------------------


def _aside(queue: QueueKeys) -> tuple[str, ...]:
    return (queue.aggregation_sets, queue.quarantine, queue.moving)


def _set_aside(queue: QueueKeys) -> tuple[str, ...]:
    kinds = (*(state.value for state in _REMOVED), "groups", "aggregation_sets", "quarantine", "moving")
    return tuple(queue.removed(kind) for kind in kinds)


_REMOVED = (TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.ARCHIVED, TaskState.COMPLETED)


@dataclass(slots=True)
class Closed:
    """Answer to the removal of a queue: tasks that run, tasks that count, all that do not run.

    `is_closed` is False if nothing was set aside, because tasks run or count, or because an earlier removal was cut off
    (`is_interrupted`): then what it set aside has to be discarded first, and the total is that of it.
    """

    active: int
    counting: int
    total: int
    is_closed: bool
    is_interrupted: bool


def _read_closed(reply: Any) -> Closed:
    active, counting, total, end = map(int, reply)
    return Closed(active, counting, total, end == 1, end == -1)


def close_queue(queue: QueueKeys, *, force: bool) -> Operation[Closed]:
    """Set all tasks of a queue aside, if none runs and, without `force`, none but completed ones is there."""
    return script(
        "close_queue",
        (queue.active, *_structures(queue), *_aside(queue), *_set_aside(queue)),
        (queue.group_prefix, 1 if force else 0),
        _read_closed,
    )


def is_half_removed(queue: QueueKeys) -> Operation[bool]:
    """Ask whether a removal has set tasks aside and not deleted them yet."""
    keys = _set_aside(queue)
    return command("is_half_removed", ("EXISTS", *keys), lambda reply: int(reply) > 0, keys=keys)


def discard(queue: QueueKeys, *, limit: int = 100) -> Operation[tuple[int, bool]]:
    """Delete tasks that were set aside. Reads as how many, and True if that was all."""
    args = (queue.prefix, queue.quarantined(""), queue.done, limit, queue.own_prefix)
    return script("discard", _set_aside(queue), args, lambda reply: (int(reply[0]), int(reply[1]) == 1))


def purge(queue: QueueKeys, cursor: str, *, own: bool, count: int = 500) -> Operation[str | None]:
    """Delete some of what is left of a removed queue, in Asynq's keys or in our own.

    Reads as the next cursor ("0" at the start and at the end), or None if new tasks were enqueued since.
    """
    keys = (queue.active, *_structures(queue), *_aside(queue))
    prefix = queue.own_prefix if own else queue.prefix
    args = (cursor, _escaped(prefix) + "*", count, prefix)
    return script("purge", keys, args, replies.optional_text)


def _escaped(name: str) -> str:
    return "".join(f"\\{char}" if char in "*?[]\\^-" else char for char in name)


def forget_queue(queues_key: str, name: str) -> Operation[int]:
    """Take a queue out of the set of known ones."""
    return command("forget_queue", ("SREM", queues_key, name), replies.integer)


# --- moving tasks to another queue ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Departure:
    """A task that was asked to set out for another queue.

    Attributes:
        task_id: Its id.
        answer: `OK`, a `Refusal` or the state that does not allow it; all else holds only for `OK`.
        move: Name of its move, by which the other queue knows it again.
        target: Name of the other queue.
        score: Its score in the structure it left, "" if that is a list.
        lock_ms: Milliseconds it holds its unique lock for, -1 for as long as its rule says, None if it holds none.
        fields: Its hash.
    """

    task_id: str
    answer: str
    move: str
    target: str
    score: str
    lock_ms: int | None
    fields: dict[bytes, bytes]


@dataclass(slots=True)
class Departures:
    """Redis's time (Unix s) and the tasks looked at; the others of those asked for are to be asked for again."""

    now_s: int
    tasks: list[Departure]


def move_out(
    queue: QueueKeys,
    task_ids: Sequence[str],
    *,
    token: str,
    target: str,
    state: TaskState | None = None,
    max_bytes: int = BATCH_BYTES,
    now_ns: int | None = None,
) -> Operation[Departures]:
    """Let tasks set out for another queue, at most `BATCH_MAX`; "" carries on moves that were cut off.

    Without ids it only reads the time.
    """

    def read(reply: Any) -> Departures:
        tasks, at = [], 1
        for task_id in task_ids:
            if at >= len(reply):
                break
            answer, move, to, score, lock_ms, words = reply[at : at + 6]
            at += 6 + int(words)
            flat = iter(reply[at - int(words) : at])
            fields = dict(zip(flat, flat, strict=True))
            held = int(lock_ms) if lock_ms != b"" and int(lock_ms) not in (0, -2) else None
            name = replies.name(to)
            tasks.append(
                Departure(task_id, replies.shown(answer), replies.text(move), name, replies.text(score), held, fields)
            )
        return Departures(int(reply[0]), tasks)

    args = (
        time_argument(now_ns),
        queue.prefix,
        token,
        target,
        "" if state is None else state.value,
        max_bytes,
        *task_ids,
    )
    return script("move_out", (*_structures(queue), queue.moving), args, read)


class ArrivalCode(StrEnum):
    """What became of a task at the other queue."""

    ARRIVED = "1"
    ID_CONFLICT = "0"
    DUPLICATE = "d"


def _read_codes(reply: Any) -> str | None:
    codes = replies.text(reply)
    return None if codes == "late" else codes


def move_in(
    queue: QueueKeys, tasks: Sequence[tuple[Departure, str]], *, until_s: int, now_ns: int | None = None
) -> Operation[str | None]:
    """Store tasks that have set out, each with the unique lock to take ("" for no lock), in their new queue.

    Reads as one `ArrivalCode` character per task, or None if it is later than `until_s`. A repeat changes nothing. It
    is sent only once, so that a refusal always says that none has arrived.
    """
    args: list[Argument] = [time_argument(now_ns), until_s, queue.prefix, MOVE_RECEIPT_S]
    for task, lock in tasks:
        args += (task.move, task.task_id, task.score, lock, task.lock_ms or 0, 2 * len(task.fields))
        for name, value in task.fields.items():
            args += (name, value)
    keys = (*_structures(queue), queue.wake, queue.moved)
    return script("move_in", keys, args, _read_codes, repeatable=False)


def move_end(
    queue: QueueKeys,
    *,
    token: str,
    gone: Sequence[Departure],
    back: Sequence[Departure],
    now_ns: int | None = None,
) -> Operation[int]:
    """Delete tasks that have arrived, put those back that could not. Reads as how many were still on their way.

    `token` is that of the `move_out`; a task that another caller has carried on since is that caller's to end.
    """
    args: list[Argument] = [time_argument(now_ns), queue.prefix, queue.done, token]
    for verdict, tasks in (("g", gone), ("b", back)):
        for task in tasks:
            args += (verdict + task.move, task.task_id)
    keys = (*_structures(queue), queue.moving, queue.wake)
    return script("move_end", keys, args, replies.integer)


def release_receipts(queue: QueueKeys, tasks: Sequence[Departure], *, until_s: int) -> Operation[int]:
    """Keep the receipts of ended moves no longer than needed."""
    words: list[Argument] = ["ZADD", queue.moved, "XX"]
    for task in tasks:
        words += (until_s, f"{task.move}:{task.task_id}")
    return command("release_receipts", words, replies.integer)


def list_moving(queue: QueueKeys, *, before_s: int, skip: int, count: int) -> Operation[list[str]]:
    """Read ids of tasks on their way that set out, or were carried on, by a Unix second, the oldest first."""
    words = ("ZRANGE", queue.moving, "-inf", before_s, "BYSCORE", "LIMIT", skip, count)
    return command("list_moving", words, replies.names)
