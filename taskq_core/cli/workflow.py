"""`taskq workflow`: list and inspect workflows, cancel them, and retry failed steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from taskq_core.cli.base import Answer, Group, each_command
from taskq_core.cli.columns import member_columns, workflow_columns
from taskq_core.cli.documents import document
from taskq_core.cli.params import QUEUE
from taskq_core.cli.render import shown_bytes, shown_moment
from taskq_core.cli.session import Session
from taskq_core.views import MEMBERS_MAX, WORKFLOWS_MAX, Dashboard
from taskq_core.views.labels import step_state

workflow = Group("workflow", help="List, inspect, cancel and retry workflows.")
_queue = click.option("-q", "--queue", required=True, type=QUEUE, help="home queue of the workflow")


@workflow.command("list", aliases=("ls",))
@_queue
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="page number")
@click.option("--size", type=click.IntRange(1, WORKFLOWS_MAX), default=30, show_default=True, help="workflows per page")
@click.pass_obj
def list_workflows(session: Session, queue: str, page: int, size: int) -> None:
    """List the workflows of a home queue.

    Running workflows come first, then ended workflows. In both parts, the newest workflow comes first.
    """
    found = Dashboard(session.inspector).workflows(queue, skip=(page - 1) * size, count=size)
    pages = -(-found.total // size)
    session.output.listing(
        "workflows",
        found.rows,
        workflow_columns(shown_moment),
        empty=f"there are {pages} pages" if page > 1 else f"no workflows in {queue}",
        more={"queue": queue, "running": found.running, "ended": found.ended, "page": page, "page_size": size},
    )
    if pages > 1 and not session.output.as_json:
        session.output.note(f"page {page} of {pages}, {found.total} workflows")


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
                "created": shown_moment(info.created_at),
                "ended": shown_moment(info.ended_at),
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
@click.option("--failed", is_flag=True, help="show only failed members, at most --size of them")
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
        out.json({**document(found), "page": page, "page_size": size})
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
    pages = -(-step.members // size)
    none = "no member has failed" if failed else "it has no members"
    out.table(member_columns(), found.members, empty=f"there are {pages} pages" if page > 1 else none)
    if failed:
        out.note(f"{len(found.members)} of {step.failed} failed members")
    elif pages > 1:
        out.note(f"page {page} of {pages}, {step.members} members")


def _cut(data: bytes, size: int) -> str:
    shown = shown_bytes(data) if data else ""
    return f"{shown}... (the first {len(data)} of {size} bytes)" if size > len(data) else shown


_ids = click.argument("names", metavar="ID...", nargs=-1, required=True)


def _question(names: Sequence[str], options: Mapping[str, Any]) -> str:
    which = f"workflow {names[0]}" if len(names) == 1 else f"{len(names)} workflows"
    return f"Cancel {which} of {options['queue']}?"


@each_command(workflow, "cancel", _queue, _ids, question=_question)
def cancel_workflows(session: Session, workflow_id: str, queue: str) -> Answer:
    """Cancel workflows.

    No further step starts, waiting steps are dropped, and running steps are cancelled.
    """
    is_cancelled = session.app.workflow(workflow_id, queue).cancel()
    result = "is cancelled" if is_cancelled else "has already ended"
    return f"workflow {workflow_id} {result}", {"cancelled": is_cancelled}


@each_command(workflow, "retry", _queue, _ids)
def retry_workflows(session: Session, workflow_id: str, queue: str) -> Answer:
    """Retry the failed steps of workflows, and then the steps that depend on them."""
    count = session.app.workflow(workflow_id, queue).retry()
    steps = f"{count} step{'' if count == 1 else 's'}"
    result = f"runs {steps} again" if count else "has no failed step"
    return f"workflow {workflow_id} {result}", {"count": count}
