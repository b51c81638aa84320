"""Search tasks by a filter, and apply an action to all matching tasks, in several calls.

The caller of an action decides when a call ends, and gets a cursor for the next call. Each task that was in the state
at the first call is changed at most once: a task is skipped if it has run and failed again since the first call, or if
it already waits for the new time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from taskq_core.app import TaskQ
from taskq_core.broker.operations import diagnosis, views
from taskq_core.broker.operations.operation import MESSAGE_MAX
from taskq_core.broker.operations.views import SCAN_START, ScanPlace
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerError, ConfigurationError
from taskq_core.handles.changing import start_of
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector.cursors import read_cursor, write_cursor
from taskq_core.inspector.known import check_group, check_text, known_queue, known_state
from taskq_core.inspector.reading import read_task
from taskq_core.inspector.records import LISTED_STATES, FoundTasks, QueueInfo, TaskOrder, UnreadableTask
from taskq_core.inspector.search import SearchPlace, scan_state
from taskq_core.inspector.selection import CHUNK, ActionReport, TaskAction, TaskRef, act_on, check_state
from taskq_core.settings import Duration, check_whole, seconds
from taskq_core.wire import Keys, TaskState

LIMIT_MAX = 1000
"""Maximum number of tasks that a search returns in one call."""
SCAN_MAX = 1_000_000
"""Maximum number of tasks that a search reads in one call."""
_SCAN = 1_000
"""Maximum number of tasks that an action reads between two calls of `has_time`."""
_SCAN_BYTES = 16 * 1024 * 1024
_CANCEL_CHUNK = 20
"""Maximum number of tasks to cancel between two calls of `has_time`. Each task needs two requests to Redis."""
_ID_CHARS = 256
"""Maximum length of a searched text that may be a task id. A longer text is not looked up as an id."""


def always() -> bool:
    """Return True. This is the default of `has_time`, for calls without a time limit."""
    return True


@dataclass(slots=True)
class MatchingReport:
    """The outcome of an action on the matching tasks that a call processed.

    Attributes:
        report: Changed and skipped tasks.
        scanned: Number of tasks that were read.
        next: Cursor for the next call, None at the end.
    """

    report: ActionReport = field(default_factory=ActionReport)
    scanned: int = 0
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """A filter for tasks. A task must match every field that is not None or "".

    Attributes:
        queue: Name of the tasks' queue.
        state: State of the tasks. Without a state, tasks in groups do not match.
        group: Name of their group, with `queue` and `TaskState.AGGREGATING`.
        name: Name of their task, in full.
        name_part: Part of the name of their task.
        error: Part of the last error.
        payload: Part of the payload.
        text: Part of the id, the name, the queue, the last error or the payload. If the text is the full id of a task
            in the queues, only tasks with that id match, whatever their age. This rule does not apply to a search in a
            group.
        older_than: Matches tasks that reached their state before this moment, or at least this long ago. For tasks that
            wait for a time, that time counts. An active task has no such time and does not match.
        newer_than: Matches tasks whose time is at or after this moment, or at most this long ago. Future times match.
        in_payload: Whether `text` is also searched in payloads. Set it to False for users who may not see payloads.
    """

    queue: str | None = None
    state: TaskState | None = None
    group: str | None = None
    name: str | None = None
    name_part: str = ""
    error: str = ""
    payload: bytes | str = ""
    text: str = ""
    older_than: datetime | Duration | None = None
    newer_than: datetime | Duration | None = None
    in_payload: bool = True

    @property
    def needs_reading(self) -> bool:
        """Whether the filter has fields that can be checked only by reading tasks."""
        texts = (self.name_part, self.error, self.payload, self.text)
        return any(texts) or any(each is not None for each in (self.name, self.older_than, self.newer_than))

    def of(self, infos: Iterable[QueueInfo]) -> list[QueueInfo]:
        """Return the queues that match the filter's `queue`. Return all queues if `queue` is None."""
        return [info for info in infos if self.queue in (None, info.name)]

    def fits(self, task: TaskInfo | UnreadableTask, at_s: int | None, now_s: float) -> bool:
        """Return whether a task matches the filter.

        The caller has checked queue and state. `at_s` is the Unix second at which the task ended or is due, if known.
        """
        before_s = _moment("older_than", self.older_than, now_s)
        after_s = _moment("newer_than", self.newer_than, now_s)
        if before_s is not None and (at_s is None or at_s >= before_s):
            return False
        if after_s is not None and (at_s is None or at_s < after_s):
            return False
        if isinstance(task, UnreadableTask):
            if self.name is not None:
                return False
            name, error, content = "", "", task.message
        else:
            name, error, content = task.name, task.last_error, task.payload
        if self.name not in (None, name) or self.name_part not in name:
            return False
        if self.error not in error or _bytes(self.payload) not in content:
            return False
        if any(self.text in each for each in (task.id, name, task.queue, error)):
            return True
        return self.in_payload and _bytes(self.text) in content

    def check(self) -> "TaskFilter":
        """Check the fields of the filter before any request. Return the filter with its state as a `TaskState`.

        Raises:
            ConfigurationError: A field is not valid, or only some of `group`, `queue` and `TaskState.AGGREGATING` are
                given.
        """
        state = None if self.state is None else known_state(self.state)
        if state is not None:
            check_group(state, self.group)
        if self.group is not None and None in (self.queue, state):
            raise ConfigurationError(f"group={self.group!r} needs its queue and the state 'aggregating'")
        for what in ("queue", "name", "name_part", "error", "text"):
            value = getattr(self, what)
            if value is not None or what not in ("queue", "name"):
                check_text(what, value)
        if isinstance(self.payload, str):
            check_text("payload", self.payload)
        elif not isinstance(self.payload, bytes):
            raise ConfigurationError(f"payload must be bytes or a string, got {type(self.payload).__name__}")
        _moment("older_than", self.older_than, 0)
        _moment("newer_than", self.newer_than, 0)
        return replace(self, state=state)


