"""Texts about tasks and workflows that the web dashboard and the terminal share.

They are in the current language (`taskq_core.settings.language`).
"""

from taskq_core.inspector import ALLOWED_STATES, ActionReport, PeriodicEntryInfo, TaskAction
from taskq_core.settings.language import gettext, marked, ngettext, nmarked, pmarked
from taskq_core.views.labels import done, skipped, step_state
from taskq_core.views.workflows import WorkflowDetail
from taskq_core.wire import TaskState
from taskq_core.workflow import StepInfo, WorkflowInfo

BUTTONS = {
    TaskAction.RUN: marked("Run now"),
    TaskAction.RETRY: marked("Retry later"),
    TaskAction.ARCHIVE: marked("Archive"),
    TaskAction.CANCEL: marked("Cancel"),
    TaskAction.MOVE: marked("Move"),
    TaskAction.DELETE: marked("Delete"),
}
"""English labels of the buttons of each action, in display order."""
ALL_BUTTONS = {
    TaskAction.RUN: marked("Run all now"),
    TaskAction.RETRY: marked("Retry all later"),
    TaskAction.ARCHIVE: marked("Archive all"),
    TaskAction.CANCEL: marked("Cancel all"),
    TaskAction.MOVE: marked("Move all"),
    TaskAction.DELETE: marked("Delete all"),
}
"""The same for all tasks that are meant."""
_QUESTIONS = {
    TaskAction.RUN: nmarked("Let %(whom)s run now?", "Let %(whom)s run now?"),
    TaskAction.RETRY: nmarked("Let %(whom)s wait until another time?", "Let %(whom)s wait until another time?"),
    TaskAction.ARCHIVE: nmarked("Archive %(whom)s?", "Archive %(whom)s?"),
    TaskAction.DELETE: nmarked(
        "Delete %(whom)s? It will not run any more.", "Delete %(whom)s? They will not run any more."
    ),
    TaskAction.CANCEL: nmarked(
        "Ask the worker of %(whom)s to cancel it?", "Ask the workers of %(whom)s to cancel them?"
    ),
    TaskAction.MOVE: nmarked("Move %(whom)s to another queue?", "Move %(whom)s to another queue?"),
}
TASK_STATES = (
    pmarked("task state", "active"),
    pmarked("task state", "pending"),
    pmarked("task state", "scheduled"),
    pmarked("task state", "retry"),
    pmarked("task state", "archived"),
    pmarked("task state", "completed"),
    pmarked("task state", "aggregating"),
)
WORKFLOW_STATES = (
    pmarked("workflow state", "running"),
    pmarked("workflow state", "succeeded"),
    pmarked("workflow state", "failed"),
    pmarked("workflow state", "cancelled"),
    pmarked("workflow state", "damaged"),
)
"""States of workflows. Those of steps and members are in `taskq_core.views.labels`."""
QUEUE_STATUS = (
    pmarked("queue status", "running"),
    pmarked("queue status", "no worker"),
    pmarked("queue status", "paused"),
    pmarked("queue status", "damaged"),
)
WORKER_STATUS = (
    pmarked("worker status", "new"),
    pmarked("worker status", "active"),
    pmarked("worker status", "stopped"),
    pmarked("worker status", "closed"),
)


def question(action: TaskAction, whom: str, count: int) -> str:
    """Return what is asked before something is done; `whom` says to which tasks."""
    return ngettext(*_QUESTIONS[action], count, whom=whom)


def outcome(action: TaskAction, report: ActionReport) -> tuple[str, str]:
    """Return how what became of tasks is shown, and what is said of it."""
    count, parts = len(report.done), []
    if count:
        parts.append(done(action, count))
    if report.skipped:
        parts.append(skipped(report.skipped))
    if report.failure is not None:
        parts.append(
            gettext("Redis failed on the way, and %(count)s were not gone through.", count=f"{report.untouched:,}")
        )
    if not parts:
        parts.append(gettext("There was nothing to do."))
    level = "error" if report.failure is not None else "success" if count and not report.skipped else "warning"
    return level, " ".join(parts)


def actions_for(state: TaskState) -> list[tuple[TaskAction, str]]:
    """Return what can be done to a task in a state, with what the buttons say."""
    return [(action, gettext(label)) for action, label in BUTTONS.items() if state in ALLOWED_STATES[action]]


# --- workflows and schedules ------------------------------------------------------------------------------------------


def step_stands(step: StepInfo) -> str:
    """Return the state of a step, and for a group how many members have ended."""
    state = step_state(step)
    if step.members is None:
        return state
    failed = gettext(", %(count)s failed", count=f"{step.failed:,}") if step.failed else ""
    return f"{state} {step.succeeded + step.failed:,}/{step.members:,}{failed}"


def workflow_called(info: WorkflowInfo) -> str:
    """Return a workflow by its name and id."""
    if info.name:
        return gettext("“%(name)s” (%(id)s)", name=info.name, id=info.id)
    return f"“{info.id}”"


def cancel_question(info: WorkflowInfo) -> str:
    """Return what is asked before a workflow is cancelled."""
    return gettext(
        "Cancel the workflow %(workflow)s? Of its %(total)s steps %(ended)s have ended; no further one starts, those "
        "that wait in queues are dropped, and those that run are told to stop.",
        workflow=workflow_called(info),
        total=f"{info.total:,}",
        ended=f"{info.ended:,}",
    )


def retry_question(detail: WorkflowDetail) -> str:
    """Return what is asked before what failed of a workflow is run again."""
    return gettext(
        "Run what failed of the workflow %(workflow)s again (%(count)s), and then what was skipped for its sake? What "
        "has succeeded does not run again.",
        workflow=workflow_called(detail.graph.info),
        count=f"{detail.failures:,}",
    )


def cancelled(info: WorkflowInfo, *, is_done: bool) -> str:
    """Return what is said once a workflow was cancelled, or had ended before."""
    if is_done:
        return gettext("The workflow %(workflow)s is cancelled.", workflow=workflow_called(info))
    return gettext("The workflow %(workflow)s had ended already.", workflow=workflow_called(info))


def retried(info: WorkflowInfo, count: int) -> str:
    """Return what is said once so many steps of a workflow run again."""
    if not count:
        return gettext("Nothing of the workflow %(workflow)s is there to run again.", workflow=workflow_called(info))
    return ngettext(
        "Of the workflow %(workflow)s %(count)s step runs again.",
        "Of the workflow %(workflow)s %(count)s steps run again.",
        count,
        workflow=workflow_called(info),
        count=f"{count:,}",
    )


def fire_question(entry: PeriodicEntryInfo) -> str:
    """Return what is asked before a periodic entry is run now."""
    return gettext(
        "Enqueue “%(task)s” now, as the schedule “%(schedule)s” does when it is due? When it is due next stays as it "
        "is.",
        task=entry.name,
        schedule=entry.id,
    )
