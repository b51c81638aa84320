"""Test messages about tasks and workflows, in the singular and the plural."""

from collections import Counter
from datetime import UTC, datetime

from taskq_core.errors import BrokerUnavailableError
from taskq_core.inspector import ActionReport, Skip, TaskAction, TaskRef
from taskq_core.views.labels import question
from taskq_core.views.messages import actions_for, cancelled, outcome, retried, step_text
from taskq_core.wire import TaskState
from taskq_core.workflow import StepInfo, StepState, WorkflowInfo, WorkflowState
from tests.rows import rows


def test_a_confirmation_names_the_affected_objects() -> None:
    assert question(TaskAction.DELETE, "3 tasks", 3) == "Delete 3 tasks? They will not run any more."
    assert question(TaskAction.CANCEL, "the task “a”", 1) == "Ask the worker of the task “a” to cancel it?"


def test_a_result_lists_changed_and_skipped_tasks_with_reasons() -> None:
    report = ActionReport(
        done=[TaskRef("mail", "a"), TaskRef("mail", "b")],
        skipped=Counter({(Skip.CHANGED, "active"): 1, (Skip.GONE, ""): 2}),
    )

    level, text = outcome(TaskAction.RUN, report)

    assert level == "warning"
    assert text == "2 tasks run now. Skipped: 1 is now active; 2 no longer exist."


def test_a_failed_action_reports_the_unchanged_tasks() -> None:
    report = ActionReport(failure=BrokerUnavailableError("away"), untouched=1200)

    assert outcome(TaskAction.ARCHIVE, report) == (
        "error",
        "Redis failed before the end, and 1,200 tasks were not processed.",
    )


@rows(
    ("state", "actions"),
    [
        (TaskState.ACTIVE, ["cancel"]),
        (TaskState.PENDING, ["retry", "archive", "move", "delete"]),
        (TaskState.ARCHIVED, ["run", "retry", "move", "delete"]),
    ],
)
def test_possible_actions_depend_on_the_state(state: TaskState, actions: list[str]) -> None:
    assert [str(action) for action, _ in actions_for(state)] == actions


def test_a_group_shows_its_number_of_ended_members() -> None:
    facts = {"name": "g", "task": "t", "queue": "", "task_id": "", "after": {}, "is_callback": False}
    step = StepInfo(**facts, ended_at=None, error="", state=StepState.STARTED, members=1200, succeeded=7, failed=1)  # type: ignore[arg-type]

    assert step_text(step) == "started 8/1,200, 1 failed"


def test_the_outcome_of_a_workflow_is_described() -> None:
    info = WorkflowInfo(
        id="w1",
        queue="mail",
        name="order",
        state=WorkflowState.FAILED,
        created_at=datetime.now(UTC),
        ended_at=None,
        total=3,
        counts={},
    )

    assert cancelled(info, is_done=False) == "The workflow “order” (w1) has already ended."
    assert retried(info, 1) == "1 step of the workflow “order” (w1) runs again."
    assert retried(info, 2) == "2 steps of the workflow “order” (w1) run again."
    assert retried(info, 0) == "The workflow “order” (w1) has no failed step to run again."
