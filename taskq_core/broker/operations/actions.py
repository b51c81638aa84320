"""Change stored tasks and queues: run, archive, delete, postpone, edit and move tasks; pause and remove queues."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import (
    ARCHIVE,
    BATCH_BYTES,
    MESSAGE_MAX,
    NOW,
    Argument,
    Confirmation,
    Operation,
    command,
    escape_pattern,
    script,
)
from taskq_core.broker.operations.outbox import DELIVERED_KEPT_S
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import QueueKeys, TaskMessage, TaskState, encode_message

CLAIM_S = 60
"""Seconds in which the other queue must store the copy of an archived task. Later requests store nothing."""
COPY_KEPT_S = DELIVERED_KEPT_S - 86_400
"""Seconds after which an interrupted move is not continued, because the receipt of the copy may have expired."""


class Action(StrEnum):
    """Actions on tasks that do not run."""

    RUN = "run"
    ARCHIVE = "archive"
    DELETE = "delete"
    WAIT = "wait"
    CANCEL = "cancel"
    """Archive, with "cancelled" as the error."""


class Refusal(StrEnum):
    """Why an action was refused. If the task's state does not allow the action, the reply is that state instead."""

    NOT_FOUND = ""
    LOST = "lost"
    COPIED = "copied"
    STEPS = "steps"
    LARGE = "large"
    CHANGED = "changed"
    DUPLICATE = "duplicate"


_ANY: Mapping[str, str] = MappingProxyType({})
OK = "ok"
"""Answer of `act` for a task that was changed."""


def _words(reply: Any) -> list[str]:
    return [replies.shown(word) for word in reply]


def _structures(queue: QueueKeys) -> tuple[str, ...]:
    return (queue.pending, queue.scheduled, queue.retry, queue.archived, queue.completed, queue.groups)


def _joined(task_ids: Sequence[str], generations: Mapping[str, str]) -> str:
    """Return the generations of tasks in the form of the scripts."""
    return "".join(f"{generations.get(task_id, '')}," for task_id in task_ids) if any(generations.values()) else ""


def identify(queue: QueueKeys, task_ids: Sequence[str]) -> Operation[list[str]]:
    """Read the generations of tasks, at most `BATCH_MAX`. See `_generation.lua`.

    Requests to a task contain its generation. So they change no later task with the same id, however late they arrive.
    A task that does not exist has the generation "-", with which a request finds no task.
    """
    keys = tuple(queue.task(task_id) for task_id in task_ids)
    return script("identify", (queue.absent,), keys, lambda reply: [replies.text(each) for each in reply])


def act(
    queue: QueueKeys,
    action: Action,
    task_ids: Sequence[str],
    *,
    generations: Mapping[str, str] = _ANY,
    state: TaskState | None = None,
    start: str = "",
    archive: ArchiveLimits = ARCHIVE,
    repeatable: bool = True,
) -> Operation[list[str]]:
    """Perform an action on tasks that do not run, at most `BATCH_MAX` of them.

    With `state`, only tasks in this state are changed, and with `generations`, by id, only tasks that have them.
    `start` is the new start of the tasks for `Action.WAIT`:
    "=<Unix s>", or "+<ms from Redis's time>". The answer has one text per task: `OK`, a `Refusal`, or the state that
    does not allow the action. After a lost answer, a repeat finds the changes of the first call and answers with the
    new state.
    """
    args = (
        NOW,
        action.value,
        queue.prefix,
        queue.done,
        archive.kept_s,
        archive.max_tasks,
        "" if state is None else state.value,
        start,
        2 * CLAIM_S,
        _joined(task_ids, generations),
        *task_ids,
    )
    keys = (*_structures(queue), queue.wake)
    return script("act", keys, args, _words, name=f"{action.value}_tasks", repeatable=repeatable)


def read_lock(lock: str) -> Operation[str]:
    """Return the id of the task that holds a unique lock, "" if no task holds it."""
    return command("read_lock", ("GET", lock), lambda reply: replies.name(reply or b""))


