"""Workflows: those of a queue, and one with its graph; cancelling it, and running what failed again."""

from functools import partial

from taskq_core.dashboard import BOX_HEIGHT, BOX_WIDTH, WorkflowDetail
from taskq_core.workflow import StepInfo, WorkflowState
from taskq_fastapi.dashboard.form import Form
from taskq_fastapi.dashboard.registry import Action, Done, Page, Question
from taskq_fastapi.dashboard.view import Shown, View


async def show(view: View) -> Shown:
    """Show the workflows whose home a queue is."""
    queue = view.query.need("queue")
    asked = view.paging(0)
    read = partial(view.dashboard.workflows, queue, skip=asked.skip, count=asked.rows)
    found = await view.shared(("workflows", queue, asked.skip, asked.rows), read)
    return view.page(
        "workflows.html", title=f"Workflows of {queue}", queue=queue, found=found, paging=view.paging(found.total)
    )


async def show_one(view: View) -> Shown:
    """Show one workflow with its graph."""
    queue, workflow_id = view.query.need("queue"), view.query.need("id")
    detail = await view.shared(("workflow", queue, workflow_id), partial(view.dashboard.workflow, queue, workflow_id))
    steps = detail.graph.steps
    paging = view.paging(len(steps))
    info = detail.graph.info
    return view.page(
        "workflow.html",
        title=info.name or workflow_id,
        info=info,
        detail=detail,
        drawing=detail.drawing,
        box=(BOX_WIDTH, BOX_HEIGHT),
        rows=[(step, _error(view, step)) for step in steps[paging.skip : paging.skip + paging.rows]],
        paging=paging,
        is_running=info.state is WorkflowState.RUNNING,
        can_be_retried=_can_be_retried(detail),
    )


def _can_be_retried(detail: WorkflowDetail) -> bool:
    return detail.failures > 0 and detail.graph.info.state in (WorkflowState.RUNNING, WorkflowState.FAILED)


def _error(view: View, step: StepInfo) -> str:
    return str(view.shown.value(step.task, "error", step.error)) if step.error else ""


async def _detail(view: View, form: Form) -> WorkflowDetail:
    return await view.dashboard.workflow(form.need("queue"), form.need("id"))


def _called(detail: WorkflowDetail) -> str:
    info = detail.graph.info
    return f"“{info.name}” ({info.id})" if info.name else f"“{info.id}”"


async def ask_cancel(view: View, form: Form) -> Question:
    """Ask before a workflow is cancelled."""
    detail = await _detail(view, form)
    info = detail.graph.info
    return Question(
        text=f"Cancel the workflow {_called(detail)}? Of its {info.total:,} steps {info.ended:,} have ended; no "
        "further one starts, those that wait in queues are dropped, and those that run are told to stop.",
        button="Cancel the workflow",
        is_destructive=True,
    )


async def cancel(view: View, form: Form) -> Done:
    """Cancel a workflow."""
    detail = await _detail(view, form)
    info = detail.graph.info
    if not await view.site.taskq.workflow(info.id, info.queue).acancel():
        return Done(text=f"The workflow {_called(detail)} had ended already.", level="warning")
    return Done(text=f"The workflow {_called(detail)} is cancelled.")


async def ask_retry(view: View, form: Form) -> Question:
    """Ask before what failed is run again."""
    detail = await _detail(view, form)
    return Question(
        text=f"Run what failed of the workflow {_called(detail)} again ({detail.failures:,}), and then what was "
        "skipped for its sake? What has succeeded does not run again.",
        button="Run again",
    )


async def retry(view: View, form: Form) -> Done:
    """Run what failed again."""
    detail = await _detail(view, form)
    info = detail.graph.info
    count = await view.site.taskq.workflow(info.id, info.queue).aretry()
    view.audited["count"] = count
    if not count:
        return Done(text=f"Nothing of the workflow {_called(detail)} is there to run again.", level="warning")
    steps = "1 step" if count == 1 else f"{count:,} steps"
    return Done(text=f"Of the workflow {_called(detail)} {steps} run{'s' if count == 1 else ''} again.")


PAGE = Page(path="workflows", show=show)
WORKFLOW = Page(path="workflow", show=show_one)
ACTIONS = (
    Action(path="workflow-cancel", perform=cancel, ask=ask_cancel, audited=("queue", "id")),
    Action(path="workflow-retry", perform=retry, ask=ask_retry, audited=("queue", "id")),
)
