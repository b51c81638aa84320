"""`taskq cron`: the periodic entries of running schedulers, of any language, and when they were enqueued."""

import click

from taskq_core.cli import documents
from taskq_core.cli.base import Group
from taskq_core.cli.render import Column, shown_bytes, shown_distance, shown_moment
from taskq_core.cli.session import Session
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.inspector import SchedulerEvent

cron = Group("cron", help="List periodic tasks and their history.")


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
            Column(title="SPEC"),
            Column(title="TASK"),
            Column(title="PAYLOAD", cut=True),
            Column(title="OPTIONS"),
            Column(title="NEXT"),
            Column(title="PREVIOUS"),
        ),
        [
            (
                each.id,
                each.spec,
                each.name,
                shown_bytes(each.payload, most=80),
                ", ".join(each.options) or "-",
                shown_distance(each.next_run_at, now),
                shown_distance(each.previous_run_at, now),
            )
            for each in entries
        ],
        empty="no periodic entries; no scheduler runs",
    )


@cron.command("history")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="page number")
@click.option("--size", type=click.IntRange(1, 1000), default=30, show_default=True, help="lines per page")
@click.argument("entries", metavar="ENTRY...", nargs=-1, required=True)
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
