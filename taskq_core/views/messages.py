"""Texts about tasks and workflows that the web dashboard and the terminal share.

They are in the current language (`taskq_core.settings.language`).
"""

from taskq_core.inspector import ALLOWED_STATES, ActionReport, PeriodicEntryInfo, TaskAction
from taskq_core.settings.language import gettext, marked, ngettext
from taskq_core.views.labels import BUTTONS, done, skipped, step_state
from taskq_core.views.workflows import WorkflowDetail
from taskq_core.wire import TaskState
from taskq_core.workflow import StepInfo, WorkflowInfo

ALL_BUTTONS = {
    TaskAction.RUN: marked("Run all now"),
    TaskAction.RETRY: marked("Retry all later"),
    TaskAction.ARCHIVE: marked("Archive all"),
    TaskAction.CANCEL: marked("Cancel all"),
    TaskAction.MOVE: marked("Move all"),
    TaskAction.DELETE: marked("Delete all"),
}
"""English labels of the buttons for all tasks of a list."""


def outcome(action: TaskAction, report: ActionReport) -> tuple[str, str]:
    """Return the level (`success`, `warning` or `error`) and the text for the outcome of an action."""
    count, parts = len(report.done), []
    if count:
        parts.append(done(action, count))
    if report.skipped:
        parts.append(skipped(report.skipped))
    if report.failure is not None:
        parts.append(
            gettext(
                "Redis failed before the end, and %(count)s tasks were not processed.", count=f"{report.untouched:,}"
            )
        )
    if not parts:
        parts.append(gettext("There was nothing to do."))
    level = "error" if report.failure is not None else "success" if count and not report.skipped else "warning"
    return level, " ".join(parts)


def actions_for(state: TaskState) -> list[tuple[TaskAction, str]]:
    """Return the actions that are possible for a task in a state, with the labels of their buttons."""
    return [(action, gettext(label)) for action, label in BUTTONS.items() if state in ALLOWED_STATES[action]]


# --- workflows and schedules ------------------------------------------------------------------------------------------


def step_text(step: StepInfo) -> str:
    """Return the state of a step, and for a group how many members have ended."""
    state = step_state(step)
    if step.members is None:
        return state
    failed = gettext(", %(count)s failed", count=f"{step.failed:,}") if step.failed else ""
    return f"{state} {step.succeeded + step.failed:,}/{step.members:,}{failed}"


def workflow_label(info: WorkflowInfo) -> str:
    """Return the text that names a workflow: its name and id."""
    if info.name:
        return gettext("“%(name)s” (%(id)s)", name=info.name, id=info.id)
    return f"“{info.id}”"


def cancel_question(info: WorkflowInfo) -> str:
    """Return the question that a user must confirm before a workflow is cancelled."""
    return gettext(
        "Cancel the workflow %(workflow)s? %(ended)s of its %(total)s steps have ended. No further step starts, "
        "steps in queues are dropped, and running steps are asked to stop.",
        workflow=workflow_label(info),
        total=f"{info.total:,}",
        ended=f"{info.ended:,}",
    )


def retry_question(detail: WorkflowDetail) -> str:
    """Return the question that a user must confirm before the failed steps of a workflow run again."""
    return gettext(
        "Run the failed steps of the workflow %(workflow)s again (%(count)s), and then the steps that were skipped "
        "because of them? Steps that succeeded do not run again.",
        workflow=workflow_label(detail.graph.info),
        count=f"{detail.failures:,}",
    )


def cancelled(info: WorkflowInfo, *, is_done: bool) -> str:
    """Return the text that says that a workflow was cancelled, or that it had already ended."""
    if is_done:
        return gettext("The workflow %(workflow)s is cancelled.", workflow=workflow_label(info))
    return gettext("The workflow %(workflow)s has already ended.", workflow=workflow_label(info))


def retried(info: WorkflowInfo, count: int) -> str:
    """Return the text that says how many failed steps of a workflow were started again."""
    if not count:
        return gettext("The workflow %(workflow)s has no failed step to run again.", workflow=workflow_label(info))
    return ngettext(
        "%(count)s step of the workflow %(workflow)s runs again.",
        "%(count)s steps of the workflow %(workflow)s run again.",
        count,
        workflow=workflow_label(info),
        count=f"{count:,}",
    )


def fire_question(entry: PeriodicEntryInfo) -> str:
    """Return the question that a user must confirm before the task of a schedule is enqueued now."""
    return gettext(
        "Enqueue “%(task)s” now, as the schedule “%(schedule)s” does when it is due? Its next run does not change.",
        task=entry.name,
        schedule=entry.id,
    )
