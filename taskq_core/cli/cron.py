"""`taskq cron`: list, pause, resume, add and remove schedules, including those of Go schedulers."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from taskq_core.cli.base import Group, each_command, for_each
from taskq_core.cli.columns import EVENTS, entry_columns
from taskq_core.cli.documents import document
from taskq_core.cli.params import DURATION, QUEUE
from taskq_core.cli.session import Session
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime

cron = Group("cron", help="List, pause, resume, add and remove periodic tasks, and show their history.")
_entries = click.argument("names", metavar="ENTRY...", nargs=-1, required=True)


@cron.command("list", aliases=("ls",))
@click.pass_obj
def list_entries(session: Session) -> None:
    """List the periodic tasks of running schedulers, with their next and last run."""
    columns = entry_columns(utc_datetime(SYSTEM_CLOCK.time()))
    entries = session.inspector.scheduler_entries()
    session.output.listing("entries", entries, columns, empty="no periodic tasks; no scheduler runs")


@cron.command("history")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="page number")
@click.option("--size", type=click.IntRange(1, 1000), default=30, show_default=True, help="lines per page")
@_entries
@click.pass_obj
def show_history(session: Session, names: Sequence[str], page: int, size: int) -> None:
    """Show when periodic tasks were enqueued. The latest time comes first."""
    out = session.output
    found = {entry: session.inspector.scheduler_events(entry, page=page, page_size=size) for entry in names}
    if out.as_json:
        entries = [{"id": entry, "events": [document(each) for each in all_]} for entry, all_ in found.items()]
        out.json({"entries": entries, "page": page, "page_size": size})
    else:
        out.tables({entry: (EVENTS, all_) for entry, all_ in found.items()}, empty="no runs on this page")


@each_command(cron, "pause", _entries)
def pause(session: Session, entry_id: str) -> str:
    """Pause schedules, no matter where they are declared.

    Running schedulers apply the pause within two seconds. Go schedulers do not support pausing.
    """
    was_running = session.inspector.pause_schedule(entry_id)
    return f"{entry_id} is {'' if was_running else 'already '}paused"


@each_command(cron, "resume", _entries)
def resume(session: Session, entry_id: str) -> str:
    """Resume paused schedules. Missed runs are not enqueued."""
    was_paused = session.inspector.resume_schedule(entry_id)
    return f"{entry_id} is resumed" if was_paused else f"{entry_id} was not paused"


@cron.command("add")
@click.option(
    "spec", "-s", "--spec", required=True, help='when: a cron line such as "0 2 * * *", @hourly, "@every 90s"'
)
@click.option("name", "-t", "--task", required=True, metavar="NAME", help="name of the task")
@click.option("-l", "--payload", default="{}", metavar="JSON", help="arguments by name, a JSON object (default: none)")
@click.option("-q", "--queue", type=QUEUE, help="queue (default: that of the task)")
@click.option("tz", "--timezone", metavar="ZONE", help="time zone of the cron line, such as Europe/Berlin")
@click.option("max_retry", "--retry", type=click.IntRange(0), metavar="N", help="maximum number of retries")
@click.option("--timeout", type=DURATION, help="maximum run time")
@click.option("unique_for", "--unique", type=DURATION, help="refuse an identical task for this time")
@click.option("--replace", is_flag=True, help="change a schedule that was added before")
@click.argument("entry", metavar="ENTRY")
@click.pass_obj
def add(
    session: Session,
    /,
    entry: str,
    spec: str,
    name: str,
    payload: str,
    tz: str | None,
    replace: bool,
    **options: str | int | timedelta | None,
) -> int:
    """Add a schedule with the name ENTRY.

    Running schedulers load the schedule within two seconds. The schedule is stored in Redis until you remove it. A task
    that --app does not know is assumed to be a task of another program.
    """
    from taskq_core.scheduler.runtime_schedules import named_schedule

    try:
        kwargs: Any = json.loads(payload)
    except ValueError as error:
        raise click.UsageError(f"--payload takes JSON: {error}", click.get_current_context()) from None
    given = {key: value for key, value in options.items() if value is not None}

    def act(entry_id: str) -> str:
        remote = name not in session.app.tasks
        added = named_schedule(session.app, entry_id, spec, name, kwargs=kwargs, tz=tz, remote=remote, options=given)
        session.inspector.add_schedule(added, replace=replace)
        return f"{entry_id} is added"

    return for_each(session, "id", (entry,), act)


@each_command(
    cron,
    "remove",
    _entries,
    aliases=("rm", "delete"),
    question=lambda names, options: f"Remove schedule{'s' if len(names) > 1 else ''} {', '.join(names)}?",
)
def remove(session: Session, entry_id: str) -> str:
    """Remove schedules that were added at run time. Schedules that are declared in code can only be paused."""
    session.inspector.remove_schedule(entry_id)
    return f"{entry_id} is removed"
