"""`taskq task`: list, find, inspect, cancel, run, move, archive and delete tasks one by one. Others: `change`."""

import functools
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from taskq_core.cli import documents
from taskq_core.cli.base import Answer, Group, confirm, for_each, yes_option
from taskq_core.cli.params import DURATION, QUEUE, StateType
from taskq_core.cli.render import Column, Output, shown_bytes, shown_distance, shown_moment, shown_span
from taskq_core.cli.session import Session
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.handles.attempts import Attempt
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import FoundTasks, UnreadableTask
from taskq_core.wire import TaskState

T = TypeVar("T")

task = Group("task", help="List, inspect, retry, cancel and delete tasks.")

PAYLOAD_SHOWN = 120
"""Characters of a payload or result in a table; `task inspect` shows all."""

queue_option = click.option("-q", "--queue", required=True, type=QUEUE, help="queue of the task")
group_option = click.option("-g", "--group", metavar="NAME", help="group; only with state aggregating")


def ids_option(function: Callable[..., T]) -> Callable[..., T]:
    """Add the parameter `ids`: ids of tasks, given as arguments or with `--id`."""

    @functools.wraps(function)
    def with_ids(*args: Any, ids: tuple[str, ...], more_ids: tuple[str, ...], **kwargs: Any) -> T:
        if not (ids or more_ids):
            raise click.UsageError("name at least one task by its id", _context())
        return function(*args, ids=(*ids, *more_ids), **kwargs)

    option = click.option("more_ids", "-i", "--id", multiple=True, metavar="ID", help="id of a task; may be repeated")
    return click.argument("ids", metavar="[ID]...", nargs=-1)(option(with_ids))


Cell = Callable[[TaskInfo, datetime], str]
_EXTRA: dict[TaskState, Sequence[tuple[Column, Cell]]] = {
    TaskState.ACTIVE: [(Column(title="LEASE"), lambda task, now: _lease(task, now))],
    TaskState.SCHEDULED: [(Column(title="STARTS"), lambda task, now: _start(task, now))],
    TaskState.RETRY: [
        (Column(title="NEXT RETRY"), lambda task, now: shown_distance(task.next_run_at, now)),
        (Column(title="RETRIED", right=True), lambda task, now: f"{task.retried}/{task.max_retry}"),
        (Column(title="LAST ERROR", cut=True), lambda task, now: _first_line(task.last_error)),
        (Column(title="LAST FAILED"), lambda task, now: shown_distance(task.last_failed_at, now)),
    ],
    TaskState.ARCHIVED: [
        (Column(title="ARCHIVED"), lambda task, now: shown_distance(task.archived_at, now)),
        (Column(title="LAST ERROR", cut=True), lambda task, now: _first_line(task.last_error)),
        (Column(title="LAST FAILED"), lambda task, now: shown_distance(task.last_failed_at, now)),
    ],
    TaskState.COMPLETED: [
        (Column(title="COMPLETED"), lambda task, now: shown_distance(task.completed_at, now)),
        (Column(title="RESULT", cut=True), lambda task, now: _result(task, most=PAYLOAD_SHOWN)),
        (Column(title="KEPT UNTIL"), lambda task, now: shown_distance(task.expires_at, now)),
    ],
    TaskState.AGGREGATING: [(Column(title="GROUP"), lambda task, now: task.group)],
}
"""Columns that only tasks in a state have."""


def _now() -> datetime:
    return utc_datetime(SYSTEM_CLOCK.time())


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else "-"


def _lease(task: TaskInfo, now: datetime) -> str:
    if task.lease_expires_at is None:
        return "none"
    if task.lease_expires_at <= now:
        return "orphaned"  # nobody extends it: the recoverer takes it back
    return f"{shown_span(task.lease_expires_at - now)} left"


# --- look -------------------------------------------------------------------------------------------------------------


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
    """List tasks, the next one first.

    To list the tasks of a group, give --state aggregating, --queue and --group.
    """
    _check_group(queue, state, group)
    out = session.output
    found = session.inspector.tasks(queue, state, group=group, page=page, page_size=size)
    if out.as_json:
        listed = [documents.task(each) for each in found.tasks]
        out.json(documents.page("tasks", listed, total=found.total) | {"page": page, "page_size": size})
        return
    empty = "no tasks" if page <= found.pages else f"there are {found.pages} pages"
    _show_tasks(out, found.tasks, queue, state, empty=empty)
    if found.pages > 1:
        out.note(f"page {page} of {found.pages}, {found.total} tasks")


def _check_group(queue: str | None, state: TaskState | None, group: str | None) -> None:
    if state is TaskState.AGGREGATING and (queue is None or group is None):
        raise click.UsageError("tasks that wait in a group are named by --queue and --group", _context())
    if group is not None and state is not TaskState.AGGREGATING:
        raise click.UsageError("--group goes with --state aggregating", _context())


