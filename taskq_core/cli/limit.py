"""`taskq limit`: the limits of tasks, and other numbers for them."""

import click

from taskq_core.cli import documents
from taskq_core.cli.base import Group
from taskq_core.cli.params import QUEUE
from taskq_core.cli.render import Column
from taskq_core.cli.session import Session

limit = Group("limit", help="List the limits of tasks, and change them at run time.")
_queue = click.option("-q", "--queue", required=True, type=QUEUE, help="queue of the limit")


@limit.command("list", aliases=("ls",))
@_queue
@click.pass_obj
def list_limits(session: Session, queue: str) -> None:
    """List the limits of a queue, with running and waiting tasks."""
    out = session.output
    found = session.inspector.limits(queue)
    if out.as_json:
        out.json({"queue": queue, "limits": [documents.limit(each) for each in found]})
        return
    columns = (
        Column(title="KIND"),
        Column(title="NAME"),
        Column(title="LIMIT"),
        Column(title="SET TO"),
        Column(title="KEYS", right=True),
        Column(title="HELD", right=True),
        Column(title="WAITING", right=True),
    )
    rows = [
        (
            each.kind,
            each.name,
            each.declared or "-",
            each.changed or "-",
            str(each.slots),
            str(each.held),
            str(each.waiting),
        )
        for each in found
    ]
    out.table(columns, rows, empty=f"no limits in {queue}")


@limit.command("set")
@_queue
@click.option("--rate", help="starts per period, for example 100/m")
@click.option("--concurrency", type=int, help="tasks at the same time")
@click.argument("name")
@click.pass_obj
def set_limit(session: Session, queue: str, name: str, rate: str | None, concurrency: int | None) -> None:
    """Override a limit of the code, for all workers at once."""
    session.inspector.set_limit(queue, name, rate=rate, concurrency=concurrency)
    session.output.line(f"limit {name} of {queue} is {rate or concurrency} from now on")


@limit.command("clear")
@_queue
@click.argument("name")
@click.pass_obj
def clear_limit(session: Session, queue: str, name: str) -> None:
    """Remove the override of a limit."""
    was_set = session.inspector.clear_limit(queue, name)
    said = "is what the code says again" if was_set else "was not set to anything"
    session.output.line(f"limit {name} of {queue} {said}")
