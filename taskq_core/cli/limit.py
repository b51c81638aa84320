"""`taskq limit`: list the limits of tasks, and override them."""

import click

from taskq_core.cli.base import Group
from taskq_core.cli.columns import LIMITS
from taskq_core.cli.params import QUEUE
from taskq_core.cli.session import Session

limit = Group("limit", help="List the limits of tasks, and change them at run time.")
_queue = click.option("-q", "--queue", required=True, type=QUEUE, help="queue of the limit")


@limit.command("list", aliases=("ls",))
@_queue
@click.pass_obj
def list_limits(session: Session, queue: str) -> None:
    """List the limits of a queue, with running and waiting tasks."""
    found = session.inspector.limits(queue)
    session.output.listing("limits", found, LIMITS, empty=f"no limits in {queue}", more={"queue": queue})


@limit.command("set")
@_queue
@click.option("--rate", help="starts per period, for example 100/m")
@click.option("--concurrency", type=int, help="tasks at the same time")
@click.argument("name")
@click.pass_obj
def set_limit(session: Session, queue: str, name: str, rate: str | None, concurrency: int | None) -> None:
    """Override a limit of the code, for all workers at once."""
    session.inspector.set_limit(queue, name, rate=rate, concurrency=concurrency)
    session.output.line(f"limit {name} of {queue} is now {rate or concurrency}")


@limit.command("clear")
@_queue
@click.argument("name")
@click.pass_obj
def clear_limit(session: Session, queue: str, name: str) -> None:
    """Remove the override of a limit."""
    was_set = session.inspector.clear_limit(queue, name)
    result = "has the value from the code again" if was_set else "had no override"
    session.output.line(f"limit {name} of {queue} {result}")
