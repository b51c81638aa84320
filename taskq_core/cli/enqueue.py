"""`taskq task enqueue`: enqueue a task by its name, for example a task of a Go service.

If the queue application (`--app`, or Django's) has the task, its payload is checked against the signature, and its
options apply unless the command line overrides them.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, BinaryIO

import click

from taskq_core.app import TaskQ
from taskq_core.broker.operations.operation import REPLICAS_MAX
from taskq_core.cli.params import DURATION, HEADER, MOMENT, QUEUE
from taskq_core.cli.session import Session
from taskq_core.cli.task import task
from taskq_core.settings import nearest_hint
from taskq_core.tasks.options import OnExpiry, call_options
from taskq_core.wire import HIGHEST_BAND


def payload_options(command: Any) -> Any:
    """Add `--payload` and `--payload-file` to a command."""
    of_file = click.option(
        "--payload-file", type=click.File("rb"), metavar="PATH", help="file with the payload; - is standard input"
    )
    return click.option("-l", "--payload", metavar="TEXT", help="payload; JSON for tasks of taskq")(of_file(command))


def payload_of(text: str | None, file: BinaryIO | None) -> bytes:
    """Return the payload from one of the two options.

    Raises:
        click.UsageError: None of the two options is given, or both are.
    """
    if (text is None) is (file is None):
        raise click.UsageError("give either --payload or --payload-file", click.get_current_context())
    return file.read() if file is not None else (text or "").encode("utf-8", "surrogateescape")


@task.command("enqueue")
@click.argument("positional_name", metavar="[NAME]", required=False)
@click.option("name", "-t", "--name", "--type-name", "--type_name", metavar="NAME", help="name of the task")
@payload_options
@click.option("headers", "-H", "--header", type=HEADER, multiple=True, help="header of the task; may be repeated")
@click.option("-q", "--queue", type=QUEUE, help="queue (default: default)")
@click.option("task_id", "-i", "--id", metavar="ID", help="task id, unique in its queue (default: a random one)")
@click.option(
    "max_retry", "--retry", type=click.IntRange(0), metavar="N", help="maximum number of retries (default: 25)"
)
@click.option("--priority", type=click.IntRange(0, HIGHEST_BAND), metavar="N", help="priority, 0 to 9 (default: 0)")
@click.option(
    "--retry-priority", type=click.IntRange(0, HIGHEST_BAND), metavar="N", help="that of retries (default: the same)"
)
@click.option("--timeout", type=DURATION, help="maximum run time (default: 30 minutes)")
@click.option("--deadline", type=MOMENT, help="time after which the task must not run")
@click.option("unique_for", "--unique", type=DURATION, help="refuse an identical task for this time")
@click.option("process_at", "--at", "--process-at", "--process_at", type=MOMENT, help="run not before this time")
@click.option(
    "process_in", "--after", "--process-in", "--process_in", type=DURATION, help="run not before this time from now"
)
@click.option("--expires", type=DURATION, help="archive the task if it has not started after this time")
@click.option(
    "--on-expiry", type=click.Choice([each.value for each in OnExpiry]), help="what then happens (default: archive)"
)
@click.option("--dead-letter", metavar="NAME", help="task that is enqueued when this task is archived")
@click.option("--rate-limit", metavar="RATE", help="how often tasks of this name may start, such as 100/m")
@click.option("--concurrency", type=click.IntRange(1), metavar="N", help="how many tasks of this name may run at once")
@click.option("--retention", type=DURATION, help="how long to keep the task after success (default: not at all)")
@click.option(
    "--replicated",
    type=click.IntRange(0, REPLICAS_MAX),
    metavar="N",
    help="number of replicas that must confirm the task",
)
@click.option("--fsynced", is_flag=True, default=None, help="the task must be on disk before this command succeeds")
@click.option("aggregate", "-g", "--group", metavar="NAME", help="group in which the task waits to be aggregated")
@click.pass_obj
def enqueue(
    session: Session,
    /,
    positional_name: str | None,
    name: str | None,
    payload: str | None,
    payload_file: BinaryIO | None,
    headers: tuple[tuple[str, str], ...],
    process_at: datetime | None,
    process_in: timedelta | None,
    **options: Any,
) -> None:
    """Enqueue a task by its name.

    Times are RFC 3339 (2030-01-31T12:00:00Z), durations as 90s or 1h30m.
    """
    if (name is None) is (positional_name is None):
        raise click.UsageError("give the name of one task", click.get_current_context())
    name = name or positional_name or ""
    content = payload_of(payload, payload_file)
    if process_at is not None and process_in is not None:
        raise click.UsageError("give either --at or --after", click.get_current_context())
    given = {key: value for key, value in options.items() if value is not None}
    if given.get("unique_for") == timedelta(0):
        raise click.UsageError("--unique takes at least one second", click.get_current_context())
    if not given.get("aggregate", "a name").strip():
        raise click.UsageError("--group must be the name of a group, got an empty text", click.get_current_context())
    if process_at is not None or process_in is not None:
        given["run_after"] = process_at if process_at is not None else process_in
    if headers:
        given["headers"] = dict(headers)
    app = session.app
    handle = app.remote(name, **_over_own(app, name, content, given)).delay(content)
    if name not in app.tasks and (near := nearest_hint(name, app.tasks)):
        session.output.note(f"this application has no task {name!r}{near}")
    if session.output.as_json:
        session.output.json({"id": handle.id, "queue": handle.queue, "name": handle.name})
    else:
        session.output.line(f"enqueued {handle.id} to {handle.queue}")


def _over_own(app: TaskQ, name: str, payload: bytes, given: Mapping[str, Any]) -> Any:
    """Check the payload, and return the options: those of the command line, and otherwise the options of the task.

    If the application does not have the task, return the options of the command line unchanged.
    """
    known = app.tasks.get(name)
    if known is None:
        return given
    known.codec.decode(payload)
    headers = {**known.options.headers, **given.get("headers", {})}
    return {**call_options(known.options), **given, "headers": headers}
