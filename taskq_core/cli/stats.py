"""`taskq stats`: show the tasks of all queues by state, today's runs, and facts about Redis."""

from datetime import timedelta

import click

from taskq_core.cli.base import FAILED, Command
from taskq_core.cli.columns import store_facts
from taskq_core.cli.documents import document
from taskq_core.cli.queue import NO_QUEUES
from taskq_core.cli.render import shown_per_s, shown_rate, shown_span
from taskq_core.cli.session import Session
from taskq_core.cli.table import Column
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.views import Dashboard, QueuesOverview, overview

_REDIS = (
    *("redis_version", "valkey_version", "uptime_in_seconds", "connected_clients"),
    *("used_memory", "used_memory_peak", "maxmemory"),
)
"""Fields of Redis's `INFO` that the JSON output contains."""


@click.command("stats", cls=Command)
@click.pass_obj
def stats(session: Session) -> int:
    """Show all queues: tasks by state, today's runs, and Redis."""
    out = session.output
    infos = session.inspector.queue_infos()
    found = overview(infos)
    store = Dashboard(session.inspector).store()
    if out.as_json:
        out.json(
            {
                "size": found.size,
                "states": {state.value: size for state, size in found.sizes.items()},
                "processed_today": found.processed_today,
                "failed_today": found.failed_today,
                "queues": [document(info) for info in infos],
                "redis": {name: store.info[name] for name in _REDIS if name in store.info},
            }
        )
    else:
        _show(session, found)
        if store.version:
            out.line()
            out.heading(store.kind)
            out.pairs(store_facts(store, utc_datetime(SYSTEM_CLOCK.time())))
    damaged = [info for info in infos if info.problem]
    for info in damaged:
        out.error(f"taskq: queue {info.name!r} cannot be counted: {info.problem}; run taskq doctor to find the reason")
    return FAILED if damaged else 0


def _show(session: Session, found: QueuesOverview) -> None:
    out = session.output
    out.heading("Tasks by state")
    out.table([Column(state.value, right=True) for state in found.sizes], [list(found.sizes.values())], empty="")
    names = [row.name for row in found.queues]
    series = Dashboard(session.inspector).samples(names, span=timedelta(minutes=1), points=10)
    per_second = {each.name: each.samples[-1].processed_per_s if each.samples else None for each in series}
    out.line()
    out.heading("Queues")
    columns = (
        Column("QUEUE", lambda row: row.name),
        Column("SIZE", lambda row: row.size, right=True),
        Column("LATENCY", lambda row: shown_span(row.latency), right=True),
        Column("PROCESSED TODAY", lambda row: row.processed_today, right=True),
        Column("FAILED TODAY", lambda row: row.failed_today, right=True),
        Column("PROCESSED/S", lambda row: shown_per_s(per_second[row.name]), right=True),
        Column("STATE", lambda row: row.status.value),
    )
    out.table(columns, found.queues, empty=NO_QUEUES)
    out.line()
    out.heading("Today (UTC)")
    today = {"processed": str(found.processed_today), "failed": str(found.failed_today)}
    out.pairs({**today, "error rate": shown_rate(found.error_rate)})
