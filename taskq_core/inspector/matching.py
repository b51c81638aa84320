"""Apply an action to all tasks of a state that match a filter, in several calls.

The caller decides when a call ends, and gets a cursor for the next one. Each task that was there at the first call is
changed at most once: a task is skipped if it has run and failed again since then, or already waits for the new time.
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
from taskq_core.inspector.records import UnreadableTask
from taskq_core.inspector.search import Wanted, moment, scan_state
from taskq_core.inspector.selection import ALLOWED_STATES, ActionReport, TaskAction, TaskRef, act_on
from taskq_core.settings import Duration
from taskq_core.wire import Keys, TaskState

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

    def wanted(self, now_s: float) -> Wanted:
        """Return what a task has to be."""
        return Wanted(
            name=self.name,
            error=self.error,
            payload=self.payload.encode() if isinstance(self.payload, str) else self.payload,
            before_s=moment("older_than", self.older_than, now_s),
            after_s=moment("newer_than", self.newer_than, now_s),
        )

    def checked(self, action: TaskAction) -> TaskState:
        """Check the filter before any request, and return its state."""
        state = known_state(self.state)
        check_state(action, state, ALLOWED_STATES[action])
        check_group(state, self.group)
        if self.group is not None and self.queue is None:
            raise ConfigurationError(f"group={self.group!r} needs its queue")
        for what, text in (("queue", self.queue), ("name", self.name), ("error", self.error)):
            if text is not None:
                check_text(what, text)
        if self.payload is not None and not isinstance(self.payload, bytes | str):
            raise ConfigurationError(f"payload must be bytes or a string, got {type(self.payload).__name__}")
        self.wanted(0)
        return state


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
    state = matching.checked(action)
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
    wanted = matching.wanted(place.began_s)
    most = _CANCELLED if action is TaskAction.CANCEL else CHUNK
    for number, name in enumerate(names):
        if name != place.queue:
            place.queue, place.inner = name, None
        while True:
            try:
                found = yield from scan_state(
                    keys.queue(name),
                    state,
                    lambda task, at_s: wanted.fits(task, at_s) and _is_due(task, place.began_s, start),
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
