"""Texts that the admin, the web dashboard and the terminal share: questions and outcomes of actions, and durations.

Texts are in the current language (`taskq_core.settings.language`). The translation catalogs of the admin and of the web
dashboard both contain these texts. So do not add texts that only one of the two shows.
"""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.codec.oversized import OversizedResult
from taskq_core.handles.records import TaskInfo
from taskq_core.handles.waits import TaskWait
from taskq_core.inspector import FoundTasks, Skip, TaskAction
from taskq_core.settings.language import gettext, marked, ngettext, nmarked, pgettext, pmarked
from taskq_core.views.workflow_lists import WorkflowSearch
from taskq_core.views.workflows import MemberRow
from taskq_core.wire import TaskState
from taskq_core.workflow import StepInfo

Skipped = Counter[tuple[Skip, str]]
"""Number of tasks that an action skipped, by reason and state (`ActionReport.skipped`)."""

BUTTONS = {
    TaskAction.RUN: marked("Run now"),
    TaskAction.RETRY: marked("Retry later"),
    TaskAction.ARCHIVE: marked("Archive"),
    TaskAction.CANCEL: marked("Cancel"),
    TaskAction.MOVE: marked("Move"),
    TaskAction.DELETE: marked("Delete"),
}
"""English labels of the buttons of each action, in display order."""
_QUESTIONS = {
    TaskAction.RUN: nmarked("Run %(whom)s now?", "Run %(whom)s now?"),
    TaskAction.RETRY: nmarked("Run %(whom)s at a later time?", "Run %(whom)s at a later time?"),
    TaskAction.ARCHIVE: nmarked("Archive %(whom)s?", "Archive %(whom)s?"),
    TaskAction.DELETE: nmarked(
        "Delete %(whom)s? It will not run any more.", "Delete %(whom)s? They will not run any more."
    ),
    TaskAction.CANCEL: nmarked(
        "Ask the worker of %(whom)s to cancel it?", "Ask the workers of %(whom)s to cancel them?"
    ),
    TaskAction.MOVE: nmarked("Move %(whom)s to another queue?", "Move %(whom)s to another queue?"),
}
WORKER_STATUS = (
    pmarked("worker status", "new"),
    pmarked("worker status", "active"),
    pmarked("worker status", "stopped"),
    pmarked("worker status", "closed"),
)
SIGNALS = {
    "approve": (marked("Approve"), {"approved": True}),
    "reject": (marked("Reject"), {"approved": False}),
    "send_signal": (marked("Send a signal"), None),
}
"""The buttons for a task that waits for a signal: their English labels, and the values that they send."""
_SIGNAL_QUESTIONS = {
    "approve": marked("Approve “%(signal)s” of the task %(name)s?"),
    "reject": marked("Reject “%(signal)s” of the task %(name)s?"),
    "answer": marked("Answer “%(signal)s” of the task %(name)s?"),
    "send_signal": marked("Send a value to the task %(name)s, which waits for “%(signal)s”?"),
}
STEP_KINDS = (
    pmarked("step of a task", "step"),
    pmarked("step of a task", "sleep"),
    pmarked("step of a task", "signal"),
    pmarked("step of a task", "question"),
    pmarked("step of a task", "sub-tasks"),
    pmarked("step of a task", "position"),
)
_DONE = {
    TaskAction.RUN: nmarked("%(count)s task runs now.", "%(count)s tasks run now."),
    TaskAction.RETRY: nmarked("%(count)s task was put off.", "%(count)s tasks were put off."),
    TaskAction.ARCHIVE: nmarked("%(count)s task was archived.", "%(count)s tasks were archived."),
    TaskAction.DELETE: nmarked("%(count)s task was deleted.", "%(count)s tasks were deleted."),
    TaskAction.CANCEL: nmarked(
        "The worker of %(count)s task was asked to cancel it.",
        "The workers of %(count)s tasks were asked to cancel them.",
    ),
    TaskAction.MOVE: nmarked("%(count)s task was moved.", "%(count)s tasks were moved."),
}
_REASONS = {
    Skip.GONE: nmarked("%(count)s no longer exists", "%(count)s no longer exist"),
    Skip.CHANGED: nmarked("%(count)s is now %(state)s", "%(count)s are now %(state)s"),
    Skip.STATE: nmarked(
        "%(count)s is %(state)s, which does not allow it", "%(count)s are %(state)s, which does not allow it"
    ),
    Skip.LOST: nmarked("%(count)s is damaged", "%(count)s are damaged"),
    Skip.COPIED: nmarked("%(count)s is on its way to another queue", "%(count)s are on their way to another queue"),
    Skip.STEPS: nmarked("%(count)s has stored steps", "%(count)s have stored steps"),
    Skip.ID_TAKEN: nmarked(
        "the id of %(count)s is taken in the other queue", "the ids of %(count)s are taken in the other queue"
    ),
    Skip.LOCK_TAKEN: nmarked(
        "another task holds the unique lock of %(count)s there", "other tasks hold the unique locks of %(count)s there"
    ),
    Skip.SAME_QUEUE: nmarked("%(count)s is in that queue already", "%(count)s are in that queue already"),
    Skip.UNREADABLE: nmarked("%(count)s cannot be read", "%(count)s cannot be read"),
    Skip.UNHEARD: nmarked(
        "no worker received the request for %(count)s", "no worker received the request for %(count)s"
    ),
}


