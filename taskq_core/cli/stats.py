"""`taskq stats`: all queues at a glance."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import click

from taskq_core.cli import documents
from taskq_core.cli.base import FAILED, Command
from taskq_core.cli.past import shown_per_s
from taskq_core.cli.queue import NO_QUEUES
from taskq_core.cli.render import Column, Output, shown_rate, shown_size, shown_span
from taskq_core.cli.session import Session
from taskq_core.errors import BrokerAuthenticationError
from taskq_core.inspector import QueueInfo
from taskq_core.views import Dashboard, QueuesOverview, overview


@click.command("stats", cls=Command)
@click.pass_obj
def stats(session: Session) -> int:
    """Show all queues: tasks by state, today's runs, and Redis."""
    out = session.output
    infos = session.inspector.queue_infos()
    found = overview(infos)
    try:
        redis = session.inspector.redis_info()
    except BrokerAuthenticationError:
        redis = {}  # this user may not ask; all else is known
    if out.as_json:
        out.json(_document(infos, found, redis))
    else:
        _show_states(out, found)
        _show_queues(out, found, _per_second(session, found))
        _show_today(out, found)
        if redis:
            _show_redis(out, redis)
    damaged = [info for info in infos if info.problem]
    for info in damaged:
        out.complain(f"taskq: queue {info.name!r} cannot be counted: {info.problem}; taskq doctor looks for the reason")
    return FAILED if damaged else 0


def _document(infos: Sequence[QueueInfo], found: QueuesOverview, redis: Mapping[str, str | int]) -> documents.Document:
    return {
        "size": found.size,
        "states": {state.value: size for state, size in found.sizes.items()},
        "processed_today": found.processed_today,
        "failed_today": found.failed_today,
        "queues": [documents.queue(info) for info in infos],
        "redis": documents.redis_facts(redis),
    }


def _show_states(out: Output, found: QueuesOverview) -> None:
    out.heading("Tasks by state")
    columns = [Column(title=state.value, right=True) for state in found.sizes]
    out.table(columns, [[str(size) for size in found.sizes.values()]], empty="")


def _per_second(session: Session, found: QueuesOverview) -> Mapping[str, float | None]:
    """Tasks that ran per second at last, by queue; None where no worker takes samples."""
    names = [row.name for row in found.queues]
    series = Dashboard(session.inspector).samples(names, span=timedelta(minutes=1), points=10)
    return {each.name: each.samples[-1].processed_per_s if each.samples else None for each in series}


def _show_queues(out: Output, found: QueuesOverview, per_second: Mapping[str, float | None]) -> None:
    out.line()
    out.heading("Queues")
    out.table(
        (
            Column(title="QUEUE"),
            Column(title="SIZE", right=True),
            Column(title="LATENCY", right=True),
            Column(title="PROCESSED TODAY", right=True),
            Column(title="FAILED TODAY", right=True),
            Column(title="PROCESSED/S", right=True),
            Column(title="STATE"),
        ),
        [
            (
                row.name,
                str(row.size),
                shown_span(row.latency),
                str(row.processed_today),
                str(row.failed_today),
                shown_per_s(per_second[row.name]),
                row.status.value,
            )
            for row in found.queues
        ],
        empty=NO_QUEUES,
    )


def _show_today(out: Output, found: QueuesOverview) -> None:
    out.line()
    out.heading("Today (UTC)")
    out.pairs(
        {
            "processed": str(found.processed_today),
            "failed": str(found.failed_today),
            "error rate": shown_rate(found.error_rate),
        }
    )


def _show_redis(out: Output, redis: Mapping[str, str | int]) -> None:
    version = str(redis.get("valkey_version") or redis.get("redis_version", "-"))
    out.line()
    out.heading("Valkey" if "valkey_version" in redis else "Redis")
    memory = shown_size(int(redis.get("used_memory", 0)))
    limit = int(redis.get("maxmemory", 0))
    out.pairs(
        {
            "version": version,
            "uptime": shown_span(timedelta(seconds=int(redis.get("uptime_in_seconds", 0)))),
            "connections": str(redis.get("connected_clients", "-")),
            "memory": f"{memory} of {shown_size(limit)}" if limit else memory,
            "memory peak": shown_size(int(redis.get("used_memory_peak", 0))),
        }
    )
