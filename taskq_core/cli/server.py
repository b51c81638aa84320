"""`taskq server`: the workers that run now, of any language."""

import click

from taskq_core.cli import documents
from taskq_core.cli.base import Group
from taskq_core.cli.render import Column, shown_distance
from taskq_core.cli.session import Session
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.dashboard import WorkerRow, worker_row

server = Group("server", help="List running workers.")


@server.command("list", aliases=("ls",))
@click.pass_obj
def list_servers(session: Session) -> None:
    """List the running workers with their queues and load."""
    out = session.output
    servers = session.inspector.servers()
    if out.as_json:
        out.json({"servers": [documents.server(each) for each in servers]})
        return
    now = utc_datetime(SYSTEM_CLOCK.time())
    out.table(
        (
            Column(title="HOST"),
            Column(title="PID", right=True),
            Column(title="STATE"),
            Column(title="ACTIVE", right=True),
            Column(title="QUEUES"),
            Column(title="STARTED"),
        ),
        [
            (
                each.host,
                str(each.pid),
                each.status,
                f"{len(each.running)}/{each.concurrency}",
                _queues(each),
                shown_distance(each.started_at, now),
            )
            for each in (worker_row(process, now) for process in servers)
        ],
        empty="no worker runs",
    )


def _queues(worker: WorkerRow) -> str:
    text = ",".join(f"{queue.name}={queue.weight}" for queue in worker.queues)
    return f"{text} (strict)" if worker.strict_priority else text