def revoke(queue: QueueKeys, task_id: str, *, generation: str = "") -> Operation[str]:
    """Delete a task that waits. With `generation`, only the task that has it. The answer is a text of `act`."""
    return script("revoke", _structures(queue), (task_id, queue.prefix, queue.done, generation), replies.shown)


def change_task(
    queue: QueueKeys,
    task_id: str,
    *,
    start: str = "",
    old: bytes = b"",
    new: bytes = b"",
    old_lock: str = "",
    new_lock: str = "",
    generation: str = "",
    confirm: Confirmation | None = None,
) -> Operation[str]:
    """Change the start of a waiting task (see `act`), its message, or both. `old` is the message as the caller read it.

    With `generation`, only the task that has it is changed. With `confirm`, the runner waits until replicas or
    disks have the change. The answer is a text of `act`. A repeat changes nothing.
    """
    args = (NOW, queue.prefix, task_id, start, old, new, old_lock, new_lock, generation)
    marker = "" if confirm is None else queue.unconfirmed("")
    return script("change_task", _structures(queue), args, replies.shown, confirm=confirm, marker=marker)


def pause(queue: QueueKeys) -> Operation[bool]:
    """Keep workers from taking tasks. The answer is False if the queue was paused already."""
    args = (NOW,)
    return script("pause", (queue.paused,), args, replies.boolean, repeatable=False)


def resume(queue: QueueKeys) -> Operation[bool]:
    """Let workers take tasks again. The answer is False if the queue was not paused."""
    return command("resume", ("DEL", queue.paused), replies.boolean, repeatable=False)


# --- removing a queue -------------------------------------------------------------------------------------------------


def _aside(queue: QueueKeys) -> tuple[str, ...]:
    return (queue.aggregation_sets, queue.quarantine)


def _set_aside(queue: QueueKeys) -> tuple[str, ...]:
    kinds = (*(state.value for state in _REMOVED), "groups", "aggregation_sets", "quarantine")
    return tuple(queue.removed(kind) for kind in kinds)


_REMOVED = (TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.ARCHIVED, TaskState.COMPLETED)


