"""Move tasks to another queue: one, all of a state, or what was left on its way. How: `taskq_core.handles.moving`."""

from taskq_core.broker.operations.actions import ArrivalCode
from taskq_core.broker.plans import Progress, RequestPlan
from taskq_core.errors import ConfigurationError
from taskq_core.handles.changing import move_one
from taskq_core.handles.moving import finish, move
from taskq_core.inspector.bulk import CHUNK, MOVABLE, check_state
from taskq_core.inspector.known import check_group, check_text, known_queue, known_state
from taskq_core.inspector.search import all_ids
from taskq_core.wire import Keys, QueueKeys, TaskState, validate_queue_name


def move_task(keys: Keys, name: str, task_id: str, to: str) -> RequestPlan[None]:
    """Move one task."""
    check_text("task_id", task_id)
    queue, target = yield from _two_queues(keys, name, to)
    yield from move_one(keys, queue, target, task_id)


def move_all(
    keys: Keys, name: str, state: TaskState, to: str, *, group: str | None, progress: Progress | None
) -> RequestPlan[int]:
    """Move all tasks of a state, or of one group; return how many."""
    state = known_state(state)
    check_state("move_all", state, MOVABLE)
    check_group(state, group)
    queue, target = yield from _two_queues(keys, name, to)
    ids = yield from all_ids(queue, state, group)
    moved = 0
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        ends = yield from move(keys, queue, target, chunk, state=state)
        moved += sum(code == ArrivalCode.ARRIVED for _, code in ends)
        if progress is not None:
            progress(start + len(chunk), len(ids))
    return moved


def finish_moves(keys: Keys, name: str) -> RequestPlan[int]:
    """Carry on moves that were cut off; return how many tasks arrived."""
    queue = yield from known_queue(keys, name)
    return (yield from finish(keys, queue))


def _two_queues(keys: Keys, name: str, to: str) -> RequestPlan[tuple[QueueKeys, QueueKeys]]:
    validate_queue_name(to)
    if to == name:
        raise ConfigurationError(f"the other queue must be another than {name!r}")
    queue = yield from known_queue(keys, name)
    return queue, keys.queue(to)
