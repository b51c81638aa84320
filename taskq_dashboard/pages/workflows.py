"""The pages of a queue's workflows and of one workflow with its graph, and actions to cancel and retry workflows."""

from markupsafe import Markup

from taskq_core.settings.language import gettext
from taskq_core.views import MEMBERS_MAX, StepInfo, WorkflowDetail, WorkflowState, graph_svg
from taskq_core.views.messages import cancel_question, cancelled, retried, retry_question, step_text
from taskq_dashboard.blobs import listed, whole
from taskq_dashboard.form import Form
from taskq_dashboard.registry import Done, Question, action, page
from taskq_dashboard.view import Shown, View
from taskq_fastapi.api.access import Shown as ShownOfTasks


@page("workflows")
async def show(view: View) -> Shown:
    """Show the workflows of a home queue."""
    queue = view.query.need("queue")
    requested = view.paging(0)
    found = await view.dashboard.workflows(queue, skip=requested.skip, count=requested.rows)
    return view.page(
        "workflows.html",
        title=gettext("Workflows of %(queue)s", queue=queue),
        queue=queue,
        found=found,
        paging=view.paging(found.total),
    )


@page("workflow")
async def show_one(view: View) -> Shown:
    """Show one workflow with its graph."""
    queue, workflow_id = view.query.need("queue"), view.query.need("id")
    detail = await view.dashboard.workflow(queue, workflow_id)
    steps = detail.graph.steps
    paging = view.paging(len(steps))
    info = detail.graph.info
    return view.page(
        "workflow.html",
        title=info.name or workflow_id,
        info=info,
        detail=detail,
        graph=_graph(detail),
        rows=[(step, _error(view, step)) for step in steps[paging.skip : paging.skip + paging.rows]],
        paging=paging,
        is_running=info.state is WorkflowState.RUNNING,
        can_be_retried=detail.can_be_retried,
    )


def _graph(detail: WorkflowDetail) -> Markup | None:
    if detail.drawing is None:
        return None
    info = detail.graph.info
    about = gettext(
        "Graph of the workflow: %(ended)s of %(total)s steps have ended; the table below lists all steps",
        total=info.total,
        ended=info.ended,
    )
    return Markup(graph_svg(detail.drawing, about=about, words=step_text))  # noqa: S704 - the core has escaped the texts


@page("workflow-step")
async def show_step(view: View) -> Shown:
    """Show one step of a workflow with its result, or a group with its members."""
    queue, workflow_id, name = (view.query.need(each) for each in ("queue", "id", "step"))
    requested = view.paging(0)
    only_failed = bool(view.query.get("failed"))
    skip, count = (0, MEMBERS_MAX) if only_failed else (requested.skip, requested.rows)
    found = await view.dashboard.workflow_step(
        queue, workflow_id, name, skip=skip, count=count, only_failed=only_failed
    )
    step = found.step
    of_members = view.shown if view.shown.may_ask_payloads else ShownOfTasks(payloads=False, redact=None)
    return view.page(
        "workflow_step.html",
        title=step.name,
        found=found,
        step=step,
        error=_error(view, step),
        result=whole(view.shown, step.task, "result", found.result, size=found.result_size),
        rows=[
            (
                each,
                str(view.shown.value(step.task, "error", each.error)) if each.error else "",
                # `redact` needs the name of the task, which members do not store. So with `redact`, results are hidden.
                listed(of_members, step.task, "result", each.result),
            )
            for each in found.members
        ],
        only_failed=only_failed,
        paging=view.paging(step.members or 0),
    )


def _error(view: View, step: StepInfo) -> str:
    return str(view.shown.value(step.task, "error", step.error)) if step.error else ""


async def _detail(view: View, form: Form) -> WorkflowDetail:
    return await view.dashboard.workflow(form.need("queue"), form.need("id"))


async def ask_cancel(view: View, form: Form) -> Question:
    """Ask for confirmation to cancel a workflow."""
    detail = await _detail(view, form)
    return Question(
        text=cancel_question(detail.graph.info),
        button=gettext("Cancel the workflow"),
        is_destructive=True,
    )


@action("workflow-cancel", ask=ask_cancel, audited=("queue", "id"))
async def cancel(view: View, form: Form) -> Done:
    """Cancel a workflow."""
    detail = await _detail(view, form)
    info = detail.graph.info
    is_done = await view.services.taskq.workflow(info.id, info.queue).acancel()
    return Done(text=cancelled(info, is_done=is_done), level="success" if is_done else "warning")


async def ask_retry(view: View, form: Form) -> Question:
    """Ask for confirmation to rerun the failed steps of a workflow."""
    detail = await _detail(view, form)
    return Question(
        text=retry_question(detail),
        button=gettext("Run again"),
    )


@action("workflow-retry", ask=ask_retry, audited=("queue", "id"))
async def retry(view: View, form: Form) -> Done:
    """Rerun the failed steps of a workflow."""
    detail = await _detail(view, form)
    info = detail.graph.info
    count = await view.services.taskq.workflow(info.id, info.queue).aretry()
    view.audited["count"] = count
    return Done(text=retried(info, count), level="success" if count else "warning")
