"""`taskq queue` and `taskq group`: list, inspect, pause and remove queues, and list groups."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from taskq_core.cli.base import Group, each_command
from taskq_core.cli.documents import document
from taskq_core.cli.params import QUEUE
from taskq_core.cli.render import Output, shown_rate, shown_size, shown_span
from taskq_core.cli.session import Session
from taskq_core.cli.table import Column
from taskq_core.inspector import QueueInfo

queue = Group("queue", help="List, inspect, pause and remove queues.")
names_argument = click.argument("names", metavar="QUEUE...", nargs=-1, required=True, type=QUEUE)
NO_QUEUES = "no queues; the first enqueue creates one"


@queue.command("list", aliases=("ls",))
@click.pass_obj
def list_queues(session: Session) -> None:
    """List the queues; in a cluster with slot and nodes."""
    out, inspector = session.output, session.inspector
    found: list[dict[str, Any]] = [{"queue": name} for name in inspector.queues()]
    columns = [Column("QUEUE", lambda each: each["queue"])]
    if session.app.runtime.endpoint.is_cluster:
        found = [
            {**each, "slot": inspector.key_slot(each["queue"]), "nodes": inspector.cluster_nodes(each["queue"])}
            for each in found
        ]
        columns.append(Column("SLOT", lambda each: each["slot"], right=True))
        columns.append(Column("NODES", lambda each: ", ".join(each["nodes"])))
    if out.as_json:
        out.json({"queues": found})
    else:
        out.table(columns, found, empty=NO_QUEUES)


@queue.command("inspect")
@names_argument
@click.pass_obj
def inspect_queues(session: Session, names: Sequence[str]) -> None:
    """Show state, size, latency, memory and today's runs of queues."""
    out = session.output
    found = [(session.inspector.queue_info(name), session.inspector.memory_usage(name)) for name in names]
    if out.as_json:
        out.json({"queues": [document(info) | {"memory_bytes": memory} for info, memory in found]})
        return
    for number, (info, memory) in enumerate(found):
        if number:
            out.line()
        _show(out, replace(info, memory=memory))


def _show(out: Output, row: QueueInfo) -> None:
    out.heading(row.name)
    out.pairs(
        {
            "size": str(row.size),
            "groups": str(row.groups),
            "state": row.status.value,
            "latency": shown_span(row.latency),
            "memory": "-" if row.memory is None else f"about {shown_size(row.memory)}",
            **{state.value: str(size) for state, size in row.sizes.items()},
            "processed today": str(row.processed_today),
            "failed today": str(row.failed_today),
            "error rate": shown_rate(row.error_rate),
        }
    )


@each_command(queue, "pause", names_argument, key="queue")
def pause(session: Session, name: str) -> str:
    """Pause queues: workers take no more tasks; running tasks finish."""
    session.inspector.pause(name)
    return f"paused {name}"


@each_command(queue, "resume", names_argument, key="queue", aliases=("unpause",))
def resume(session: Session, name: str) -> str:
    """Resume paused queues."""
    session.inspector.resume(name)
    return f"resumed {name}"


@each_command(
    queue,
    "remove",
    click.option("-f", "--force", is_flag=True, help="delete its tasks as well; refused while one runs"),
    names_argument,
    key="queue",
    aliases=("rm", "delete"),
    question=lambda names, options: (
        f"Remove queue{'s' if len(names) > 1 else ''} {', '.join(names)}"
        f"{' and delete all tasks in it' if options['force'] else ''}?"
    ),
)
def remove(session: Session, name: str, force: bool) -> str:
    """Remove queues and all their data."""
    has_begun = False
    with session.output.progress(f"removing {name}") as show:

        def progress(done: int, total: int) -> None:
            nonlocal has_begun
            has_begun = True
            show(done, total)

        try:
            deleted = session.inspector.remove_queue(name, force=force, progress=progress)
        except KeyboardInterrupt:
            if has_begun:
                raise click.ClickException(
                    f"interrupted while removing queue {name}: its tasks are hidden, but some still take up memory; "
                    "remove it again to continue"
                ) from None
            raise
    return f"removed {name}" + (f" and {deleted} tasks" if deleted else "")


group = Group("group", help="List groups of tasks that wait to be aggregated.")


@group.command("list", aliases=("ls",))
@click.option("-q", "--queue", "name", required=True, type=QUEUE, help="queue of the groups")
@click.pass_obj
def list_groups(session: Session, name: str) -> None:
    """List the groups of a queue, with their sizes."""
    columns = (Column("GROUP", lambda each: each.name), Column("SIZE", lambda each: each.size, right=True))
    found = session.inspector.groups(name)
    session.output.listing("groups", found, columns, empty=f"no groups in {name}", more={"queue": name})