def _context() -> click.Context | None:
    return click.get_current_context(silent=True)


def _show_tasks(
    out: Output,
    tasks: Sequence[TaskInfo | UnreadableTask],
    queue: str | None,
    state: TaskState | None,
    *,
    empty: str,
) -> None:
    extra = _EXTRA.get(state, ()) if state is not None else ()
    columns = [
        Column(title="ID", whole=True),
        *([] if queue is not None else [Column(title="QUEUE")]),
        *([] if state is not None else [Column(title="STATE")]),
        Column(title="NAME"),
        Column(title="PAYLOAD", cut=True),
        *[column for column, _ in extra],
    ]
    now = _now()
    rows = []
    for each in tasks:
        row = [each.id]
        row += [] if queue is not None else [each.queue]
        row += [] if state is not None else [each.state.value]
        if isinstance(each, UnreadableTask):
            row += ["(unreadable)", each.problem, *["-" for _ in extra]]
        else:
            row += [each.name, shown_bytes(each.payload, most=PAYLOAD_SHOWN), *[cell(each, now) for _, cell in extra]]
        rows.append(row)
    out.table(columns, rows, empty=empty)


@task.command("find")
@queue_option
@click.option("-s", "--state", required=True, type=StateType(list(TaskState)), help="state of the tasks")
@group_option
@click.option("--name", metavar="TEXT", help="part of the task's name")
@click.option("--error", metavar="TEXT", help="part of the last error")
@click.option("--payload", metavar="TEXT", help="part of the payload")
@click.option("--older", type=DURATION, help="older than this, by the time of the state")
@click.option("--newer", type=DURATION, help="at most this old, by the time of the state")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=30, show_default=True, help="maximum number of tasks to show"
)
@click.option(
    "--scan",
    type=click.IntRange(1, 1_000_000),
    default=10_000,
    show_default=True,
    help="maximum number of tasks to read",
)
@click.option("--cursor", metavar="TEXT", help="continue a previous search")
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
    """Search the tasks of a state. A task must match every option.

    At most --scan tasks are read. If there are more, the output ends with a cursor to continue with.
    """
    _check_group(queue, state, group)
    out = session.output
    found = _find(session, queue, state, group=group, older_than=older, newer_than=newer, **wanted)
    if out.as_json:
        document = documents.page("tasks", map(documents.task, found.tasks), total=found.total)
        out.json(document | {"scanned": found.scanned, "cursor": found.cursor})
        return
    _show_tasks(out, found.tasks, queue, state, empty=f"none among {found.scanned} of {found.total} tasks")
    if found.cursor is not None:
        out.note(f"looked at {found.scanned} of {found.total} tasks; go on with --cursor {found.cursor}")


SCAN_STEP = 10_000
"""Most tasks that one search looks at before the bar is moved on."""


def _find(
    session: Session, queue: str, state: TaskState, *, limit: int, scan: int, cursor: str | None, **wanted: Any
) -> FoundTasks:
    """Search in steps, with a bar."""
    tasks: list[TaskInfo | UnreadableTask] = []
    scanned = 0
    with session.output.progress("searching") as progress:
        while True:
            step = min(SCAN_STEP, scan - scanned)
            part = session.inspector.find_tasks(
                queue, state, limit=limit - len(tasks), scan=step, cursor=cursor, **wanted
            )
            tasks += part.tasks
            scanned += part.scanned
            cursor = part.cursor
            progress(scanned, max(scanned, min(scan, part.total)))
            if cursor is None or len(tasks) == limit or scanned >= scan:
                return FoundTasks(tasks=tasks, scanned=scanned, total=part.total, cursor=cursor)


@task.command("inspect")
@queue_option
@ids_option
@click.pass_obj
def inspect_tasks(session: Session, queue: str, ids: tuple[str, ...]) -> None:
    """Show everything about tasks, including payload and result."""
    out = session.output
    found = [session.inspector.task(queue, each) for each in ids]
    if out.as_json:
        out.json({"tasks": [documents.inspected(each) for each in found]})
        return
    for number, each in enumerate(found):
        if number:
            out.line()
        out.pairs(_described(each, _now()))
        if isinstance(each, TaskInfo):
            _show_attempts(out, each.attempts)


def _show_attempts(out: Output, attempts: Sequence[Attempt]) -> None:
    """Write a line for each attempt that is noted, and the traceback of the last error."""
    for each in attempts:
        worker = f" by worker {each.worker}" if each.worker else ""
        out.line(f"attempt {each.number}{worker}, {shown_moment(each.ended_at)}: {each.error or 'succeeded'}")
    last = next((each for each in reversed(attempts) if each.error), None)
    for line in last.traceback.splitlines() if last is not None else ():
        out.line(f"  {line}")