def question(action: TaskAction, whom: str, count: int) -> str:
    """Return the question that a user must confirm before an action on tasks. `whom` describes the tasks."""
    return ngettext(*_QUESTIONS[action], count, whom=whom)


def signal_question(button: str, name: str, signal: str) -> str:
    """Return the question that a user must confirm before a button answers a task.

    Args:
        button: Key of the button in `SIGNALS`; or approve, reject or answer for a question.
        name: Name of the task.
        signal: Name of the signal or of the question that the task waits for.
    """
    return gettext(_SIGNAL_QUESTIONS[button], name=name, signal=signal)


def search_text(search: FoundTasks | WorkflowSearch, rows: str) -> str:
    """Return the text about the progress or the result of a search.

    It says that nothing matches only if everything was read.

    Args:
        search: The last result of the search.
        rows: The translated plural of what is searched, such as "tasks".
    """
    values = {
        "read": f"{min(search.read, search.total):,}",
        "total": f"{search.total:,}",
        "matched": f"{search.matched:,}",
        "rows": rows,
    }
    if search.cursor is None:
        if search.matched:
            return gettext("All %(total)s %(rows)s were read, %(matched)s match.", **values)
        return gettext("None of %(total)s %(rows)s matches.", **values)
    if search.matched:
        return gettext("Read %(read)s of %(total)s %(rows)s, %(matched)s matched so far.", **values)
    return gettext("Read %(read)s of %(total)s %(rows)s, none matched so far.", **values)


def step_state(step: StepInfo | MemberRow) -> str:
    """Return the text for the state of a step or group member, with the number of retries while it is retried."""
    if step.retried:
        return gettext("retrying %(done)s/%(most)s", done=step.retried, most=step.max_retry)
    return pgettext("workflow state", step.state.value)


def error_heading(task: TaskInfo) -> str:
    """Return the heading of the last error of a task. If the task has succeeded since, the error is history."""
    return gettext("Error of an earlier run") if task.state is TaskState.COMPLETED else gettext("Last error")


def not_stored(result: OversizedResult) -> str:
    """Return the text for a result that was too large to be stored or read."""
    if result.is_stored:
        return gettext(
            "Not read: the result has %(size)s bytes, and the limit is %(limit)s.",
            size=f"{result.size:,}",
            limit=f"{result.limit:,}",
        )
    return gettext(
        "Not stored: the result has %(size)s bytes, and the limit is %(limit)s (task option max_result_bytes).",
        size=f"{result.size:,}",
        limit=f"{result.limit:,}",
    )


def done(action: TaskAction, count: int) -> str:
    """Return the text that reports how many tasks an action has changed."""
    return ngettext(*_DONE[action], count, count=f"{count:,}")


def skipped(reasons: Skipped) -> str:
    """Return the text for skipped tasks with the reasons, "" if no task was skipped."""
    texts = [
        ngettext(*_REASONS[reason], count, count=f"{count:,}", state=pgettext("task state", state) if state else "")
        for (reason, state), count in sorted(reasons.items())
    ]
    return gettext("Skipped: %(reasons)s.", reasons=gettext("; ").join(texts)) if texts else ""


def span(value: timedelta, with_tenths: Callable[[float], str] = "{:.1f}".format) -> str:
    """Return a duration in its two largest units. Below ten seconds it has tenths of a second.

    Args:
        value: The duration. A negative duration has a sign before its first number.
        with_tenths: Formats a number with one decimal, as is usual in the language.
    """
    seconds = value.total_seconds()
    if abs(seconds) < 10:
        return gettext("%(seconds)s s", seconds=with_tenths(seconds))
    sign = "-" if seconds < 0 else ""
    minutes, left = divmod(int(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return gettext("%(days)s d %(hours)s h", days=f"{sign}{days}", hours=hours)
    if hours:
        return gettext("%(hours)s h %(minutes)s min", hours=f"{sign}{hours}", minutes=minutes)
    if minutes:
        return gettext("%(minutes)s min %(seconds)s s", minutes=f"{sign}{minutes}", seconds=left)
    return gettext("%(seconds)s s", seconds=f"{sign}{left}")


def wait_text(wait: TaskWait | None, show: Callable[[timedelta], str] = span) -> str:
    """Return the text that says what a task waits for, "" for None.

    `show` formats the time until the end of the wait.
    """
    if wait is None:
        return ""
    if wait.kind == "sub-tasks":
        return gettext("waiting for its sub-tasks")
    if wait.until is None:
        return gettext("waiting for %(name)s", name=wait.name)
    left = show(max(timedelta(), wait.until - utc_datetime(SYSTEM_CLOCK.time())))
    if wait.kind == "sleep":
        return gettext("sleeping, %(left)s left", left=left)
    return gettext("waiting for %(name)s, %(left)s left", name=wait.name, left=left)
