"""Remove a queue with all that belongs to it.

First all its structures are set aside in one script, so workers, tools and producers see an empty queue from one moment
to the next. Then its tasks are deleted in bounded steps, with the unique locks they hold; at last whatever else is left
under its names, for which the keys of the server are gone through twice: for Asynq's names and for our own. A removal
that is cut off is carried on by the next one.
"""

from taskq_core.broker import operations
from taskq_core.errors import QueueNotEmptyError
from taskq_core.inspector.known import known_queue
from taskq_core.steps import Progress, Steps, ask
from taskq_core.wire import Keys, TaskState


def remove_queue(keys: Keys, name: str, *, force: bool, progress: Progress | None) -> Steps[int]:
    """Remove a queue; return how many tasks were deleted."""
    queue = yield from known_queue(keys, name)
    deleted = 0
    while True:
        closed = yield from ask(operations.close_queue(queue, force=force))
        if not (closed.is_closed or closed.is_interrupted):
            raise QueueNotEmptyError(name, closed.active, closed.counting)
        expected, is_empty = deleted + closed.total, False
        while not is_empty:
            some, is_empty = yield from ask(operations.discard(queue))
            deleted += some
            if progress is not None and some:
                progress(deleted, max(deleted, expected))
        if closed.is_closed:
            break
    for own in (False, True):
        cursor = "0"
        while True:
            page = yield from ask(operations.purge(queue, cursor, own=own))
            if page is None:
                return deleted  # tasks were enqueued meanwhile: they are a new queue of this name
            cursor = page
            if cursor == "0":
                break
    yield from ask(operations.forget_queue(keys.queues, name))
    if (yield from ask(operations.count_tasks(queue))).sizes != dict.fromkeys(TaskState, 0):
        yield from ask(operations.register_queue(keys.queues, (name,)))  # somebody enqueued at the very end
    return deleted
