"""`taskq queue history` and `taskq queue types`: runs per day, recent samples of queues, and runs per task type."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import click

from taskq_core.cli.columns import TYPES
from taskq_core.cli.documents import document
from taskq_core.cli.params import DURATION
from taskq_core.cli.queue import names_argument, queue
from taskq_core.cli.render import shown_per_s, shown_rate, shown_size, shown_span
from taskq_core.cli.session import Session
from taskq_core.cli.table import Column
from taskq_core.views import Dashboard, error_rate

SAMPLES_MAX = 60
"""Maximum number of samples of a queue in the output."""


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


_DAYS = (
    Column("DATE (UTC)", lambda each: each.day.isoformat()),
    Column("PROCESSED", lambda each: each.processed, right=True),
    Column("FAILED", lambda each: each.failed, right=True),
    Column("ERROR RATE", lambda each: shown_rate(error_rate(each.failed, each.processed)), right=True),
)
_SAMPLES = (
    Column("TIME (UTC)", lambda each: _time(each.at), whole=True),
    Column("SIZE", lambda each: each.size, right=True),
    Column("LATENCY", lambda each: shown_span(each.latency), right=True),
    Column("PROCESSED/S", lambda each: shown_per_s(each.processed_per_s), right=True),
    Column("FAILED/S", lambda each: shown_per_s(each.failed_per_s), right=True),
    Column("ERROR RATE", lambda each: shown_rate(each.error_rate), right=True),
    Column("MEMORY", lambda each: "-" if each.memory is None else shown_size(each.memory), right=True),
    Column("BUSY SLOTS", lambda each: shown_rate(each.utilisation), right=True),
)


@queue.command("history")
@click.option("-x", "--days", type=click.IntRange(1, 90), help="number of days  [default: 10]")
@click.option(
    "--last", type=DURATION, help="show samples of this period instead of days, for example 1h (1 minute to 31 days)"
)
@names_argument
@click.pass_obj
def show_history(session: Session, names: Sequence[str], days: int | None, last: timedelta | None) -> None:
    """Show how many tasks ran and failed per day (UTC), or the sizes of queues in the last hours."""
    if last is not None and days is not None:
        raise click.UsageError("give either --days or --last")
    out = session.output
    if last is None:
        by_day = {name: session.inspector.history(name, days=days or 10) for name in names}
        if out.as_json:
            found = [{"queue": name, "days": [document(each) for each in all_]} for name, all_ in by_day.items()]
            out.json({"queues": found})
            return
        out.tables({name: (_DAYS, all_) for name, all_ in by_day.items()}, empty="nothing")
        return
    for name in names:
        session.inspector.queue_info(name)  # raises an error if the queue is unknown
    series = Dashboard(session.inspector).samples(names, span=last, points=SAMPLES_MAX)
    if out.as_json:
        out.json({"queues": [document(each) for each in series]})
        return
    out.tables(
        {each.name: (_SAMPLES, list(reversed(each.samples))) for each in series},
        empty="no samples; a worker that serves the queue takes them",
    )


@queue.command("types")
@click.option("--hours", type=click.IntRange(0, 24), default=24, show_default=True, help="number of full hours")
@names_argument
@click.pass_obj
def show_types(session: Session, names: Sequence[str], hours: int) -> None:
    """Show outcomes and durations by task type, summed over the queues. Median and percentiles are estimated.

    taskq workers send these figures every ten seconds; Go workers do not.
    """
    for name in names:
        session.inspector.queue_info(name)  # raises an error if the queue is unknown
    found = Dashboard(session.inspector).types(names, hours=hours)
    if session.output.as_json:
        session.output.json(document(found))
        return
    session.output.heading(f"Runs since {_time(found.since)}Z; median and percentiles are estimated")
    session.output.table(TYPES, found.types, empty="nothing ran")
