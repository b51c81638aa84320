"""Search the tasks of one state by their content, in several bounded calls.

The cursor is a position. For states in a sorted set (all but pending and active) it is the time and id of the last task
that was read, so a task that stays is read once. Pending and active tasks are in a list, newest first: new tasks shift
the others, so some are read twice. A task is missed only if tasks before it are deleted, archived or moved.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from taskq_core.broker.operations import views
from taskq_core.broker.operations.views import ScanPlace
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import ConfigurationError
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector.known import check_group, check_text, known_queue, known_state
from taskq_core.inspector.look import read_task
from taskq_core.inspector.records import FoundTasks, UnreadableTask
from taskq_core.settings import Duration, check_whole, seconds
from taskq_core.wire import Keys, QueueKeys, TaskState

SCAN_STEP = 100
"""Most tasks read by one script call."""
LIMIT_MAX = 1000
"""Most tasks one search returns."""
SCAN_MAX = 1_000_000
"""Most tasks one search looks at."""
Fits = Callable[[TaskInfo | UnreadableTask, int | None], bool]
"""Returns whether a task matches. The second argument is the time of its state in Unix seconds, if it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A filter. A field that is None matches all tasks."""

    name: str | None
    error: str | None
    payload: bytes | None
    before_s: float | None
    after_s: float | None

    def fits(self, task: TaskInfo | UnreadableTask, at_s: int | None) -> bool:
        """Return whether a task matches. `at_s` is the time of its state in Unix seconds, if it has one."""
        if self.before_s is not None and (at_s is None or at_s >= self.before_s):
            return False
        if self.after_s is not None and (at_s is None or at_s < self.after_s):
            return False
        if isinstance(task, UnreadableTask):
            return self.name is None and self.error is None and (self.payload is None or self.payload in task.message)
        return (
            (self.name is None or self.name in task.name)
            and (self.error is None or self.error in task.last_error)
            and (self.payload is None or self.payload in task.payload)
        )


def moment(name: str, value: datetime | Duration | None, now_s: float) -> float | None:
    """Return the Unix seconds of an aware datetime, or of so long ago.

    Raises:
        ConfigurationError: It is neither, or a datetime without a time zone.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(f"{name} must have a time zone, got {value!r}")
        return value.timestamp()
    return now_s - seconds(name, value)


def find_tasks(
    keys: Keys,
    queue: str,
    state: TaskState,
    *,
    group: str | None = None,
    name: str | None = None,
    error: str | None = None,
    payload: bytes | str | None = None,
    older_than: datetime | Duration | None = None,
    newer_than: datetime | Duration | None = None,
    limit: int = 100,
    scan: int = 10000,
    cursor: str | None = None,
) -> RequestPlan[FoundTasks]:
    """Search the tasks of one state. A task must match every argument that is given.

    Each call reads a limited number of tasks, in small requests that keep Redis responsive. The cursor in the
    answer continues the search. A task that stays in its state is read once, whatever other tasks do. Pending and
    active tasks are an exception, because their newest come first: a task may be read twice, and is missed if
    tasks before it are deleted, archived or moved between two calls.

    `older_than` and `newer_than` compare the time of the task's state: when it became pending, its start, its next
    attempt, or when it was archived, succeeded or joined its group. Active tasks have no such time, so they do not
    match.

    Args:
        queue: Name of the queue.
        state: Their state.
        group: Their group, with `TaskState.AGGREGATING`.
        name: Part of the task's name.
        error: Part of the text of its last failure.
        payload: Part of its payload.
        older_than: A moment before which its time is, or a minimum age.
        newer_than: A moment at or after which its time is, or a maximum age.
        limit: Maximum number of tasks to return, 1 to 1000.
        scan: Maximum number of tasks to read, 1 to 1,000,000.
        cursor: `FoundTasks.cursor` of the previous call, with the same queue, state and group.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: An argument is out of bounds or of the wrong type, a moment has no time zone, or the
            cursor is not valid.
    """
    state = known_state(state)
    for what, text in (("name", name), ("error", error), ("cursor", cursor)):
        if text is not None:
            check_text(what, text)
    if payload is not None and not isinstance(payload, bytes | str):
        raise ConfigurationError(f"payload must be bytes or a string, got {type(payload).__name__}")
    check_group(state, group)
    check_whole("limit", limit, least=1, most=LIMIT_MAX)
    check_whole("scan", scan, least=1, most=SCAN_MAX)
    for what, value in (("older_than", older_than), ("newer_than", newer_than)):
        moment(what, value, 0)  # refused before anything is asked
    _place(state, cursor)
    queue_keys = yield from known_queue(keys, queue)
    now_s = 0.0
    if older_than is not None or newer_than is not None:
        now_s = (yield from ask(views.count_tasks(queue_keys))).now_ns / 1e9
    wanted = Wanted(
        name=name,
        error=error,
        payload=payload.encode() if isinstance(payload, str) else payload,
        before_s=moment("older_than", older_than, now_s),
        after_s=moment("newer_than", newer_than, now_s),
    )
    return (yield from scan_state(queue_keys, state, wanted.fits, group=group, limit=limit, scan=scan, cursor=cursor))


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
    place = _place(state, cursor)
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


def _place(state: TaskState, cursor: str | None) -> ScanPlace:
    if cursor is None:
        return ScanPlace()
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


def all_ids(queue: QueueKeys, state: TaskState, group: str | None) -> RequestPlan[list[str]]:
    """Return the ids of all tasks of a state, those longest there (or due first) in front.

    Pages of a list overlap a little, so that none is missed if tasks are removed between two pages.
    """
    ids: list[str] = []
    place = ScanPlace()
    listed = views.is_list(state)
    while True:
        step = views.scan_tasks(queue, state, place, count=_IDS_STEP, group=group, ids_only=True)
        page = yield from ask(step)
        fresh = page.ids
        if listed and ids and ids[-1] in fresh:
            fresh = fresh[fresh.index(ids[-1]) + 1 :]
        ids += fresh
        if page.is_end or not page.ids:
            break
        place = ScanPlace(max(place.skip + 1, page.places[-1].skip - _OVERLAP)) if listed else page.places[-1]
    if listed:
        ids.reverse()
    return ids