class Closed(Struct):
    """Answer of `close_queue`: whether the tasks of the queue are now hidden, and their numbers.

    Attributes:
        active: Number of running tasks.
        counting: Number of tasks that prevent the removal of the queue without `force`.
        total: Number of tasks that do not run. After an interrupted removal: the number of tasks that it has hidden.
        is_closed: True if the tasks are now hidden. False if `active` or `counting` prevent it, or if `is_interrupted`.
        is_interrupted: True if an earlier removal did not finish. Its hidden tasks must be discarded first.
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
    """Begin to remove a queue: hide its tasks from workers and tools by renaming their keys, if no task runs.

    Without `force`, all tasks must be completed. `discard` deletes the hidden tasks.
    """
    return script(
        "close_queue",
        (queue.active, *_structures(queue), *_aside(queue), *_set_aside(queue)),
        (queue.group_prefix, 1 if force else 0),
        _read_closed,
    )


def is_half_removed(queue: QueueKeys) -> Operation[bool]:
    """Return whether an interrupted removal of the queue has left hidden tasks that are not deleted yet."""
    keys = _set_aside(queue)
    return command("is_half_removed", ("EXISTS", *keys), lambda reply: int(reply) > 0, keys=keys)


def discard(queue: QueueKeys, *, limit: int = 100) -> Operation[tuple[int, bool]]:
    """Delete tasks that `close_queue` has hidden, at most `limit`.

    The answer is their number, and True if none is left.
    """
    args = (queue.prefix, queue.quarantined(""), queue.done, limit, queue.own_prefix)
    return script("discard", _set_aside(queue), args, lambda reply: (int(reply[0]), int(reply[1]) == 1))


def purge(queue: QueueKeys, cursor: str, *, own: bool, count: int = 500) -> Operation[str | None]:
    """Delete remaining keys of a removed queue: those in Asynq's layout, or with `own` those that only taskq uses.

    The answer is the next cursor ("0" at the start and at the end), or None if new tasks were enqueued since.
    """
    keys = (queue.active, *_structures(queue), *_aside(queue))
    prefix = queue.own_prefix if own else queue.prefix
    args = (cursor, escape_pattern(prefix) + "*", count, prefix)
    return script("purge", keys, args, replies.optional_text)


def forget_queue(queues_key: str, name: str) -> Operation[int]:
    """Remove a queue from the set of known queues."""
    return command("forget_queue", ("SREM", queues_key, name), replies.integer)


# --- moving tasks to another queue ------------------------------------------------------------------------------------


class Original(Struct):
    """Result of `copy_out` for one task, with the stored data of which its copy is made if the task was archived.

    Attributes:
        task_id: Id of the task.
        answer: `OK`, a `Refusal`, or the state that does not allow the move. The other attributes count for `OK` only.
        copy: Name of the copy, the token of the call that has archived the task.
        state: State before.
        score: Score of the task in the sorted set it left, "" if it left a list.
        lock_ms: Milliseconds left of its unique lock, -1 for a lock without an expiry, None if it has no lock.
        fields: Fields of the task's hash before.
    """

    task_id: str
    answer: str
    copy: str
    state: str
    score: str
    lock_ms: int | None
    fields: dict[bytes, bytes]

    @property
    def receipt(self) -> str:
        """Name by which the other queue recognizes the copy."""
        return f"{self.copy}:{self.task_id}"


def copied_error(target: str) -> bytes:
    """Return the last error of archived tasks that are copied to a queue, as a field of their messages."""
    return encode_message(TaskMessage(error_msg=f"copied to queue {target} with the same id; move it again to finish"))


def copy_out(
    queue: QueueKeys,
    task_ids: Sequence[str],
    *,
    token: str,
    target: str,
    state: TaskState | None = None,
    generations: Mapping[str, str] = _ANY,
    max_bytes: int = BATCH_BYTES,
) -> Operation[tuple[int, list[Original]]]:
    """Archive tasks, at most `BATCH_MAX`, and record in each of them that it is copied to another queue.

    `state` and `generations` select tasks as in `act`. The answer is Redis's time (Unix s), and the tasks that were
    handled. Send the operation again for the other tasks.
    """

    def read(reply: Any) -> tuple[int, list[Original]]:
        tasks, at = [], 1
        for task_id in task_ids:
            if at >= len(reply):
                break
            answer, copy, before, score, lock_ms, words = reply[at : at + 6]
            at += 6 + int(words)
            fields = dict(replies.pairs(reply[at - int(words) : at]))
            held = int(lock_ms) if lock_ms != b"" and int(lock_ms) not in (0, -2) else None
            texts = (replies.text(copy), replies.text(before), replies.text(score))
            tasks.append(Original(task_id, replies.shown(answer), *texts, held, fields))
        return int(reply[0]), tasks

    args: list[Argument] = [
        NOW,
        queue.prefix,
        token,
        target,
        "" if state is None else state.value,
        max_bytes,
        MESSAGE_MAX,
        COPY_KEPT_S,
        2 * CLAIM_S,
        copied_error(target),
        "",
        _joined(task_ids, generations),
        *task_ids,
    ]
    return script("copy_out", _structures(queue), args, read, deadline_at=10)


def copy_end(
    queue: QueueKeys, *, token: str, target: str, copied: Sequence[Original], back: Sequence[Original]
) -> Operation[tuple[int, int]]:
    """End moves: delete the originals of stored copies, and put the originals of refused copies back.

    `token` and `target` are those of `copy_out`. A task is not put back if another caller continues its move. The
    answer is Redis's time (Unix s), and the number of tasks that were deleted or put back.
    """
    args: list[Argument] = [NOW, queue.prefix, queue.done, token, len(copied_error(target))]
    for verdict, tasks in (("d", copied), ("b", back)):
        for task in tasks:
            args += (verdict + task.copy, task.task_id)
    keys = (*_structures(queue), queue.wake)
    return script("copy_end", keys, args, lambda reply: (int(reply[0]), int(reply[1])))
