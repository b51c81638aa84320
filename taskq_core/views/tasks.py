"""List, search and select tasks.

A list by queue and state reads the tasks of one page. A search by type, text or age reads inside tasks, at most
`SCAN_MAX` in each call, and returns a cursor to continue. Callers repeat the call until they have enough tasks or the
cursor is None. Before that, they do not show that no task matches (`labels.search_text`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from taskq_core.broker.operations import views
from taskq_core.broker.operations.views import SCAN_START, ScanPlace
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import ConfigurationError
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import (
    LISTED_STATES,
    PAGE_SIZE_MAX,
    STATES,
    FoundTasks,
    QueueInfo,
    TaskFilter,
    TaskOrder,
    TaskRef,
    UnreadableTask,
    total_of,
)
from taskq_core.inspector.cursors import read_cursor, write_cursor
from taskq_core.inspector.matching import always, tasks_with_id
from taskq_core.inspector.reading import list_tasks
from taskq_core.inspector.search import SearchPlace, all_ids, scan_state
from taskq_core.settings import check_whole
from taskq_core.wire import Keys, TaskState

SCAN_MAX = 10_000
"""Maximum number of tasks that a search reads in one call."""
SCAN_BYTES = 64 * 1024 * 1024
"""Total size of tasks in bytes after which a search stops reading."""
SELECTED_MAX = 10_000
"""Maximum number of tasks that are selected at once."""

TaskRecord = TaskInfo | UnreadableTask


def is_orphaned(task: TaskRecord, now: datetime) -> bool:
    """Return whether an active task has lost its worker, because its lease has ended.

    The recoverer requeues the task soon.
    """
    if not isinstance(task, TaskInfo) or task.state is not TaskState.ACTIVE:
        return False
    return task.lease_expires_at is None or task.lease_expires_at < now


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSelection:
    """Tasks that were selected for an action.

    Attributes:
        tasks: Matching tasks whose state allows the action; at most `SELECTED_MAX`.
        refused: Number of matching tasks whose state does not allow the action, by state.
        is_complete: False if further tasks may match.
    """

    tasks: Sequence[TaskRef]
    refused: dict[TaskState, int] = field(default_factory=dict)
    is_complete: bool = True


def read_tasks(
    keys: Keys,
    infos: Sequence[QueueInfo],
    wanted: TaskFilter,
    *,
    skip: int = 0,
    count: int = 50,
    order: TaskOrder = TaskOrder.NEXT,
) -> RequestPlan[Sequence[TaskRecord]]:
    """Return tasks, sorted by state as in `LISTED_STATES`, then by queue.

    Args:
        infos: The queues, from `Inspector.queue_infos`.
        wanted: The filter. The filter must not have fields for which tasks must be read.
        skip: Number of tasks to skip.
        count: Maximum number of tasks to return, up to 1000.
        order: Order of the tasks of each state and queue.

    Raises:
        ConfigurationError: The filter is not valid or needs to read inside tasks, or a number is out of bounds.
    """
    wanted = wanted.check()
    if wanted.needs_reading:
        raise ConfigurationError(
            "this list can be filtered only by queue and state; use search_tasks for the other fields"
        )
    check_whole("skip", skip, least=0, most=10**12)
    if count < 1:
        return ()
    count = min(count, PAGE_SIZE_MAX)
    return (
        yield from list_tasks(
            keys,
            wanted.of(infos),
            wanted.state,
            skip=skip,
            count=count,
            group=wanted.group,
            order=order,
        )
    )


def search_tasks(
    keys: Keys,
    infos: Sequence[QueueInfo],
    wanted: TaskFilter,
    *,
    cursor: str | None = None,
    scan: int = SCAN_MAX,
    limit: int = SCAN_MAX,
    order: TaskOrder = TaskOrder.RECENT,
) -> RequestPlan[FoundTasks]:
    """Search tasks by reading their contents, such as payloads and errors.

    If the text is the full id of a task in these queues, only tasks with that id are found, whatever their age.

    Args:
        infos: The queues, from `Inspector.queue_infos`.
        wanted: The filter.
        cursor: `FoundTasks.cursor` of the previous call, with the same filter.
        scan: Maximum number of tasks to read, up to 10,000.
        limit: Maximum number of tasks to return, up to 10,000.
        order: Order of the tasks of each state and queue. Pending and active tasks are always read from the newest on.

    Raises:
        ConfigurationError: The filter or the cursor is not valid, or a number is out of bounds.
    """
    wanted = wanted.check()
    check_whole("scan", scan, least=1, most=SCAN_MAX)
    check_whole("limit", limit, least=1, most=SCAN_MAX)
    chosen = wanted.of(infos)
    total = total_of(chosen, wanted.state)
    if cursor is None:
        exact = yield from tasks_with_id(keys, [info.name for info in chosen], wanted)
        if exact is not None:
            return replace(exact, total=total)
    found: list[TaskRecord] = []
    after: str | None = None
    scanned, left_bytes = 0, SCAN_BYTES
    parts = list(_parts(chosen, wanted.state))
    before = None if cursor is None else read_cursor(cursor, SearchPlace)
    first, position = (0, SCAN_START) if before is None else _place(parts, before)
    read, matched = (0, 0) if before is None else (before.read, before.matched)
    for number, (state, info) in enumerate(parts[first:], start=first):
        now_s = info.as_of.timestamp()

        def fits(task: TaskRecord, at_s: int | None, now_s: float = now_s) -> bool:
            return wanted.fits(task, at_s, now_s)

        queue = keys.queue(info.name)
        part = yield from scan_state(
            queue,
            state,
            fits,
            group=wanted.group,
            limit=limit - len(found),
            scan=scan - scanned,
            place=SearchPlace(state, info.name, position, read, matched),
            max_bytes=left_bytes,
            order=order,
        )
        position = SCAN_START
        left_bytes -= part.read_bytes
        found += part.tasks
        scanned += part.scanned
        read, matched = part.read, part.matched
        if wanted.group is not None:
            total = part.total
        if part.cursor is not None:
            after = part.cursor
            break
        if (scanned >= scan or len(found) >= limit or left_bytes <= 0) and number + 1 < len(parts):
            state, info = parts[number + 1]
            after = write_cursor(SearchPlace(state, info.name, SCAN_START, read, matched))
            break
    return FoundTasks(
        tasks=found,
        scanned=scanned,
        total=total,
        cursor=after,
        read=read,
        matched=matched,
        read_bytes=SCAN_BYTES - left_bytes,
    )


def select_tasks(
    keys: Keys,
    infos: Sequence[QueueInfo],
    wanted: TaskFilter,
    *,
    states: Sequence[TaskState],
    has_time: Callable[[], bool] = always,
) -> RequestPlan[TaskSelection]:
    """Select all matching tasks in these states, at most 10,000, for `Inspector.act_on`.

    Args:
        infos: The queues, from `Inspector.queue_infos`.
        wanted: The filter.
        states: States that allow the action, from `ALLOWED_STATES`.
        has_time: Called after each 10,000 tasks that are read. False ends the call.

    Raises:
        ConfigurationError: The filter is not valid.
    """
    wanted = wanted.check()
    tasks: list[TaskRef] = []
    refused: dict[TaskState, int] = {}
    if wanted.needs_reading:
        return (yield from _select_by_reading(keys, infos, wanted, states, has_time))
    for state, info in _parts(wanted.of(infos), wanted.state):
        queue, size = keys.queue(info.name), info.sizes[state]
        if wanted.group is not None:
            size = yield from ask(views.count_state(queue, state, group=wanted.group))
        if state not in states:
            refused[state] = refused.get(state, 0) + size
            continue
        room = SELECTED_MAX - len(tasks)
        if not room:
            return TaskSelection(tasks=tasks, refused=refused, is_complete=False)
        left_out = max(0, size - room)
        ids = yield from all_ids(queue, state, wanted.group, skip=left_out, most=room)
        tasks += [TaskRef(info.name, task_id, state, "") for task_id in ids]
        if left_out:
            return TaskSelection(tasks=tasks, refused=refused, is_complete=False)
    return TaskSelection(tasks=tasks, refused=refused)


def _select_by_reading(
    keys: Keys,
    infos: Sequence[QueueInfo],
    wanted: TaskFilter,
    states: Sequence[TaskState],
    has_time: Callable[[], bool],
) -> RequestPlan[TaskSelection]:
    """Search until all tasks are read, the selection is full or `has_time` returns False.

    The task that runs next comes first.
    """
    found: dict[TaskRef, None] = {}  # new pending tasks shift the others, so some are read twice
    refused: dict[TaskState, int] = {}
    cursor: str | None = None
    while True:
        search = yield from search_tasks(keys, infos, wanted, cursor=cursor, limit=SELECTED_MAX - len(found))
        for task in search.tasks:
            if task.state in states:
                found[TaskRef.of(task)] = None
            else:
                refused[task.state] = refused.get(task.state, 0) + 1
        cursor = search.cursor
        if cursor is None or len(found) >= SELECTED_MAX or not has_time():
            return TaskSelection(tasks=list(found)[::-1], refused=refused, is_complete=cursor is None)


def _parts(infos: Sequence[QueueInfo], state: TaskState | None) -> Iterator[tuple[TaskState, QueueInfo]]:
    """Yield each combination of state and queue that has tasks, in display order."""
    for each in LISTED_STATES if state is None else (state,):
        yield from ((each, info) for info in infos if info.sizes[each])


def _place(parts: Sequence[tuple[TaskState, QueueInfo]], place: SearchPlace) -> tuple[int, ScanPlace]:
    """Return the number of the part (see `_parts`) at which a search continues, and the position within this part.

    If this part has no tasks any more, the search continues at the next one.
    """
    wanted = (STATES.index(place.state), place.queue)
    for number, (state, info) in enumerate(parts):
        at = (STATES.index(state), info.name)
        if at >= wanted:
            return number, place.position if at == wanted else SCAN_START
    return len(parts), SCAN_START
