"""`taskq server`: list running workers of any language, and send requests to taskq workers."""

from collections.abc import Callable
from typing import Any

import click

from taskq_core.cli.base import Group, confirm, yes_option
from taskq_core.cli.columns import worker_queues
from taskq_core.cli.documents import document
from taskq_core.cli.render import shown_distance
from taskq_core.cli.session import Session
from taskq_core.cli.table import Column
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.codec.worker_requests import WorkerAction

server = Group("server", help="List, quiet, resume, scale and stop running workers.")


@server.command("list", aliases=("ls",))
@click.pass_obj
def list_servers(session: Session) -> None:
    """List the running workers with their queues and load."""
    servers = session.inspector.servers()
    if session.output.as_json:
        session.output.json({"servers": [document(each) for each in servers]})
        return
    now = utc_datetime(SYSTEM_CLOCK.time())
    columns = (
        Column("HOST", lambda row: row.host),
        Column("PID", lambda row: row.pid, right=True),
        Column("STATE", lambda row: row.status),
        Column("ACTIVE", lambda row: f"{len(row.running)}/{row.concurrency}", right=True),
        Column("QUEUES", worker_queues),
        Column("STARTED", lambda row: shown_distance(row.started_at, now)),
    )
    session.output.table(columns, servers, empty="no worker runs")


def _workers(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the parameters that select workers."""
    names = click.argument("workers", metavar="[HOST:PID|HOST|ID]...", nargs=-1)
    return names(click.option("every", "--all", is_flag=True, help="all workers")(command))


def _ask(
    session: Session, workers: tuple[str, ...], action: WorkerAction, *, every: bool, concurrency: int | None = None
) -> int:
    if every is bool(workers):
        raise click.UsageError("give the workers that taskq server list shows, or --all")
    asked = session.inspector.control_workers(action, None if every else workers, concurrency=concurrency)
    places = [f"{each.host}:{each.pid}" for each in asked]
    if session.output.as_json:
        session.output.json({"action": action.value, "workers": [document(each) for each in asked]})
    elif places:
        session.output.line(
            f"asked to {action.value}: {', '.join(places)}; taskq server list shows the change in 5 seconds"
        )
    else:
        session.output.line("no worker received the request")
    return 0 if places else 1


@server.command("quiet")
@_workers
@click.pass_obj
def quiet(session: Session, workers: tuple[str, ...], every: bool) -> int:
    """Stop workers from taking new tasks. Running tasks finish."""
    return _ask(session, workers, WorkerAction.QUIET, every=every)


@server.command("resume")
@_workers
@click.pass_obj
def resume(session: Session, workers: tuple[str, ...], every: bool) -> int:
    """Let quieted workers take tasks again."""
    return _ask(session, workers, WorkerAction.RESUME, every=every)


@server.command("scale")
@click.option("-c", "--concurrency", type=click.IntRange(1), required=True, help="tasks at a time, for each process")
@_workers
@click.pass_obj
def scale(session: Session, workers: tuple[str, ...], every: bool, concurrency: int) -> int:
    """Change the concurrency of workers until they restart."""
    return _ask(session, workers, WorkerAction.SCALE, every=every, concurrency=concurrency)


@server.command("stop")
@yes_option
@_workers
@click.pass_obj
def stop(session: Session, workers: tuple[str, ...], every: bool, yes: bool) -> int:
    """Stop workers gracefully, as SIGTERM does.

    With several processes, all processes of the worker stop. A service manager such as systemd may start it again.
    """
    confirm(f"Stop {'all workers' if every else ', '.join(workers)}?", yes=yes)
    return _ask(session, workers, WorkerAction.STOP, every=every)
