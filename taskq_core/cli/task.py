"""`taskq task`: list, find and inspect tasks. `change`, `bulk` and `enqueue` add the verbs that change tasks."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import click

from taskq_core.cli.base import Group
from taskq_core.cli.columns import task_columns, task_facts
from taskq_core.cli.documents import INSPECTED, document
from taskq_core.cli.params import DURATION, QUEUE, StateType
from taskq_core.cli.render import Output, shown_bytes, shown_moment, shown_span
from taskq_core.cli.session import Session
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.handles.attempts import Attempt
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import FoundTasks, UnreadableTask
from taskq_core.views import Dashboard, TimelineEntry
from taskq_core.views.labels import error_heading, search_text
from taskq_core.wire import ENQUEUED, TaskState

task = Group("task", help="List, inspect, enqueue, retry, cancel and delete tasks.")

SCAN_STEP = 10_000
"""Maximum number of tasks that one request reads. After it, the progress bar is updated."""

queue_option = click.option("-q", "--queue", required=True, type=QUEUE, help="queue of the task")
group_option = click.option("-g", "--group", metavar="NAME", help="group; only with state aggregating")


def ids_argument(command: Any) -> Any:
    """Add ids of tasks, as arguments or with `--id`, as the parameters `names` and `more_names`."""
    option = click.option("more_names", "-i", "--id", multiple=True, metavar="ID", help="id of a task; may be repeated")
    return option(click.argument("names", metavar="[ID]...", nargs=-1)(command))


def _now() -> datetime:
    return utc_datetime(SYSTEM_CLOCK.time())


def _check_group(queue: str | None, state: TaskState | None, group: str | None) -> None:
    context = click.get_current_context()
    if state is TaskState.AGGREGATING and (queue is None or group is None):
        raise click.UsageError("for tasks of a group, give --queue and --group", context)
    if group is not None and state is not TaskState.AGGREGATING:
        raise click.UsageError("--group needs --state aggregating", context)


@task.command("list", aliases=("ls",))
@click.option("-q", "--queue", type=QUEUE, help="queue of the tasks (default: all)")
@click.option(
    "-s", "--state", type=StateType(list(TaskState)), help="state of the tasks (default: all except aggregating)"
)
@group_option
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="page number")
@click.option("--size", type=click.IntRange(1, 1000), default=30, show_default=True, help="tasks per page")
@click.pass_obj
def list_tasks(
    session: Session, queue: str | None, state: TaskState | None, group: str | None, page: int, size: int
) -> None:
    """List tasks. The task that runs next comes first. Of archived and completed tasks, the newest comes first.

    To list the tasks of a group, give --state aggregating, --queue and --group.
    """
    _check_group(queue, state, group)
    found = session.inspector.tasks(queue, state, group=group, page=page, page_size=size)
    session.output.listing(
        "tasks",
        found.tasks,
        task_columns(queue, state, _now()),
        empty="no tasks" if page <= found.pages else f"there are {found.pages} pages",
        more={"total": found.total, "page": page, "page_size": size},
    )
    if found.pages > 1 and not session.output.as_json:
        session.output.note(f"page {page} of {found.pages}, {found.total} tasks")


@task.command("find")
@queue_option
@click.option("-s", "--state", required=True, type=StateType(list(TaskState)), help="state of the tasks")
@group_option
@click.option("--name", metavar="TEXT", help="text that the task's name contains")
@click.option("--error", metavar="TEXT", help="text that the last error contains")
@click.option("--payload", metavar="TEXT", help="text that the payload contains")
@click.option("--older", type=DURATION, help="the time of the state (enqueued, archived, ...) is longer ago than this")
@click.option("--newer", type=DURATION, help="the time of the state (enqueued, archived, ...) is at most this long ago")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=30, show_default=True, help="maximum number of tasks to show"
)
@click.option("--scan", type=click.IntRange(1), help="maximum number of tasks to read (default: all)")
@click.option("--cursor", metavar="TEXT", help="continue the search that printed this cursor")
@click.pass_obj
def find_tasks(
    session: Session,
    /,
    queue: str,
    state: TaskState,
    group: str | None,
    older: timedelta | None,
    newer: timedelta | None,
    **wanted: Any,
) -> None:
    """Search the tasks of a state. A task must match every option. Of ended tasks, the newest comes first.

    The command reads tasks until it has found --limit tasks, or has read all or --scan tasks. If tasks are left, the
    output ends with a cursor for the next call.
    """
    _check_group(queue, state, group)
    found = _find(session, queue, state, group=group, older_than=older, newer_than=newer, **wanted)
    session.output.listing(
        "tasks",
        found.tasks,
        task_columns(queue, state, _now()),
        empty=search_text(found, "tasks"),
        more={
            "total": found.total,
            "scanned": found.scanned,
            "read": found.read,
            "matched": found.matched,
            "cursor": found.cursor,
        },
    )
    if found.cursor is not None and not session.output.as_json:
        progress = f"{search_text(found, 'tasks')} " if found.tasks else ""
        session.output.note(f"{progress}Continue with --cursor {found.cursor}")


def _find(
    session: Session, queue: str, state: TaskState, *, limit: int, scan: int | None, cursor: str | None, **wanted: Any
) -> FoundTasks:
    """Search tasks in several calls, with a progress bar."""
    tasks: dict[str, TaskInfo | UnreadableTask] = {}  # new pending tasks shift the others, so some are read twice
    scanned = 0
    with session.output.progress("searching") as progress:
        while True:
            step = SCAN_STEP if scan is None else min(SCAN_STEP, scan - scanned)
            part = session.inspector.find_tasks(
                queue, state, limit=limit - len(tasks), scan=step, cursor=cursor, **wanted
            )
            tasks |= {task.id: task for task in part.tasks}
            scanned += part.scanned
            cursor = part.cursor
            progress(scanned, max(scanned, part.total if scan is None else min(scan, part.total)))
            if cursor is None or len(tasks) == limit or (scan is not None and scanned >= scan):
                return replace(part, tasks=tuple(tasks.values()), scanned=scanned)


@task.command("inspect")
@queue_option
@ids_argument
@click.pass_obj
def inspect_tasks(session: Session, queue: str, names: tuple[str, ...], more_names: tuple[str, ...]) -> None:
    """Show everything about tasks, including payload and result."""
    out = session.output
    if not (names or more_names):
        raise click.UsageError("give the id of at least one task", click.get_current_context())
    found = [
        (session.inspector.task(queue, each), Dashboard(session.inspector).timeline(queue, each))
        for each in (*names, *more_names)
    ]
    if out.as_json:
        documents = []
        for each, timeline in found:
            more = {"timeline": [document(entry) for entry in timeline]} if isinstance(each, TaskInfo) else {}
            documents.append(document(each, INSPECTED if more else "") | more)
        out.json({"tasks": documents})
        return
    for number, (each, timeline) in enumerate(found):
        if number:
            out.line()
        out.pairs(_described(each, _now()))
        if isinstance(each, TaskInfo):
            for entry in timeline:
                out.line(_entry_line(entry))
            _show_attempts(out, each.attempts)


def _entry_line(entry: TimelineEntry) -> str:
    """Return the line for an entry of a timeline."""
    at = entry.started_at or entry.ended_at
    line = entry.kind if entry.name == entry.kind else f"{entry.kind} {entry.name}"
    if entry.failures:
        line += f", {entry.failures} failed attempts" if entry.failures > 1 else ", 1 failed attempt"
    line += f", {shown_moment(at)}"
    if entry.asked:
        line += f", {shown_bytes(entry.asked)}"
    if entry.workflow_id:
        line += f", workflow {entry.workflow_id}"
    if entry.ended_at is None:
        return f"{line}: waiting" + (f" until {shown_moment(entry.until)}" if entry.until else "")
    line += f", {shown_span(entry.duration)}" if entry.duration is not None else ""
    line += f", answered by {entry.by}" if entry.by else ""
    if entry.has_failed:
        return f"{line}: failed"
    return f"{line}: timed out" if entry.has_timed_out else f"{line}: {shown_bytes(entry.result)}".removesuffix(": ")


def _show_attempts(out: Output, attempts: Sequence[Attempt]) -> None:
    """Write a line for each stored attempt, and the traceback of its error."""
    for each in attempts:
        worker = f" by worker {each.worker}" if each.worker else ""
        out.line(f"attempt {each.number}{worker}, {shown_moment(each.ended_at)}: {each.error or 'succeeded'}")
        for line in each.traceback.splitlines():
            out.line(f"  {line}")


def _described(task: TaskInfo | UnreadableTask, now: datetime) -> dict[str, str]:
    if isinstance(task, UnreadableTask):
        pairs = {"queue": task.queue, "id": task.id, "state": task.state.value, "problem": task.problem}
        return pairs | {"message": shown_bytes(task.message) or "-"}
    result = str(task.oversized_result) if task.oversized_result else shown_bytes(task.result)
    return {
        **task_facts(task, now),
        "payload": shown_bytes(task.payload) or "-",
        **({error_heading(task).lower(): task.last_error} if task.last_error else {}),
        **({"result": result} if result else {}),
        **{f"header {name}": value for name, value in task.headers.items() if value and name != ENQUEUED},
    }