def _bytes(text: bytes | str) -> bytes:
    """Return the bytes of a text. Arguments that the command line could not decode are restored."""
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _moment(name: str, value: datetime | Duration | None, now_s: float) -> float | None:
    """Return the Unix seconds of a moment, or of an age before `now_s`.

    Raises:
        ConfigurationError: The value is neither a datetime with a time zone nor a duration.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(f"{name} must have a time zone, got {value!r}")
        return value.timestamp()
    return now_s - seconds(name, value)


def tasks_with_id(keys: Keys, queues: Iterable[str], wanted: TaskFilter) -> RequestPlan[FoundTasks | None]:
    """Find the tasks whose id is the text of a filter. Return None if no task has this id.

    After None, the caller searches the text in other fields. Otherwise the answer contains the tasks with this id that
    match the other fields of the filter, whatever their age. The answer may be empty. Searches and actions share this
    rule. So an action on all matching tasks changes only tasks that the search shows.

    Args:
        queues: Names of the queues to look in.
        wanted: The filter. A filter with a group is always a text search.
    """
    if not wanted.text or wanted.group is not None or len(wanted.text) > _ID_CHARS:
        return None
    found: list[TaskInfo | UnreadableTask] = []
    scanned = read_bytes = 0
    ageless = replace(wanted, older_than=None, newer_than=None)
    for name in queues:
        stored = yield from ask(views.read_task(keys.queue(name), wanted.text, max_result=MESSAGE_MAX))
        if stored is None:
            continue
        scanned += 1
        read_bytes += len(stored.message) + len(stored.result)
        task = read_task(name, stored)
        is_listed = task.state in LISTED_STATES and wanted.state in (None, task.state)
        if is_listed and ageless.fits(task, None, 0):
            found.append(task)
    if not scanned:
        return None
    return FoundTasks(
        tasks=found,
        scanned=scanned,
        total=scanned,
        cursor=None,
        read=scanned,
        matched=len(found),
        read_bytes=read_bytes,
    )


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

    Of archived and completed tasks, the newest is read first. Each call reads a limited number of tasks, in small
    requests that keep Redis responsive. The cursor in the answer continues the search. A task that stays in its state
    is read once, whatever other tasks do. Pending and active tasks are an exception, because their newest come first: a
    task may be read twice, and is missed if tasks before it are deleted, archived or moved between two calls.

    `older_than` and `newer_than` compare the time of the task's state: when it became pending, its start, its next
    attempt, or when it was archived, succeeded or joined its group. Active tasks have no such time, so they do not
    match.

    Args:
        queue: Name of the queue.
        state: State of the tasks.
        group: Group of the tasks, with `TaskState.AGGREGATING`.
        name: Part of the task's name.
        error: Part of the text of its last failure.
        payload: Part of its payload.
        older_than: Tasks whose time is before this moment, or at least this long ago.
        newer_than: Tasks whose time is at or after this moment, or at most this long ago.
        limit: Maximum number of tasks to return, 1 to 1000.
        scan: Maximum number of tasks to read, 1 to 1,000,000.
        cursor: `FoundTasks.cursor` of the previous call, with the same queue, state and group.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: An argument is out of bounds or of the wrong type, a moment has no time zone, or the
            cursor is not valid.
    """
    if name is not None:
        check_text("name", name)
    wanted = TaskFilter(
        queue=queue,
        state=state,
        group=group,
        name_part="" if name is None else name,
        error="" if error is None else error,
        payload="" if payload is None else payload,
        older_than=older_than,
        newer_than=newer_than,
    )
    wanted = wanted.check()
    state = known_state(state)
    check_whole("limit", limit, least=1, most=LIMIT_MAX)
    check_whole("scan", scan, least=1, most=SCAN_MAX)
    place = SearchPlace(state, queue) if cursor is None else read_cursor(cursor, SearchPlace)
    if place[:2] != (state, queue):
        got = f"one of tasks of {place.queue!r} that are {place.state}"
        raise ConfigurationError(f"cursor must come from a search of this queue and state, got {got}")
    queue_keys = yield from known_queue(keys, queue)
    now_s = 0.0
    if older_than is not None or newer_than is not None:
        now_s = yield from ask(diagnosis.read_time())

    def fits(task: TaskInfo | UnreadableTask, at_s: int | None) -> bool:
        return wanted.fits(task, at_s, now_s)

    return (
        yield from scan_state(
            queue_keys,
            state,
            fits,
            group=group,
            limit=limit,
            scan=scan,
            place=place,
            order=TaskOrder.RECENT,
        )
    )


