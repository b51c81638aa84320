"""Search tasks by a filter, and apply an action to all that match, in several calls.

The caller of an action decides when a call ends, and gets a cursor for the next one. Each task that was there at the
first call is changed at most once: it is skipped if it has run and failed again since then, or already waits for the
new time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from taskq_core.app import TaskQ
from taskq_core.broker.operations import diagnosis, views
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerError, ConfigurationError
from taskq_core.handles.changing import start_of
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector.bulk import CHUNK, check_state
from taskq_core.inspector.known import check_group, check_text, known_queue, known_state
from taskq_core.inspector.records import FoundTasks, UnreadableTask
from taskq_core.inspector.search import place_of, scan_state
from taskq_core.inspector.selection import ALLOWED_STATES, ActionReport, TaskAction, TaskRef, act_on
from taskq_core.settings import Duration, check_whole, seconds
from taskq_core.wire import Keys, TaskState

LIMIT_MAX = 1000
"""Most tasks one search returns."""
SCAN_MAX = 1_000_000
"""Most tasks one search looks at."""
_SCAN = 1_000
"""Most tasks that are read before the caller is asked whether to go on."""
_SCAN_BYTES = 16 * 1024 * 1024
_CANCELLED = 20
"""Most tasks that are cancelled before the caller is asked: each takes two calls."""


def always() -> bool:
    """Return True: a call without a time limit goes on."""
    return True


@dataclass(slots=True)
class MatchingReport:
    """The outcome for matching tasks, as far as this call went.

    Attributes:
        report: Changed and skipped tasks.
        scanned: Number of tasks that were read.
        next: Cursor for the next call, None at the end.
    """

    report: ActionReport = field(default_factory=ActionReport)
    scanned: int = 0
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """A filter for tasks. A field that is None matches all.

    Attributes:
        queue: Their queue.
        state: Their state.
        group: Their group, with `TaskState.AGGREGATING`.
        name: Part of the task's name.
        error: Part of the text of its last failure.
        payload: Part of its payload.
        older_than: Its time is before this moment, or longer ago than this when the first part began.
        newer_than: Its time is not before this moment, or was not longer ago than this.
    """

    queue: str | None = None
    state: TaskState
    group: str | None = None
    name: str | None = None
    error: str | None = None
    payload: bytes | str | None = None
    older_than: datetime | Duration | None = None
    newer_than: datetime | Duration | None = None

    def fits(self, task: TaskInfo | UnreadableTask, at_s: int | None, now_s: float) -> bool:
        """Return whether a task of the right queue and state matches. `at_s` is the time of its state, if known."""
        before_s = _moment("older_than", self.older_than, now_s)
        after_s = _moment("newer_than", self.newer_than, now_s)
        if before_s is not None and (at_s is None or at_s >= before_s):
            return False
        if after_s is not None and (at_s is None or at_s < after_s):
            return False
        payload = self.payload.encode() if isinstance(self.payload, str) else self.payload
        if isinstance(task, UnreadableTask):
            return self.name is None and self.error is None and (payload is None or payload in task.message)
        return (
            (self.name is None or self.name in task.name)
            and (self.error is None or self.error in task.last_error)
            and (payload is None or payload in task.payload)
        )

    def checked(self) -> TaskState:
        """Check the filter before any request, and return its state."""
        state = known_state(self.state)
        check_group(state, self.group)
        if self.group is not None and self.queue is None:
            raise ConfigurationError(f"group={self.group!r} needs its queue")
        for what, text in (("queue", self.queue), ("name", self.name), ("error", self.error)):
            if text is not None:
                check_text(what, text)
        if self.payload is not None and not isinstance(self.payload, bytes | str):
            raise ConfigurationError(f"payload must be bytes or a string, got {type(self.payload).__name__}")
        _moment("older_than", self.older_than, 0)
        _moment("newer_than", self.newer_than, 0)
        return state


def _moment(name: str, value: datetime | Duration | None, now_s: float) -> float | None:
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
    matching = Matching(
        queue=queue,
        state=state,
        group=group,
        name=name,
        error=error,
        payload=payload,
        older_than=older_than,
        newer_than=newer_than,
    )
    state = matching.checked()
    check_whole("limit", limit, least=1, most=LIMIT_MAX)
    check_whole("scan", scan, least=1, most=SCAN_MAX)
    place_of(state, cursor)  # check it before any request
    queue_keys = yield from known_queue(keys, queue)
    now_s = 0.0
    if older_than is not None or newer_than is not None:
        now_s = yield from ask(diagnosis.read_time())

    def fits(task: TaskInfo | UnreadableTask, at_s: int | None) -> bool:
        return matching.fits(task, at_s, now_s)

    return (yield from scan_state(queue_keys, state, fits, group=group, limit=limit, scan=scan, cursor=cursor))


def act_on_matching(
    app: TaskQ,
    matching: Matching,
    action: TaskAction,
    *,
    at: datetime | None = None,
    after: Duration | None = None,
    to_queue: str | None = None,
    cursor: str | None = None,
    has_time: Callable[[], bool] = always,
) -> RequestPlan[MatchingReport]:
    """Apply one action to all matching tasks of a state. Each call does a part, until `has_time` returns False.

    The action applies only to tasks that were in the state when the first call began, and once to each: a task that
    left the state and came back is skipped. Tasks are read in chunks of 100.

    Args:
        matching: Filter for the tasks. Their state must allow the action.
        action: The action, as in `act_on`.
        at: When tasks may run, with a time zone.
        after: Time from the first call on, instead of `at`.
        to_queue: The queue to move them to. Tasks that are already in it are skipped.
        cursor: `MatchingReport.next` of the previous call, with the same other arguments.
        has_time: Called after each chunk of at most 100 changed or 1000 read tasks. False ends the call.

    Returns:
        The outcome for each task, and the cursor of the next call. `report.failure` has the error of the store if
        it failed part way.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: The state does not allow the action, or an argument is not valid.
    """
    keys = app.runtime.keys
    action = TaskAction(action)
    state = matching.checked()
    check_state(action, state, ALLOWED_STATES[action])
    # Check the arguments with an empty list of tasks.
    done = MatchingReport(report=(yield from act_on(app, (), action, at=at, after=after, to_queue=to_queue)))
    if cursor is None:
        now_s = yield from ask(diagnosis.read_time())
        place = _Place(began_s=int(now_s), at_s=None, queue="", inner=None)
        if action is TaskAction.RETRY:
            at_s, in_ms = start_of(at, after)
            place.at_s = at_s if at_s is not None else -int(-(now_s + in_ms / 1000) // 1)
    else:
        place = _Place.of(cursor, action)
        if matching.queue is not None and place.queue not in ("", matching.queue):
            raise ConfigurationError(f"cursor must come from the part before, got one of queue {place.queue!r}")
    start = None if place.at_s is None else _start(place.at_s)
    names = yield from _names(keys, matching, to_queue)
    names = [name for name in names if name >= place.queue]
    most = _CANCELLED if action is TaskAction.CANCEL else CHUNK
    for number, name in enumerate(names):
        if name != place.queue:
            place.queue, place.inner = name, None
        while True:
            try:
                found = yield from scan_state(
                    keys.queue(name),
                    state,
                    lambda task, at_s: matching.fits(task, at_s, place.began_s) and _is_due(task, place.began_s, start),
                    group=matching.group,
                    limit=most,
                    scan=_SCAN,
                    cursor=place.inner,
                    max_bytes=_SCAN_BYTES,
                )
            except BrokerError as error:
                if not done.scanned:
                    raise
                done.report.failure, done.next = error, str(place)  # report the tasks that were changed before
                return done
            done.scanned += found.scanned
            refs = [TaskRef(name, task.id, state) for task in found.tasks]
            part = yield from act_on(app, refs, action, at=start, to_queue=to_queue)
            _add(done.report, part)
            if part.failure is not None:
                done.next = str(place)
                return done
            if found.cursor is None:
                break
            place.inner = found.cursor
            if views.is_list(state) and action is not TaskAction.CANCEL:
                place.inner = str(max(0, int(found.cursor) - len(part.done)))  # those behind them have moved up
            if not has_time():
                done.next = str(place)
                return done
        if number + 1 < len(names) and not has_time():
            place.queue, place.inner = names[number + 1], None
            done.next = str(place)
            return done
    return done


def _names(keys: Keys, matching: Matching, to_queue: str | None) -> RequestPlan[list[str]]:
    if matching.queue is not None:
        yield from known_queue(keys, matching.queue)
        return [matching.queue]
    return sorted(name for name in (yield from ask(views.list_queues(keys.queues))) if name != to_queue)


def _is_due(task: TaskInfo | UnreadableTask, began_s: int, start: datetime | None) -> bool:
    """Whether a task was there when the first part began, and nothing was done to it since."""
    if isinstance(task, UnreadableTask):
        return True
    if start is not None and task.next_run_at == start:
        return False
    return task.last_failed_at is None or task.last_failed_at <= utc_datetime(began_s)


def _start(at_s: int) -> datetime:
    try:
        return utc_datetime(0) + timedelta(seconds=at_s)
    except OverflowError:
        raise ConfigurationError(f"a retry has to start at a time a calendar holds, got {at_s} s") from None


def _add(report: ActionReport, part: ActionReport) -> None:
    report.done += part.done
    report.skipped += part.skipped
    report.failure, report.untouched = part.failure, part.untouched


@dataclass(slots=True)
class _Place:
    """Where a part ended.

    Attributes:
        began_s: The Unix second at which the first part began, by Redis's clock.
        at_s: The second until which tasks are put off, the same for all parts; None for other actions.
        queue: The queue.
        inner: The place in its tasks.
    """

    began_s: int
    at_s: int | None
    queue: str
    inner: str | None

    def __str__(self) -> str:
        at = "" if self.at_s is None else str(self.at_s)
        return f"{self.began_s}/{at}/{self.queue.encode('utf-8', 'surrogateescape').hex()}/{self.inner or ''}"

    @classmethod
    def of(cls, cursor: str, action: TaskAction) -> "_Place":
        check_text("cursor", cursor)
        wrong = ConfigurationError(f"cursor must come from the part before, got {cursor[:80]!r}")
        parts = cursor.split("/", 3)
        if len(parts) != 4 or (action is TaskAction.RETRY) != bool(parts[1]):
            raise wrong
        try:
            began_s, at_s = int(parts[0]), int(parts[1]) if parts[1] else None
            queue = bytes.fromhex(parts[2]).decode("utf-8", "surrogateescape")
        except ValueError:
            raise wrong from None
        if not 0 <= began_s < 2**33 or (at_s is not None and not -(2**40) < at_s < 2**40):
            raise wrong
        return cls(began_s, at_s, queue, parts[3] or None)
