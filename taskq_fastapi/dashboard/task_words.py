"""What is said of tasks and of what was done to them."""

from collections import Counter
from datetime import UTC, datetime

from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.dashboard import TaskTime, TimeKind
from taskq_core.inspector import ActionReport, Skip, TaskAction
from taskq_core.wire import TaskState

Skipped = Counter[tuple[Skip, str]]

BUTTONS = {
    TaskAction.RUN: "Run now",
    TaskAction.RETRY: "Retry later",
    TaskAction.ARCHIVE: "Archive",
    TaskAction.CANCEL: "Cancel",
    TaskAction.MOVE: "Move",
    TaskAction.DELETE: "Delete",
}
"""What the button of each action says, in the order in which they stand."""
ALL_BUTTONS = {
    TaskAction.RUN: "Run all now",
    TaskAction.RETRY: "Retry all later",
    TaskAction.ARCHIVE: "Archive all",
    TaskAction.CANCEL: "Cancel all",
    TaskAction.MOVE: "Move all",
    TaskAction.DELETE: "Delete all",
}
"""The same for all tasks that are meant."""
_DONE = {
    TaskAction.RUN: ("{} task runs now.", "{} tasks run now."),
    TaskAction.RETRY: ("{} task was put off.", "{} tasks were put off."),
    TaskAction.ARCHIVE: ("{} task was archived.", "{} tasks were archived."),
    TaskAction.DELETE: ("{} task was deleted.", "{} tasks were deleted."),
    TaskAction.CANCEL: (
        "The worker of {} task was asked to cancel it.",
        "The workers of {} tasks were asked to cancel them.",
    ),
    TaskAction.MOVE: ("{} task was moved.", "{} tasks were moved."),
}
_QUESTIONS = {
    TaskAction.RUN: ("Let {} run now?", "Let {} run now?"),
    TaskAction.RETRY: ("Let {} wait until another time?", "Let {} wait until another time?"),
    TaskAction.ARCHIVE: ("Archive {}?", "Archive {}?"),
    TaskAction.DELETE: ("Delete {}? It will not run any more.", "Delete {}? They will not run any more."),
    TaskAction.CANCEL: ("Ask the worker of {} to cancel it?", "Ask the workers of {} to cancel them?"),
    TaskAction.MOVE: ("Move {} to another queue?", "Move {} to another queue?"),
}
_REASONS = {
    Skip.GONE: ("{} is not there (any more)", "{} are not there (any more)"),
    Skip.CHANGED: ("{} is {state} by now", "{} are {state} by now"),
    Skip.STATE: ("{} is {state}, which does not allow it", "{} are {state}, which does not allow it"),
    Skip.LOST: ("{} is damaged", "{} are damaged"),
    Skip.MOVING: ("{} is on its way to another queue", "{} are on their way to another queue"),
    Skip.ID_TAKEN: ("the id of {} is taken in the other queue", "the ids of {} are taken in the other queue"),
    Skip.LOCK_TAKEN: (
        "another task holds the unique lock of {} there",
        "other tasks hold the unique locks of {} there",
    ),
    Skip.SAME_QUEUE: ("{} is in that queue already", "{} are in that queue already"),
    Skip.UNREADABLE: ("{} cannot be read", "{} cannot be read"),
    Skip.UNHEARD: ("no worker was there for {}", "no worker was there for {}"),
}
_TIMES = {
    TimeKind.ATTEMPT_FAILED: "attempt {} failed",
    TimeKind.ATTEMPT_SUCCEEDED: "attempt {} succeeded",
    TimeKind.FAILED: "failed",
    TimeKind.STARTED: "started",
    TimeKind.COMPLETED: "completed",
    TimeKind.ARCHIVED: "archived",
    TimeKind.STARTS: "starts",
    TimeKind.NEXT_ATTEMPT: "next attempt",
    TimeKind.LEASE_ENDS: "lease ends, unless its worker extends it",
    TimeKind.START_BY: "expires, unless a worker has begun it",
    TimeKind.DEADLINE: "deadline",
    TimeKind.DELETED: "deleted",
}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def question(action: TaskAction, whom: str, count: int) -> str:
    """Return what is asked before something is done; `whom` says to which tasks."""
    return _QUESTIONS[action][count != 1].format(whom)


def done(action: TaskAction, count: int) -> str:
    """Return what is said once something was done to tasks."""
    return _DONE[action][count != 1].format(f"{count:,}")


def skipped(reasons: Skipped) -> str:
    """Return in words how many were skipped and why, "" for none."""
    texts = [
        _REASONS[reason][count != 1].format(f"{count:,}", state=state)
        for (reason, state), count in sorted(reasons.items())
    ]
    return f"Skipped: {'; '.join(texts)}." if texts else ""


def outcome(action: TaskAction, report: ActionReport) -> tuple[str, str]:
    """Return how what became of tasks is shown, and what is said of it."""
    count, parts = len(report.done), []
    if count:
        parts.append(done(action, count))
    if report.skipped:
        parts.append(skipped(report.skipped))
    if report.failure is not None:
        parts.append(f"Redis failed on the way, and {report.untouched:,} were not gone through.")
    if not parts:
        parts.append("There was nothing to do.")
    level = "error" if report.failure is not None else "success" if count and not report.skipped else "warning"
    return level, " ".join(parts)


def time_of(time: TaskTime) -> str:
    """Return what happens to a task at a time."""
    return _TIMES[time.kind].format(time.attempt)


def roughly(value: datetime | None) -> str:
    """Return how far a time is from now, in its largest unit: `in 3 min`, `2 d ago`; "" for none."""
    if value is None:
        return ""
    seconds = (value - utc_datetime(SYSTEM_CLOCK.time())).total_seconds()
    unit, word = next(((unit, word) for unit, word in _UNITS if abs(seconds) >= unit), _UNITS[-1])
    text = f"{round(abs(seconds) // unit)} {word}"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def in_utc(value: str) -> datetime | None:
    """Return the time of a field of a form, in UTC; None for none that can be read."""
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    except ValueError:
        return None


def article(state: TaskState) -> str:
    """Return a state with its article."""
    return f"an {state}" if state[0] in "aeiou" else f"a {state}"
