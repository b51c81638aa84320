"""Move tasks to another queue, and finish interrupted moves. `taskq_core.handles.moving` describes the steps."""

from taskq_core.broker.plans import RequestPlan
from taskq_core.errors import ConfigurationError
from taskq_core.handles.changing import identify, move_one
from taskq_core.handles.moving import finish
from taskq_core.inspector.known import check_text, known_queue
from taskq_core.wire import Keys, validate_queue_name


def move_task(keys: Keys, queue: str, task_id: str, to_queue: str, *, generation: str = "") -> RequestPlan[None]:
    """Move a task that is not running to another queue. The task keeps its state.

    If the move is interrupted, the task waits until `move_task` is called again, `finish_moves` is called, or a worker
    of its queue finishes the move some minutes later. The task is never lost, and never in both queues.

    Args:
        queue: Name of the queue.
        task_id: Id of the task.
        to_queue: Name of the other queue.
        generation: As in `run_task`.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskIdConflictError: The other queue has a task with this id. The task was not moved.
        DuplicateTaskError: Another task in the other queue holds the unique lock of the task. The task was not moved.
        TaskStateError: The task is being moved to a third queue. `TaskActiveError` if the task is running.
        WireFormatError: The stored task cannot be read.
        ConfigurationError: The name of the other queue is not valid, or is the same.
    """
    check_text("task_id", task_id)
    check_target(queue, to_queue)
    queue_keys = yield from known_queue(keys, queue)
    seen = identify(queue_keys, task_id, generation)
    yield from move_one(keys, queue_keys, keys.queue(to_queue), task_id, generation=seen)


def finish_moves(keys: Keys, queue: str) -> RequestPlan[int]:
    """Finish interrupted moves out of a queue. Workers also do this every few minutes.

    Returns:
        The number of tasks that arrived in the other queue. Tasks that the other queue refused are back in this queue.

    Raises:
        QueueNotFoundError: No queue has this name.
    """
    queue_keys = yield from known_queue(keys, queue)
    return (yield from finish(keys, queue_keys))


def check_target(queue: str, to_queue: str) -> None:
    """Check the name of the queue to move tasks to."""
    validate_queue_name(to_queue)
    if to_queue == queue:
        raise ConfigurationError(f"the target queue must differ from {queue!r}")
