"""Read the tasks of one state, in several bounded calls.

The cursor is a position. For states in a sorted set (all but pending and active) it is the time and id of the last task
that was read, so a task that stays is read once. Pending and active tasks are in a list, newest first: new tasks shift
the others, so some are read twice. A task is missed only if tasks before it are deleted, archived or moved.
"""

import math
from collections.abc import Callable, Sequence

from taskq_core.broker.operations import views
from taskq_core.broker.operations.views import ScanPlace
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import ConfigurationError
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector.known import check_text
from taskq_core.inspector.look import read_task
from taskq_core.inspector.records import FoundTasks, UnreadableTask
from taskq_core.wire import QueueKeys, TaskState

SCAN_STEP = 100
"""Maximum number of tasks that one script call reads."""
Fits = Callable[[TaskInfo | UnreadableTask, int | None], bool]
"""Returns whether a task matches. The second argument is the time of its state (when it ended, or is due) in Unix
seconds, if it has one."""


def scan_state(
    queue: QueueKeys,
    state: TaskState,
    fits: Fits,
    *,
    group: str | None,
    limit: int,
    scan: int,
    cursor: str | None,
    max_bytes: float = math.inf,
) -> RequestPlan[FoundTasks]:
    """Read tasks of one state from a cursor on and return matching ones. End after `max_bytes` of task data."""
    place = place_of(state, cursor)
    found: list[TaskInfo | UnreadableTask] = []
    scanned, read_bytes = 0, 0
    while True:
        step = views.scan_tasks(queue, state, place, count=min(SCAN_STEP, scan - scanned), group=group)
        answer = yield from ask(step)
        for number, stored in enumerate(answer.tasks):
            place, scanned = answer.places[number], scanned + 1
            read_bytes += len(stored.message) + len(stored.result)
            task = read_task(queue.name, stored)
            if fits(task, _at_s(task, stored.score)):
                found.append(task)
                if len(found) == limit:
                    is_end = answer.is_end and number == len(answer.tasks) - 1
                    return _found(found, scanned, read_bytes, answer.size, state, None if is_end else place)
        if answer.is_end or scanned >= scan or read_bytes >= max_bytes:
            return _found(found, scanned, read_bytes, answer.size, state, None if answer.is_end else place)


def _found(
    tasks: Sequence[TaskInfo | UnreadableTask],
    scanned: int,
    read_bytes: int,
    total: int,
    state: TaskState,
    place: ScanPlace | None,
) -> FoundTasks:
    cursor = None
    if place is not None:
        cursor = f"{place.skip}" if views.is_list(state) else f"{place.score}:{place.task_id}"
    return FoundTasks(tasks=tuple(tasks), scanned=scanned, total=total, cursor=cursor, read_bytes=read_bytes)


def place_of(state: TaskState, cursor: str | None) -> ScanPlace:
    """Return the position that a cursor names.

    Raises:
        ConfigurationError: The cursor is not valid.
    """
    if cursor is None:
        return ScanPlace()
    check_text("cursor", cursor)
    wrong = ConfigurationError(f"cursor must come from a search of tasks that are {state}, got {cursor[:80]!r}")
    if views.is_list(state):
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
            raise wrong
        return ScanPlace(int(cursor))
    score, colon, task_id = cursor.partition(":")
    if not colon or not _is_score(score):
        raise wrong
    return ScanPlace(0, score, task_id)


def _is_score(text: str) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return text == text.strip() and "_" not in text and not math.isnan(number)


def _at_s(task: TaskInfo | UnreadableTask, score: int | None) -> int | None:
    if isinstance(task, TaskInfo) and task.completed_at is not None and task.state is TaskState.COMPLETED:
        return int(task.completed_at.timestamp())
    return score


# --- all ids of a state -----------------------------------------------------------------------------------------------

_IDS_STEP = 1000
_OVERLAP = 50


def all_ids(
    queue: QueueKeys, state: TaskState, group: str | None, *, skip: int = 0, most: int | None = None
) -> RequestPlan[list[str]]:
    """Return the ids of the tasks of a state. The oldest tasks, or the tasks that are due first, come first.

    Pages of a list overlap by some ids, so that no id is missed if tasks are removed between two pages.

    Args:
        queue: The queue.
        state: The state.
        group: Their group, for `TaskState.AGGREGATING`.
        skip: Number of the newest pending or active tasks to leave out.
        most: Maximum number of ids. None: all.
    """
    ids: list[str] = []
    listed = views.is_list(state)
    place = ScanPlace(skip if listed else 0)
    while most is None or len(ids) < most:
        step = views.scan_tasks(queue, state, place, count=_IDS_STEP, group=group, ids_only=True)
        page = yield from ask(step)
        fresh = page.ids
        if listed and ids and ids[-1] in fresh:
            fresh = fresh[fresh.index(ids[-1]) + 1 :]
        ids += fresh
        if page.is_end or not page.ids:
            break
        place = ScanPlace(max(place.skip + 1, page.places[-1].skip - _OVERLAP)) if listed else page.places[-1]
    ids = ids[:most]
    if listed:
        ids.reverse()
    return ids