def act_on_matching(
    app: TaskQ,
    wanted: TaskFilter,
    action: TaskAction,
    *,
    at: datetime | None = None,
    after: Duration | None = None,
    to_queue: str | None = None,
    cursor: str | None = None,
    has_time: Callable[[], bool] = always,
) -> RequestPlan[MatchingReport]:
    """Apply one action to all matching tasks of a state.

    Each call processes some of the tasks, until `has_time` returns False.

    The action applies only to tasks that were in the state when the first call began, and once to each: a task that
    left the state and came back is skipped. Tasks are read in chunks of 100.

    Args:
        wanted: The filter, with a state. The state must allow the action.
        action: The action, as in `act_on`.
        at: When tasks may run, with a time zone.
        after: Time from the first call on, instead of `at`.
        to_queue: The queue to move them to. Tasks that are already in it are skipped.
        cursor: `MatchingReport.next` of the previous call, with the same other arguments.
        has_time: Called after each chunk of at most 100 changed or 1000 read tasks. False ends the call.

    Returns:
        The outcome for each task, and the cursor of the next call. `report.failure` has the error of Redis if Redis
        failed before the end.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: The state does not allow the action, or an argument is not valid.
    """
    keys = app.runtime.keys
    action = TaskAction(action)
    wanted = wanted.check()
    if wanted.state is None:
        raise ConfigurationError("an action on all matching tasks needs their state")
    check_state(action, action, wanted.state)
    # Without tasks, `act_on` only checks the arguments.
    done = MatchingReport(report=(yield from act_on(app, (), action, at=at, after=after, to_queue=to_queue)))
    if cursor is None:
        place = yield from _first_place(action, at, after)
    else:
        place = read_cursor(cursor, _Place)
        if wanted.queue is not None and place.queue not in ("", wanted.queue):
            raise ConfigurationError(f"cursor must come from the previous call, got one of queue {place.queue!r}")
        if (action is TaskAction.RETRY) != (place.at_s is not None):
            raise ConfigurationError("cursor must come from the previous call, got one of another action")
    names = yield from _names(keys, wanted)
    sources = [name for name in names if name != to_queue or wanted.queue is not None]
    if not place.queue:
        exact = yield from tasks_with_id(keys, names, wanted)
        if exact is not None or place.is_id_only:
            return (yield from _act_on_exact(app, exact, sources, action, to_queue, place, done))
    names = [name for name in sources if name >= place.queue]
    for number, name in enumerate(names):
        if name != place.queue:
            place.queue, place.position = name, SCAN_START
        is_over = number > 0 and not has_time()
        if is_over or not (yield from _act_on_queue(app, wanted, action, to_queue, place, done, has_time)):
            done.next = write_cursor(place)
            break
    return done


