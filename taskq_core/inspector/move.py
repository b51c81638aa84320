"""Move tasks to another queue, and finish interrupted moves. `taskq_core.handles.moving` describes the steps."""

from taskq_core.broker.operations.new_tasks import StoreCode
from taskq_core.broker.plans import Progress, RequestPlan
from taskq_core.errors import ConfigurationError
from taskq_core.handles.changing import move_one
from taskq_core.handles.moving import finish, move
from taskq_core.inspector.bulk import CHUNK, MOVABLE, check_state
from taskq_core.inspector.known import check_group, check_text, known_queue, known_state
from taskq_core.inspector.search import all_ids
from taskq_core.wire import Keys, QueueKeys, TaskState, validate_queue_name


def move_task(keys: Keys, queue: str, task_id: str, to_queue: str) -> RequestPlan[None]:
    """Move a task that is not running to another queue. It keeps its state.

    If the move is interrupted, the task waits until `move_task` is called again, `finish_moves` is called, or a
    worker of its queue finishes the move some minutes later. It is never lost, and never in both queues.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskIdConflictError: The other queue has a task with this id. The task was not moved.
        DuplicateTaskError: Another task in the other queue holds its unique lock. The task was not moved.
        TaskStateError: It is being moved to a third queue. `TaskActiveError` if it runs.
        WireFormatError: The stored task cannot be read.
        ConfigurationError: The name of the other queue is not valid, or is the same.
    """
    check_text("task_id", task_id)
    queue_keys, target = yield from _two_queues(keys, queue, to_queue)
    yield from move_one(keys, queue_keys, target, task_id)


def move_all(
    keys: Keys,
    queue: str,
    state: TaskState,
    to_queue: str,
    *,
    group: str | None = None,
    progress: Progress | None = None,
) -> RequestPlan[int]:
    """Move all tasks of a state to another queue, each as by `move_task`. Active tasks cannot be moved.

    Returns:
        The number of moved tasks. A task stays in its queue if the other queue has its id or its unique lock, or if
        it cannot be read.
    """
    state = known_state(state)
    check_state("move_all", state, MOVABLE)
    check_group(state, group)
    queue_keys, target = yield from _two_queues(keys, queue, to_queue)
    ids = yield from all_ids(queue_keys, state, group)
    moved = 0
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        ends = yield from move(keys, queue_keys, target, chunk, state=state)
        moved += sum(code == StoreCode.STORED for _, code in ends)
        if progress is not None:
            progress(start + len(chunk), len(ids))
    return moved


def finish_moves(keys: Keys, queue: str) -> RequestPlan[int]:
    """Finish interrupted moves out of a queue. Workers also do this every few minutes.

    Returns:
        The number of tasks that arrived in the other queue. Tasks that it refused are back in this one.

    Raises:
        QueueNotFoundError: No queue has this name.
    """
    queue_keys = yield from known_queue(keys, queue)
    return (yield from finish(keys, queue_keys))


def _two_queues(keys: Keys, name: str, to: str) -> RequestPlan[tuple[QueueKeys, QueueKeys]]:
    validate_queue_name(to)
    if to == name:
        raise ConfigurationError(f"the target queue must differ from {name!r}")
    queue = yield from known_queue(keys, name)
    return queue, keys.queue(to)
