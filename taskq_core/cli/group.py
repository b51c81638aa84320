"""`taskq group`: the groups in which tasks wait to be aggregated."""

import click

from taskq_core.cli import documents
from taskq_core.cli.base import Group
from taskq_core.cli.params import QUEUE
from taskq_core.cli.render import Column
from taskq_core.cli.session import Session

group = Group("group", help="List groups of tasks that wait to be aggregated.")


@group.command("list", aliases=("ls",))
@click.option("-q", "--queue", required=True, type=QUEUE, help="queue of the groups")
@click.pass_obj
def list_groups(session: Session, queue: str) -> None:
    """List the groups of a queue, with their sizes."""
    out = session.output
    groups = session.inspector.groups(queue)
    if out.as_json:
        out.json({"queue": queue, "groups": [documents.group(each) for each in groups]})
        return
    columns = (Column(title="GROUP"), Column(title="SIZE", right=True))
    out.table(columns, [(each.name, str(each.size)) for each in groups], empty=f"no groups in {queue}")