def _act_on_exact(
    app: TaskQ,
    exact: FoundTasks | None,
    sources: Sequence[str],
    action: TaskAction,
    to_queue: str | None,
    place: "_Place",
    done: MatchingReport,
) -> RequestPlan[MatchingReport]:
    """Apply an action to the tasks whose id is the searched text."""
    if exact is None:  # an earlier call has deleted or moved all tasks with this id
        return done
    refs = [TaskRef.of(task) for task in exact.tasks if task.queue in sources and place.includes(task)]
    done.scanned = exact.scanned
    done.report.add((yield from act_on(app, refs, action, at=place.start, to_queue=to_queue)))
    if done.report.failure is not None:
        # If the id is gone before the next call, that call must not search other tasks for the same text.
        place.is_id_only = True
        done.next = write_cursor(place)
    return done


def _act_on_queue(
    app: TaskQ,
    wanted: TaskFilter,
    action: TaskAction,
    to_queue: str | None,
    place: "_Place",
    done: MatchingReport,
    has_time: Callable[[], bool],
) -> RequestPlan[bool]:
    """Apply an action to the matching tasks of the queue in `place`, and advance `place`.

    Return True if all matching tasks were processed, False if `has_time` returned False or Redis failed.
    """
    state = wanted.state
    assert state is not None
    while True:
        try:
            found = yield from scan_state(
                app.runtime.keys.queue(place.queue),
                state,
                lambda task, at_s: wanted.fits(task, at_s, place.began_s) and place.includes(task),
                group=wanted.group,
                limit=_CANCEL_CHUNK if action is TaskAction.CANCEL else CHUNK,
                scan=_SCAN,
                place=SearchPlace(state, place.queue, place.position),
                max_bytes=_SCAN_BYTES,
            )
        except BrokerError as error:
            if not done.scanned:
                raise
            done.report.failure = error  # not raised: the report shows which tasks were changed before the error
            return False
        done.scanned += found.scanned
        refs = [TaskRef(place.queue, task.id, state, task.generation) for task in found.tasks]
        part = yield from act_on(app, refs, action, at=place.start, to_queue=to_queue)
        done.report.add(part)
        if part.failure is not None:
            return False
        if found.cursor is None:
            return True
        place.position = read_cursor(found.cursor, SearchPlace).position
        if views.is_list(state) and action is not TaskAction.CANCEL:
            # The changed tasks have left the list, so all later tasks have a lower position now.
            place.position = ScanPlace(max(0, place.position.skip - len(part.done)))
        if not has_time():
            return False


def _names(keys: Keys, wanted: TaskFilter) -> RequestPlan[list[str]]:
    """Return the names of the queues to search, sorted."""
    if wanted.queue is not None:
        yield from known_queue(keys, wanted.queue)
        return [wanted.queue]
    return sorted((yield from ask(views.list_queues(keys.queues))))


def _first_place(action: TaskAction, at: datetime | None, after: Duration | None) -> "RequestPlan[_Place]":
    now_s = yield from ask(diagnosis.read_time())
    place = _Place(began_s=int(now_s))
    if action is TaskAction.RETRY:
        start = start_of(at, after)
        value = int(start[1:])
        place.at_s = value if start[0] == "=" else -int(-(now_s + value / 1000) // 1)
    return place


@dataclass(slots=True)
class _Place:
    """The position at which a call ended, as stored in a cursor.

    Attributes:
        began_s: Unix second at which the first call began, by Redis's clock.
        at_s: Unix second of the new start for a retry, the same for all calls. None for other actions.
        queue: Name of the queue. "" before the first one.
        position: Position in the tasks of this queue.
        is_id_only: True if the searched text is a task id. Then the next call changes only tasks with this id.
    """

    began_s: Annotated[int, msgspec.Meta(ge=0, lt=2**33)]
    at_s: int | None = None
    queue: str = ""
    position: ScanPlace = SCAN_START
    is_id_only: bool = False

    @property
    def start(self) -> datetime | None:
        """The new start for a retry. None for other actions."""
        try:
            return None if self.at_s is None else utc_datetime(0) + timedelta(seconds=self.at_s)
        except OverflowError:
            raise ConfigurationError(f"the start of a retry must be a valid date, got {self.at_s} s") from None

    def includes(self, task: TaskInfo | UnreadableTask) -> bool:
        """Return whether no previous call rescheduled this task, and it has not failed since the first call began."""
        if isinstance(task, UnreadableTask):
            return True
        if self.at_s is not None and task.next_run_at == self.start:
            return False
        return task.last_failed_at is None or task.last_failed_at <= utc_datetime(self.began_s)