def _start(task: TaskInfo, now: datetime) -> str:
    return "waits for a limit" if task.waits_for_limit else shown_distance(task.next_run_at, now)


def _result(task: TaskInfo, *, most: int | None = None) -> str:
    return str(task.oversized_result) if task.oversized_result else shown_bytes(task.result, most=most)


def _described(task: TaskInfo | UnreadableTask, now: datetime) -> dict[str, str]:
    pairs = {"queue": task.queue, "id": task.id}
    if isinstance(task, UnreadableTask):
        message = shown_bytes(task.message)
        return pairs | {"state": task.state.value, "problem": task.problem, "message": message or "-"}
    pairs |= {
        "name": task.name,
        "state": task.state.value,
        "retried": f"{task.retried}/{task.max_retry}",
        "payload": shown_bytes(task.payload) or "-",
    }
    optional = {
        "group": task.group,
        "next run": shown_moment(task.next_run_at, now=now),
        "waits for": f"the limit {task.limit}" if task.limit else "a limit" if task.waits_for_limit else "",
        "lease": _lease(task, now) if task.state is TaskState.ACTIVE else "",
        "timeout": shown_span(task.timeout),
        "deadline": shown_moment(task.deadline, now=now),
        "retention": shown_span(task.retention) if task.retention else "",
        "completed": shown_moment(task.completed_at, now=now),
        "archived": shown_moment(task.archived_at, now=now),
        "kept until": shown_moment(task.expires_at, now=now),
        "last failed": shown_moment(task.last_failed_at, now=now),
        "last error": task.last_error,
        "progress": "" if task.progress is None else f"{task.progress}, {shown_distance(task.progress.at, now)}",
        "result": _result(task),
        **{f"header {name}": value for name, value in task.headers.items()},
    }
    return pairs | {name: value for name, value in optional.items() if value not in ("", "-")}


# --- change -----------------------------------------------------------------------------------------------------------


@task.command("cancel")
@ids_option
@click.option("--retry", is_flag=True, help="retry them as if they had failed (default: archive them)")
@click.option("--discard", is_flag=True, help="delete them")
@click.pass_obj
def cancel_tasks(session: Session, ids: tuple[str, ...], retry: bool, discard: bool) -> int:
    """Ask the workers to cancel running tasks.

    Every worker receives the request. The worker that runs the task cancels it. Tasks that are not running are refused.
    """
    if retry and discard:
        raise click.UsageError("give either --retry or --discard", click.get_current_context())

    def cancel(task_id: str) -> Answer:
        told = session.inspector.cancel_task(task_id, retry=retry, keep=False if discard else None)
        return f"told {told} worker{'' if told == 1 else 's'} to cancel {task_id}", {"workers_told": told}

    return for_each(session, "id", ids, cancel)


@task.command("run")
@queue_option
@ids_option
@click.pass_obj
def run_tasks(session: Session, queue: str, ids: tuple[str, ...]) -> int:
    """Run waiting, archived or completed tasks now: put them at the end of their queue."""

    def run(task_id: str) -> str:
        session.inspector.run_task(queue, task_id)
        return f"{task_id} is pending"

    return for_each(session, "id", ids, run)


@task.command("move")
@queue_option
@ids_option
@click.option("--to", required=True, type=QUEUE, metavar="QUEUE", help="target queue")
@click.pass_obj
def move_tasks(session: Session, queue: str, ids: tuple[str, ...], to: str) -> int:
    """Move tasks to another queue, except running ones."""

    def move(task_id: str) -> str:
        session.inspector.move_task(queue, task_id, to)
        return f"{task_id} is in {to}"

    return for_each(session, "id", ids, move)


@task.command("archive")
@queue_option
@ids_option
@click.pass_obj
def archive_tasks(session: Session, queue: str, ids: tuple[str, ...]) -> int:
    """Archive waiting tasks."""

    def archive(task_id: str) -> str:
        session.inspector.archive_task(queue, task_id)
        return f"{task_id} is archived"

    return for_each(session, "id", ids, archive)


@task.command("delete", aliases=("rm", "remove"))
@queue_option
@ids_option
@yes_option
@click.pass_obj
def delete_tasks(session: Session, queue: str, ids: tuple[str, ...], yes: bool) -> int:
    """Delete tasks, except running ones."""
    confirm(f"Delete {len(ids)} task{'s' if len(ids) > 1 else ''} of queue {queue}?", yes=yes)

    def delete(task_id: str) -> str:
        session.inspector.delete_task(queue, task_id)
        return f"{task_id} is deleted"

    return for_each(session, "id", ids, delete)
