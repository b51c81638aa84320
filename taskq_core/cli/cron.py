"""`taskq cron`: list, pause, resume, add and remove schedules. Also lists those of Go's schedulers."""

import json
from datetime import timedelta
from typing import Any

import click

from taskq_core.cli import documents
from taskq_core.cli.base import Group, confirm, for_each, yes_option
from taskq_core.cli.params import DURATION, QUEUE
from taskq_core.cli.render import Column, shown_bytes, shown_distance, shown_moment
from taskq_core.cli.session import Session
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.inspector import SchedulerEvent

cron = Group("cron", help="List, pause, resume, add and remove periodic tasks, and show their history.")
_entries = click.argument("entries", metavar="ENTRY...", nargs=-1, required=True)


@cron.command("list", aliases=("ls",))
@click.pass_obj
def list_entries(session: Session) -> None:
    """List the periodic tasks of running schedulers, with their next and last run."""
    out = session.output
    entries = session.inspector.scheduler_entries()
    if out.as_json:
        out.json({"entries": [documents.entry(each) for each in entries]})
        return
    now = utc_datetime(SYSTEM_CLOCK.time())
    out.table(
        (
            Column(title="ENTRY", whole=True),
            Column(title="SCHEDULE"),
            Column(title="TASK"),
            Column(title="PAYLOAD", cut=True),
            Column(title="OPTIONS"),
            Column(title="NEXT"),
            Column(title="PREVIOUS"),
        ),
        [
            (
                each.id,
                each.schedule,
                each.name,
                shown_bytes(each.payload, most=80),
                ", ".join(each.options) or "-",
                "paused" if each.is_paused else shown_distance(each.next_run_at, now),
                shown_distance(each.previous_run_at, now),
            )
            for each in entries
        ],
        empty="no periodic entries; no scheduler runs",
    )


@cron.command("history")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="page number")
@click.option("--size", type=click.IntRange(1, 1000), default=30, show_default=True, help="lines per page")
@_entries
@click.pass_obj
def show_history(session: Session, entries: tuple[str, ...], page: int, size: int) -> None:
    """Show when periodic tasks were enqueued, the latest first."""
    out = session.output
    found: dict[str, list[SchedulerEvent]] = {
        entry: list(session.inspector.scheduler_events(entry, page=page, page_size=size)) for entry in entries
    }
    if out.as_json:
        document = [{"id": entry, "events": [documents.event(each) for each in all_]} for entry, all_ in found.items()]
        out.json({"entries": document, "page": page, "page_size": size})
        return
    for number, (entry, events) in enumerate(found.items()):
        if number:
            out.line()
        out.heading(entry)
        out.table(
            (Column(title="TASK", whole=True), Column(title="ENQUEUED AT")),
            [(each.task_id, shown_moment(each.enqueued_at)) for each in events],
            empty="never enqueued on this page",
        )


@cron.command("pause")
@_entries
@click.pass_obj
def pause(session: Session, entries: tuple[str, ...]) -> int:
    """Pause schedules, wherever they are declared.

    Running schedulers apply it within two seconds. Go schedulers do not support pausing.
    """

    def act(entry_id: str) -> str:
        was_running = session.inspector.pause_schedule(entry_id)
        return f"{entry_id} is paused{'' if was_running else ' already'}"

    return for_each(session, "id", entries, act)


@cron.command("resume")
@_entries
@click.pass_obj
def resume(session: Session, entries: tuple[str, ...]) -> int:
    """Resume paused schedules. Missed firings are not enqueued."""

    def act(entry_id: str) -> str:
        was_paused = session.inspector.resume_schedule(entry_id)
        return f"{entry_id} goes on" if was_paused else f"{entry_id} was not paused"

    return for_each(session, "id", entries, act)


@cron.command("add")
@click.option(
    "spec", "-s", "--spec", required=True, help='when: a cron line such as "0 2 * * *", @hourly, "@every 90s"'
)
@click.option("name", "-t", "--task", required=True, metavar="NAME", help="name of the task")
@click.option("-l", "--payload", default="{}", metavar="JSON", help="arguments by name, a JSON object (default: none)")
@click.option("-q", "--queue", type=QUEUE, help="queue (default: that of the task)")
@click.option("tz", "--timezone", metavar="ZONE", help="time zone of the cron line, such as Europe/Berlin")
@click.option("max_retry", "--retry", type=click.IntRange(0), metavar="N", help="most retries")
@click.option("--timeout", type=DURATION, help="longest run")
@click.option("unique_for", "--unique", type=DURATION, help="refuse an equal task for this long")
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
    """Add a schedule with this name.

    Running schedulers load it within two seconds. It is stored in Redis until it is removed. A task that --app does not
    know is taken for a task of another program.
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


@cron.command("remove", aliases=("rm", "delete"))
@yes_option
@_entries
@click.pass_obj
def remove(session: Session, entries: tuple[str, ...], yes: bool) -> int:
    """Remove schedules that were added at run time. Schedules of the code can only be paused."""
    confirm(f"Remove schedule{'s' if len(entries) > 1 else ''} {', '.join(entries)}?", yes=yes)

    def act(entry_id: str) -> str:
        session.inspector.remove_schedule(entry_id)
        return f"{entry_id} is removed"

    return for_each(session, "id", entries, act)
