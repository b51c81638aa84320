"""`taskq task cancel`, `run`, `retry`, `update`, `move`, `archive`, `delete`, `signal`, `answer` and `forget-step`."""

from datetime import datetime, timedelta
from getpass import getuser
from typing import Any, BinaryIO

import click
import msgspec

from taskq_core.cli.base import Answer, each_command
from taskq_core.cli.enqueue import payload_of, payload_options
from taskq_core.cli.params import DURATION, MOMENT, QUEUE
from taskq_core.cli.session import Session
from taskq_core.cli.task import ids_argument, queue_option, task
from taskq_core.errors import StepError
from taskq_core.handles.records import TaskInfo

_at = click.option("--at", type=MOMENT, help="run not before this time")
_after = click.option("after", "--after", "--in", type=DURATION, help="run not before this time from now")


@each_command(
    task,
    "cancel",
    click.option("-q", "--queue", type=QUEUE, help="queue in which the tasks must be (default: any)"),
    ids_argument,
    click.option("--retry", is_flag=True, help="retry the tasks as if they had failed (default: archive them)"),
    click.option("--discard", is_flag=True, help="delete them"),
)
def cancel(session: Session, task_id: str, queue: str | None, retry: bool, discard: bool) -> Answer:
    """Ask the workers to cancel running tasks, and waiting tasks whose steps have begun.

    Every worker receives the request. The worker that runs the task cancels it. A task with steps may undo them; it
    runs now if it waits. Other tasks that wait are refused.
    """
    if retry and discard:
        raise click.UsageError("give either --retry or --discard", click.get_current_context())
    if queue is not None:
        session.inspector.task(queue, task_id)  # raises an error if the queue has no such task
    workers = session.inspector.cancel_task(task_id, retry=retry, keep=False if discard else None)
    return f"asked {workers} worker{'' if workers == 1 else 's'} to cancel {task_id}", {"received_by": workers}


@each_command(task, "run", queue_option, ids_argument)
def run(session: Session, task_id: str, queue: str) -> str:
    """Run waiting, archived or completed tasks now: put them at the end of their queue."""
    session.inspector.run_task(queue, task_id)
    return f"{task_id} is pending"


@each_command(task, "retry", queue_option, ids_argument, _at, _after)
def retry(session: Session, task_id: str, queue: str, at: datetime | None, after: timedelta | None) -> str:
    """Retry tasks at a later time, including archived tasks.

    Times are RFC 3339 (2030-01-31T12:00:00Z), durations as 90s or 1h30m. `task run` runs them now.
    """
    if (at is None) is (after is None):
        raise click.UsageError("give either --at or --after", click.get_current_context())
    session.inspector.retry_task(queue, task_id, at=at, after=after)
    return f"{task_id} waits"


@each_command(task, "update", queue_option, ids_argument, payload_options, _at, _after)
def update(
    session: Session,
    task_id: str,
    queue: str,
    payload: str | None,
    payload_file: BinaryIO | None,
    at: datetime | None,
    after: timedelta | None,
) -> str:
    """Replace the payload of waiting or archived tasks. Also replace unique locks that depend on the payload."""
    if at is not None and after is not None:
        raise click.UsageError("give either --at or --after", click.get_current_context())
    context = click.get_current_context()
    if "content" not in context.meta:  # standard input can be read only once, but there may be several tasks
        context.meta["content"] = payload_of(payload, payload_file)
    content: bytes = context.meta["content"]
    found = session.inspector.task(queue, task_id)
    known = session.app.tasks.get(found.name) if isinstance(found, TaskInfo) else None
    if known is not None:
        known.codec.decode(content)
    if at is None and after is None:
        session.inspector.update_payload(queue, task_id, content)
    else:
        session.inspector.reschedule_task(queue, task_id, at=at, after=after, payload=content)
    return f"{task_id} has a new payload"


_to = click.option("--to", required=True, type=QUEUE, metavar="QUEUE", help="target queue")


@each_command(task, "move", queue_option, ids_argument, _to)
def move(session: Session, task_id: str, queue: str, to: str) -> str:
    """Move tasks to another queue, except running ones."""
    session.inspector.move_task(queue, task_id, to)
    return f"{task_id} is in {to}"


@each_command(task, "archive", queue_option, ids_argument)
def archive(session: Session, task_id: str, queue: str) -> str:
    """Archive waiting tasks."""
    session.inspector.archive_task(queue, task_id)
    return f"{task_id} is archived"


@each_command(
    task,
    "delete",
    queue_option,
    ids_argument,
    aliases=("rm", "remove"),
    question=lambda names, options: (
        f"Delete {len(names)} task{'s' if len(names) > 1 else ''} of queue {options['queue']}?"
    ),
)
def delete(session: Session, task_id: str, queue: str) -> str:
    """Delete tasks, except running ones."""
    session.inspector.delete_task(queue, task_id)
    return f"{task_id} is deleted"


def _id_and_name(command: Any) -> Any:
    one_id = click.argument("names", metavar="ID", callback=lambda _context, _param, value: (value,))
    return click.argument("name", metavar="NAME")(one_id(command))


@each_command(task, "signal", queue_option, _id_and_name, click.argument("value", metavar="[JSON]", default="null"))
def signal(session: Session, task_id: str, queue: str, name: str, value: str) -> str:
    """Send a value to a task that waits for it, or will wait for it, such as '{"approved": true}'."""
    session.inspector.signal_task(queue, task_id, name, _json(value))
    return f"sent signal {name} to {task_id}"


def _json(value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{value!r} is not JSON: {error}", click.get_current_context()) from None


@each_command(
    task,
    "answer",
    queue_option,
    click.argument("names", metavar="ID", callback=lambda _context, _param, value: (value,)),
    click.argument("number", type=click.IntRange(1)),
    click.argument("value", metavar="JSON"),
    click.option("--by", default=getuser, show_default="the user of the system", help="name of who answers"),
)
def answer(session: Session, task_id: str, queue: str, number: int, value: str, by: str) -> str:
    """Answer a question of a task, such as number 1 with 'true'. `taskq inbox` lists the questions."""
    session.inspector.answer_task(queue, task_id, number, _json(value), by=by)
    return f"answered question {number} of {task_id}"


@each_command(
    task,
    "forget-step",
    queue_option,
    _id_and_name,
    question=lambda names, options: (
        f"Delete the result of step {options['name']} of task {names[0]}? The next run repeats the step."
    ),
)
def forget_step(session: Session, task_id: str, queue: str, name: str) -> str:
    """Delete the stored result of a step of a task.

    The next run of the task repeats the step. Running tasks are refused.
    """
    if not session.inspector.forget_step(queue, task_id, name):
        raise StepError(f"task {task_id!r} has no stored result of a step {name!r}; taskq task inspect shows its steps")
    return f"{task_id} repeats step {name}"
