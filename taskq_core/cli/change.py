"""`taskq task retry` and `taskq task update`: let tasks wait until another time, or give them another payload."""

from datetime import datetime, timedelta
from typing import BinaryIO

import click

from taskq_core.cli.base import Command, for_each
from taskq_core.cli.params import DURATION, MOMENT
from taskq_core.cli.payload import payload_of, payload_options
from taskq_core.cli.session import Session
from taskq_core.cli.task import ids_option, queue_option
from taskq_core.handles.records import TaskInfo


@click.command("retry", cls=Command)
@queue_option
@ids_option
@click.option("--at", type=MOMENT, help="run not before this time")
@click.option("after", "--after", "--in", type=DURATION, help="run not before this time from now")
@click.pass_obj
def retry(session: Session, queue: str, ids: tuple[str, ...], at: datetime | None, after: timedelta | None) -> int:
    """Retry tasks at a later time, also archived ones.

    Times are RFC 3339 (2030-01-31T12:00:00Z), durations as 90s or 1h30m. `task run` runs them now.
    """
    if (at is None) is (after is None):
        raise click.UsageError("give either --at or --after", click.get_current_context())

    def wait(task_id: str) -> str:
        session.inspector.retry_task(queue, task_id, at=at, after=after)
        return f"{task_id} waits"

    return for_each(session, "id", ids, wait)


@click.command("update", cls=Command)
@queue_option
@ids_option
@payload_options
@click.option("--at", type=MOMENT, help="run not before this time")
@click.option("after", "--after", "--in", type=DURATION, help="run not before this time from now")
@click.pass_obj
def update(
    session: Session,
    queue: str,
    ids: tuple[str, ...],
    payload: str | None,
    payload_file: BinaryIO | None,
    at: datetime | None,
    after: timedelta | None,
) -> int:
    """Replace the payload of waiting or archived tasks. Their unique locks follow."""
    if at is not None and after is not None:
        raise click.UsageError("give either --at or --after", click.get_current_context())
    content = payload_of(payload, payload_file)

    def change(task_id: str) -> str:
        task = session.inspector.task(queue, task_id)
        known = session.app.tasks.get(task.name) if isinstance(task, TaskInfo) else None
        if known is not None:
            known.codec.decode(content)
        if at is None and after is None:
            session.inspector.update_payload(queue, task_id, content)
        else:
            session.inspector.reschedule_task(queue, task_id, at=at, after=after, payload=content)
        return f"{task_id} has another payload"

    return for_each(session, "id", ids, change)
