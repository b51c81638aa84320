"""`taskq stats`: all queues at a glance."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import click

from taskq_core.cli import documents
from taskq_core.cli.base import FAILED, Command
from taskq_core.cli.queue import NO_QUEUES
from taskq_core.cli.render import Column, Output, shown_rate, shown_size, shown_span
from taskq_core.cli.session import Session
from taskq_core.errors import BrokerAuthenticationError
from taskq_core.inspector import QueueInfo
from taskq_core.wire import TaskState

ORDER = (
    TaskState.ACTIVE,
    TaskState.PENDING,
    TaskState.AGGREGATING,
    TaskState.SCHEDULED,
    TaskState.RETRY,
    TaskState.ARCHIVED,
    TaskState.COMPLETED,
)
"""States in the order in which they are shown."""


@click.command("stats", cls=Command)
@click.pass_obj
def stats(session: Session) -> int:
    """Show all queues at a glance: tasks by state, today's runs, Redis."""
    out = session.output
    infos = session.inspector.queue_infos()
    try:
        redis = session.inspector.redis_info()
    except BrokerAuthenticationError:
        redis = {}  # this user may not ask; all else is known
    if out.as_json:
        out.json(_document(infos, redis))
    else:
        _show_states(out, infos)
        _show_queues(out, infos)
        _show_today(out, infos)
        if redis:
            _show_redis(out, redis)
    damaged = [info for info in infos if info.problem]
    for info in damaged:
        out.complain(f"taskq: queue {info.name!r} cannot be counted: {info.problem}; taskq doctor looks for the reason")
    return FAILED if damaged else 0


def _total(infos: Sequence[QueueInfo], state: TaskState) -> int:
    return sum(info.sizes[state] for info in infos)


def _document(infos: Sequence[QueueInfo], redis: Mapping[str, str | int]) -> documents.Document:
    return {
        "size": sum(info.size for info in infos),
        "states": {state.value: _total(infos, state) for state in ORDER},
        "processed_today": sum(info.processed_today for info in infos),
        "failed_today": sum(info.failed_today for info in infos),
        "queues": [documents.queue(info) for info in infos],
        "redis": documents.redis_facts(redis),
    }


def _show_states(out: Output, infos: Sequence[QueueInfo]) -> None:
    out.heading("Tasks by state")
    columns = [Column(title=state.value, right=True) for state in ORDER]
    out.table(columns, [[str(_total(infos, state)) for state in ORDER]], empty="")


def _show_queues(out: Output, infos: Sequence[QueueInfo]) -> None:
    out.line()
    out.heading("Queues")
    out.table(
        (
            Column(title="QUEUE"),
            Column(title="SIZE", right=True),
            Column(title="LATENCY", right=True),
            Column(title="PROCESSED TODAY", right=True),
            Column(title="FAILED TODAY", right=True),
            Column(title="STATE"),
        ),
        [
            (
                info.name,
                str(info.size),
                shown_span(info.latency),
                str(info.processed_today),
                str(info.failed_today),
                "damaged" if info.problem else "paused" if info.is_paused else "running",
            )
            for info in infos
        ],
        empty=NO_QUEUES,
    )


def _show_today(out: Output, infos: Sequence[QueueInfo]) -> None:
    processed = sum(info.processed_today for info in infos)
    failed = sum(info.failed_today for info in infos)
    out.line()
    out.heading("Today (UTC)")
    out.pairs({"processed": str(processed), "failed": str(failed), "error rate": shown_rate(failed, processed)})


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
