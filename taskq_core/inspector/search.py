"""Read the tasks of one state, in several bounded calls.

For states in a sorted set (all but pending and active) the position is the time and id of the last task that was read,
so a task that stays in its state is read once. Pending and active tasks are in a list that begins with the newest. New
tasks shift the others, so some tasks are read twice. A task is missed only if tasks before it are deleted, archived or
moved.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from taskq_core.broker.operations import views
from taskq_core.broker.operations.views import SCAN_START, ScanPlace
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector.cursors import Count, write_cursor
from taskq_core.inspector.reading import is_reversed, read_task
from taskq_core.inspector.records import FoundTasks, TaskOrder, UnreadableTask
from taskq_core.wire import QueueKeys, TaskState

SCAN_STEP = 100
"""Maximum number of tasks that one script call reads."""
Fits = Callable[[TaskInfo | UnreadableTask, int | None], bool]
"""Returns whether a task matches. The second argument is the Unix second at which the task ended or is due, None if it
has no such time."""


class SearchPlace(NamedTuple):
    """The place at which a search continues: a queue, a state, and the position in its tasks.

    It also has the numbers of tasks that the search has read and found so far.
    """

    state: TaskState
    queue: str
    position: ScanPlace = SCAN_START
    read: Count = 0
    matched: Count = 0


def scan_state(
    queue: QueueKeys,
    state: TaskState,
    fits: Fits,
    *,
    group: str | None,
    limit: int,
    scan: int,
    place: SearchPlace,
    max_bytes: float = math.inf,
    order: TaskOrder = TaskOrder.OLDEST,
) -> RequestPlan[FoundTasks]:
    """Read tasks of one state after a place, and return the matching ones. End after `max_bytes` of task data.

    The cursor of the answer is a `SearchPlace`. Pending and active tasks are always read from the newest on.
    """
    found: list[TaskInfo | UnreadableTask] = []
    scanned, read_bytes = 0, 0
    position, from_end = place.position, is_reversed(state, order)
    while True:
        count = min(SCAN_STEP, scan - scanned)
        step = views.scan_tasks(queue, state, position, count=count, group=group, is_reversed=from_end)
        answer = yield from ask(step)
        is_end = answer.is_end
        for number, stored in enumerate(answer.tasks, start=1):
            position, scanned = answer.places[number - 1], scanned + 1
            read_bytes += len(stored.message) + len(stored.result)
            task = read_task(queue.name, stored)
            if fits(task, _at_s(task, stored.score)):
                found.append(task)
                if len(found) == limit:
                    is_end = is_end and number == len(answer.tasks)
                    break
        if is_end or len(found) == limit or scanned >= scan or read_bytes >= max_bytes:
            read, matched = place.read + scanned, place.matched + len(found)
            following = SearchPlace(state, queue.name, position, read, matched)
            return FoundTasks(
                tasks=tuple(found),
                scanned=scanned,
                total=answer.size,
                cursor=None if is_end else write_cursor(following),
                read=read,
                matched=matched,
                read_bytes=read_bytes,
            )


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
        group: Group of the tasks, for `TaskState.AGGREGATING`.
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
