"""Remove a queue and all its data.

One script moves all structures of the queue aside, so that workers, tools and producers see an empty queue at once. Its
tasks are then deleted in chunks, with their unique locks. Finally, two scans of the key names find and delete the
remaining keys: one scan for Asynq's names and one for taskq's. The next call continues an interrupted removal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from taskq_core.broker.operations import actions, new_tasks, views
from taskq_core.broker.plans import Progress, RequestPlan, ask
from taskq_core.errors import QueueNotEmptyError
from taskq_core.inspector.cursors import RedisCursor, read_cursor, write_cursor
from taskq_core.inspector.known import known_queue
from taskq_core.inspector.matching import always
from taskq_core.wire import Keys, QueueKeys, TaskState


class _Place(NamedTuple):
    """The place at which a removal continues: a step, and the cursor of the scan if this step scans keys."""

    step: Literal["close", "discard", "purge", "purge-own"] = "close"
    at: RedisCursor = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRemoval:
    """Progress of the removal of a queue.

    Attributes:
        deleted: Number of tasks that this call deleted.
        next: Cursor for the next call, None if the queue is removed.
    """

    deleted: int
    next: str | None


def remove_queue(keys: Keys, queue: str, *, force: bool = False, progress: Progress | None = None) -> RequestPlan[int]:
    """Remove a queue and all its data: tasks, groups, unique locks, counters and pause state.

    The queue becomes empty in one step. Its tasks are then deleted in chunks. If a removal is interrupted, the
    next call continues it. If tasks are enqueued during the removal, the queue stays and keeps them.

    Args:
        queue: Name of the queue.
        force: Also delete tasks that have not succeeded. Without `force`, the call raises `QueueNotEmptyError` if there
            are such tasks.
        progress: Called after each chunk with the number of deleted tasks and their total.

    Returns:
        The number of deleted tasks.

    Raises:
        QueueNotFoundError: No queue has this name.
        QueueNotEmptyError: Tasks run, or there are tasks that would be lost without `force`.
    """
    return (yield from _remove(keys, queue, force=force, progress=progress)).deleted


def remove_queue_part(
    keys: Keys, queue: str, *, force: bool = False, cursor: str | None = None, has_time: Callable[[], bool] = always
) -> RequestPlan[QueueRemoval]:
    """Remove a queue in several calls. Like `remove_queue`, but tasks enqueued between two calls are not deleted.

    Args:
        queue: Name of the queue.
        force: Also delete tasks that have not succeeded.
        cursor: `QueueRemoval.next` of the previous call.
        has_time: Called after each chunk. The call ends when it returns False.

    Raises:
        QueueNotFoundError: No queue has this name.
        QueueNotEmptyError: Tasks run, or there are tasks that only `force` deletes.
        ConfigurationError: The cursor is not valid.
    """
    return (yield from _remove(keys, queue, force=force, cursor=cursor, has_time=has_time))


def _remove(
    keys: Keys,
    queue: str,
    *,
    force: bool,
    cursor: str | None = None,
    has_time: Callable[[], bool] = always,
    progress: Progress | None = None,
) -> RequestPlan[QueueRemoval]:
    step, at = _Place() if cursor is None else read_cursor(cursor, _Place)
    queue_keys = yield from known_queue(keys, queue)
    deleted = 0
    while step in ("close", "discard"):
        is_closed, expected = True, deleted
        if step == "close":
            closed = yield from ask(actions.close_queue(queue_keys, force=force))
            if not (closed.is_closed or closed.is_interrupted):
                raise QueueNotEmptyError(queue, closed.active, closed.counting)
            is_closed, expected = closed.is_closed, deleted + closed.total
        is_empty = False
        while not is_empty:
            some, is_empty = yield from ask(actions.discard(queue_keys))
            deleted += some
            if progress is not None and some:
                progress(deleted, max(deleted, expected))
            if not is_empty and not has_time():
                return QueueRemoval(deleted=deleted, next=write_cursor(_Place("discard" if is_closed else "close")))
        step = "purge" if is_closed else "close"
    is_purged, following = yield from _purge(queue_keys, _Place(step, at), has_time)
    if not is_purged:
        return QueueRemoval(deleted=deleted, next=following)
    yield from ask(actions.forget_queue(keys.queues, queue))
    if (yield from ask(views.count_tasks(queue_keys))).sizes != dict.fromkeys(TaskState, 0):
        yield from ask(new_tasks.register_queue(keys.queues, (queue,)))  # a task was enqueued during the removal
    return QueueRemoval(deleted=deleted, next=None)


def _purge(queue: QueueKeys, place: _Place, has_time: Callable[[], bool]) -> RequestPlan[tuple[bool, str | None]]:
    """Delete the remaining keys.

    Return whether all keys are deleted, and the cursor for the next call. The cursor is None if no scan is to continue.
    """
    step, at = place
    while True:
        page = yield from ask(actions.purge(queue, at, own=step == "purge-own"))
        if page is None:
            return False, None  # tasks were enqueued during the removal, so the queue still exists
        at = page
        if at == "0":
            if step == "purge-own":
                return True, None
            step = "purge-own"
        if not has_time():
            return False, write_cursor(_Place(step, at))
