"""What queues did: `taskq queue history` day by day or as samples, `taskq queue types` by task type."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import click

from taskq_core.cli import documents
from taskq_core.cli.base import Command
from taskq_core.cli.params import DURATION, QUEUE
from taskq_core.cli.render import Column, Output, shown_rate, shown_size, shown_span
from taskq_core.cli.session import Session
from taskq_core.inspector import DailyStats
from taskq_core.views import Dashboard, QueueSeries, error_rate

LINES = 60
"""Most samples of a queue that are shown."""
_names = click.argument("queues", metavar="QUEUE...", nargs=-1, required=True, type=QUEUE)


@click.command("history", cls=Command)
@click.option("-x", "--days", type=click.IntRange(1, 90), help="number of days  [default: 10]")
@click.option(
    "--last", type=DURATION, help="show samples of this period instead of days, for example 1h (a minute to 31 days)"
)
@_names
@click.pass_obj
def show_history(session: Session, queues: tuple[str, ...], days: int | None, last: timedelta | None) -> None:
    """Show how many tasks ran and failed per day (UTC), or samples of the last hours."""
    if last is None:
        _show_days(session, queues, days or 10)
    elif days is not None:
        raise click.UsageError("give either --days or --last")
    else:
        _show_samples(session, queues, last)


def _show_days(session: Session, queues: Sequence[str], days: int) -> None:
    out = session.output
    found: dict[str, list[DailyStats]] = {}
    for name in queues:
        found[name] = session.inspector.history(name, days=days)
    if out.as_json:
        out.json(
            {
                "queues": [
                    {"queue": name, "days": [documents.day(each) for each in all_]} for name, all_ in found.items()
                ]
            }
        )
        return
    columns = (
        Column(title="DATE (UTC)"),
        Column(title="PROCESSED", right=True),
        Column(title="FAILED", right=True),
        Column(title="ERROR RATE", right=True),
    )
    for number, (name, stats) in enumerate(found.items()):
        if number:
            out.line()
        out.heading(name)
        out.table(
            columns,
            [
                (
                    each.day.isoformat(),
                    str(each.processed),
                    str(each.failed),
                    shown_rate(error_rate(each.failed, each.processed)),
                )
                for each in stats
            ],
            empty="nothing",
        )


def _show_samples(session: Session, queues: Sequence[str], last: timedelta) -> None:
    out = session.output
    for name in queues:
        session.inspector.queue_info(name)  # refuses one that is not there
    found = Dashboard(session.inspector).samples(queues, span=last, points=LINES)
    if out.as_json:
        out.json({"queues": [documents.series(each) for each in found]})
        return
    for number, series in enumerate(found):
        if number:
            out.line()
        _show_series(out, series)


def _show_series(out: Output, series: QueueSeries) -> None:
    out.heading(series.name)
    out.table(
        (
            Column(title="TIME (UTC)", whole=True),
            Column(title="SIZE", right=True),
            Column(title="LATENCY", right=True),
            Column(title="PROCESSED/S", right=True),
            Column(title="FAILED/S", right=True),
            Column(title="ERROR RATE", right=True),
            Column(title="MEMORY", right=True),
            Column(title="SLOTS TAKEN", right=True),
        ),
        [
            (
                _time(each.at),
                str(each.size),
                shown_span(each.latency),
                shown_per_s(each.processed_per_s),
                shown_per_s(each.failed_per_s),
                shown_rate(each.error_rate),
                "-" if each.memory is None else shown_size(each.memory),
                shown_rate(each.utilisation),
            )
            for each in reversed(series.samples)
        ],
        empty="no samples; a worker that serves the queue takes them",
    )


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def shown_per_s(rate: float | None) -> str:
    """Return a number per second; "-" for none."""
    return "-" if rate is None else f"{rate:.1f}"


@click.command("types", cls=Command)
@click.option("--hours", type=click.IntRange(0, 24), default=24, show_default=True, help="number of full hours")
@_names
@click.pass_obj
def show_types(session: Session, queues: tuple[str, ...], hours: int) -> None:
    """Show outcomes and durations by task type.

    Several queues are told together. Workers count, and hand their numbers in every ten seconds; Go's do not count.
    """
    out = session.output
    for name in queues:
        session.inspector.queue_info(name)
    found = Dashboard(session.inspector).types(queues, hours=hours)
    if out.as_json:
        out.json(documents.types(found))
        return
    out.heading(f"Runs since {_time(found.since)}Z")
    out.table(
        (
            Column(title="NAME", cut=True),
            Column(title="PROCESSED", right=True),
            Column(title="FAILED", right=True),
            Column(title="ERROR RATE", right=True),
            Column(title="MEAN", right=True),
            Column(title="MEDIAN", right=True),
            Column(title="95 %", right=True),
            Column(title="99 %", right=True),
        ),
        [
            (
                each.name,
                str(each.processed),
                str(each.failed),
                shown_rate(each.error_rate),
                shown_span(each.mean),
                shown_span(each.median),
                shown_span(each.p95),
                shown_span(each.p99),
            )
            for each in found.types
        ],
        empty="nothing ran",
    )
