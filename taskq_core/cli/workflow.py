"""`taskq workflow`: look at workflows with their steps, cancel them, and run what failed again."""

import click

from taskq_core.cli import documents
from taskq_core.cli.base import Answer, Group, confirm, for_each, yes_option
from taskq_core.cli.params import QUEUE
from taskq_core.cli.render import Column, shown_bytes
from taskq_core.cli.session import Session
from taskq_core.views import MEMBERS_MAX, WORKFLOWS_MAX, Dashboard, WorkflowRow
from taskq_core.views.labels import step_state
from taskq_core.workflow import WorkflowState

workflow = Group("workflow", help="List, inspect, cancel and retry workflows.")
_queue = click.option("-q", "--queue", required=True, type=QUEUE, help="home queue of the workflow")


@workflow.command("list", aliases=("ls",))
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="page number")
@click.option("--size", type=click.IntRange(1, WORKFLOWS_MAX), default=30, show_default=True, help="workflows per page")
@click.argument("queue", type=QUEUE)
@click.pass_obj
def list_workflows(session: Session, queue: str, page: int, size: int) -> None:
    """List the workflows of the home queue QUEUE: running ones first, then ended ones, the newest first."""
    out = session.output
    found = Dashboard(session.inspector).workflows(queue, skip=(page - 1) * size, count=size)
    if out.as_json:
        rows = [documents.workflow(each) for each in found.rows]
        counts = {"running": found.running, "ended": found.ended}
        out.json({"queue": queue, "workflows": rows, **counts, "page": page, "page_size": size})
        return
    columns = (
        Column(title="ID", whole=True),
        Column(title="NAME", cut=True),
        Column(title="STATE"),
        Column(title="STEPS"),
        Column(title="CREATED"),
        Column(title="ENDED"),
    )
    cells = [
        (
            each.id,
            each.name or "-",
            each.state.value,
            _progress(each),
            documents.moment(each.created_at) or "-",
            documents.moment(each.ended_at) or "-",
        )
        for each in found.rows
    ]
    pages = -(-found.total // size)
    out.table(columns, cells, empty=f"there are {pages} pages" if page > 1 else f"no workflows in {queue}")
    if pages > 1:
        out.note(f"page {page} of {pages}, {found.total} workflows")


def _progress(row: WorkflowRow) -> str:
    failed = f", {row.steps_failed} failed" if row.steps_failed else ""
    return "-" if row.state is WorkflowState.DAMAGED else f"{row.steps_ended}/{row.steps}{failed}"


@workflow.command("show")
@_queue
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "json"]),
    default="text",
    help="text (the default), a Mermaid flowchart, or JSON as with --json",
)
@click.argument("workflow_id", metavar="ID")
@click.pass_obj
def show_workflow(session: Session, queue: str, workflow_id: str, form: str) -> None:
    """Show the state and the steps of the workflow ID."""
    out = session.output
    graph = Dashboard(session.inspector).workflow(queue, workflow_id).graph
    if out.as_json or form == "json":
        out.json(graph.to_dict())
        return
    if form == "text":
        info = graph.info
        out.pairs(
            {
                "id": info.id,
                "name": info.name or "-",
                "queue": info.queue,
                "state": info.state.value,
                "created": documents.moment(info.created_at) or "-",
                "ended": documents.moment(info.ended_at) or "-",
                "steps": f"{info.ended} of {info.total} ended",
            }
        )
        out.line()
    for line in (graph.to_text() if form == "text" else graph.to_mermaid()).splitlines():
        out.line(line)


@workflow.command("step")
@_queue
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="page number")
@click.option("--size", type=click.IntRange(1, MEMBERS_MAX), default=30, show_default=True, help="members per page")
@click.option("--failed", is_flag=True, help="only failed members; if there are more than --size, some of them")
@click.argument("workflow_id", metavar="ID")
@click.argument("name", metavar="STEP")
@click.pass_obj
def show_step(session: Session, queue: str, workflow_id: str, name: str, page: int, size: int, failed: bool) -> None:
    """Show the step STEP of the workflow ID: its result, or the members of a group."""
    out = session.output
    found = Dashboard(session.inspector).workflow_step(
        queue, workflow_id, name, skip=(page - 1) * size, count=size, only_failed=failed
    )
    step = found.step
    if out.as_json:
        out.json({**documents.step(found), "page": page, "page_size": size})
        return
    lines = {"step": step.name, "workflow": found.workflow_id, "task": step.task or "-", "state": step_state(step)}
    if step.members is None:
        lines |= {"queue": step.queue, "task id": step.task_id}
    else:
        lines["members"] = f"{step.succeeded + step.failed} of {step.members} ended, {step.failed} failed"
    more = {"error": step.error, "result": _cut(found.result, found.result_size)}
    out.pairs({**lines, **{key: text for key, text in more.items() if text}})
    if step.members is None:
        return
    out.line()
    columns = (
        Column(title="MEMBER"),
        Column(title="STATE"),
        Column(title="TASK", whole=True),
        Column(title="QUEUE"),
        Column(title="ERROR OR RESULT", cut=True),
    )
    cells = [
        (str(each.number), step_state(each), each.task_id, each.queue, each.error or shown_bytes(each.result, most=200))
        for each in found.members
    ]
    pages = -(-step.members // size)
    none = "no member has failed" if failed else "it has no members"
    out.table(columns, cells, empty=f"there are {pages} pages" if page > 1 else none)
    if failed:
        out.note(f"{len(cells)} of {step.failed} that have failed")
    elif pages > 1:
        out.note(f"page {page} of {pages}, {step.members} members")


def _cut(data: bytes, size: int) -> str:
    shown = shown_bytes(data) if data else ""
    return f"{shown}... (the first {len(data)} of {size} bytes)" if size > len(data) else shown


@workflow.command("cancel")
@_queue
@yes_option
@click.argument("workflow_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def cancel_workflows(session: Session, queue: str, workflow_ids: tuple[str, ...], yes: bool) -> int:
    """Cancel workflows: no further step starts, waiting steps are dropped, running steps are cancelled."""
    confirm(f"Cancel {_named(workflow_ids)} of {queue}?", yes=yes)

    def act(workflow_id: str) -> Answer:
        is_cancelled = session.app.workflow(workflow_id, queue).cancel()
        said = "is cancelled" if is_cancelled else "has ended already"
        return f"workflow {workflow_id} {said}", {"cancelled": is_cancelled}

    return for_each(session, "id", workflow_ids, act)


@workflow.command("retry")
@_queue
@click.argument("workflow_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def retry_workflows(session: Session, queue: str, workflow_ids: tuple[str, ...]) -> int:
    """Retry the failed steps of workflows, and then the steps that were skipped because of them."""

    def act(workflow_id: str) -> Answer:
        count = session.app.workflow(workflow_id, queue).retry()
        steps = f"{count} step{'' if count == 1 else 's'}"
        said = f"runs {steps} again" if count else "has no step that failed"
        return f"workflow {workflow_id} {said}", {"count": count}

    return for_each(session, "id", workflow_ids, act)


def _named(ids: tuple[str, ...]) -> str:
    return f"workflow {ids[0]}" if len(ids) == 1 else f"{len(ids)} workflows"
