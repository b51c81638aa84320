"""`taskq queue`: look at queues, pause and remove them."""

import click

from taskq_core.cli import documents
from taskq_core.cli.base import Group, confirm, for_each, yes_option
from taskq_core.cli.params import QUEUE
from taskq_core.cli.render import Column, Output, shown_rate, shown_size, shown_span
from taskq_core.cli.session import Session
from taskq_core.views import QueueRow, queue_row

queue = Group("queue", help="List, inspect, pause and remove queues.")
_names = click.argument("queues", metavar="QUEUE...", nargs=-1, required=True, type=QUEUE)


@queue.command("list", aliases=("ls",))
@click.pass_obj
def list_queues(session: Session) -> None:
    """List the queues; on a cluster with slot and nodes."""
    out, inspector = session.output, session.inspector
    names = inspector.queues()
    places = []
    if session.app.runtime.endpoint.is_cluster:
        places = [(inspector.key_slot(name), inspector.cluster_nodes(name)) for name in names]
    if out.as_json:
        found: list[documents.Document] = [{"queue": name} for name in names]
        for document, (slot, nodes) in zip(found, places, strict=False):
            document |= {"slot": slot, "nodes": nodes}
        out.json({"queues": found})
    elif places:
        rows = [(name, str(slot), ", ".join(nodes)) for name, (slot, nodes) in zip(names, places, strict=True)]
        out.table(
            (Column(title="QUEUE"), Column(title="SLOT", right=True), Column(title="NODES")), rows, empty=NO_QUEUES
        )
    else:
        out.table((Column(title="QUEUE"),), [(name,) for name in names], empty=NO_QUEUES)


NO_QUEUES = "no queues; the first enqueue makes one"


@queue.command("inspect")
@_names
@click.pass_obj
def inspect_queues(session: Session, queues: tuple[str, ...]) -> None:
    """Show state, size, latency, memory and today's runs of queues."""
    out = session.output
    found = [(session.inspector.queue_info(name), session.inspector.memory_usage(name)) for name in queues]
    if out.as_json:
        out.json({"queues": [documents.queue(info) | {"memory_bytes": memory} for info, memory in found]})
        return
    for number, (info, memory) in enumerate(found):
        if number:
            out.line()
        _show(out, queue_row(info, memory))


def _show(out: Output, row: QueueRow) -> None:
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


@queue.command("pause")
@_names
@click.pass_obj
def pause_queues(session: Session, queues: tuple[str, ...]) -> int:
    """Pause queues: workers take no more tasks; running tasks finish."""

    def pause(name: str) -> str:
        session.inspector.pause(name)
        return f"paused {name}"

    return for_each(session, "queue", queues, pause)


@queue.command("resume", aliases=("unpause",))
@_names
@click.pass_obj
def resume_queues(session: Session, queues: tuple[str, ...]) -> int:
    """Resume paused queues."""

    def resume(name: str) -> str:
        session.inspector.resume(name)
        return f"resumed {name}"

    return for_each(session, "queue", queues, resume)


@queue.command("remove", aliases=("rm", "delete"))
@click.option("-f", "--force", is_flag=True, help="delete its tasks as well; refused while one runs")
@yes_option
@_names
@click.pass_obj
def remove_queues(session: Session, queues: tuple[str, ...], force: bool, yes: bool) -> int:
    """Remove queues and all their data."""
    what = f"queue{'s' if len(queues) > 1 else ''} {', '.join(queues)}"
    confirm(f"Remove {what}{' and delete all tasks in it' if force else ''}?", yes=yes)

    def remove(name: str) -> str:
        begun = False
        with session.output.progress(f"removing {name}") as show:

            def progress(done: int, total: int) -> None:
                nonlocal begun
                begun = True
                show(done, total)

            try:
                deleted = session.inspector.remove_queue(name, force=force, progress=progress)
            except KeyboardInterrupt:
                if begun:
                    raise click.ClickException(
                        f"stopped while queue {name} was being removed: nobody sees its tasks any more, and some still "
                        "take up memory; remove it again to go on"
                    ) from None
                raise
        return f"removed {name}" + (f" and {deleted} tasks" if deleted else "")

    return for_each(session, "queue", queues, remove)
