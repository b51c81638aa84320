"""`taskq queue reconcile` and `finish-moves`: find and repair damage in queues.

Workers do both every few minutes. The commands are for queues without a worker, and to see the result.
"""

from collections.abc import Sequence

import click

from taskq_core.cli.base import FAILED, Answer, each_command
from taskq_core.cli.documents import document
from taskq_core.cli.queue import names_argument, queue
from taskq_core.cli.session import Session
from taskq_core.cli.table import Column


def _columns(name: str) -> Sequence[Column]:
    return (
        Column("QUEUE", lambda each: name),
        Column("ID", lambda each: each.task_id or "-", whole=True),
        Column("DAMAGE", lambda each: each.kind.value + (" (repaired)" if each.repaired else "")),
        Column("DETAIL", lambda each: each.detail),
    )


@queue.command("reconcile")
@click.option("--repair", is_flag=True, help="repair the damage")
@names_argument
@click.pass_obj
def reconcile(session: Session, names: Sequence[str], repair: bool) -> int:
    """Find damaged tasks in queues; with --repair, repair them.

    Suspects are checked again after five seconds. The exit status is 1 if damage remains.
    """
    out = session.output
    reports = []
    for name in names:
        with out.progress(f"checking {name}") as progress:
            reports.append(session.inspector.reconcile(name, repair=repair, progress=progress))
    if out.as_json:
        out.json({"queues": [document(each) for each in reports]})
    else:
        for report in reports:
            empty = f"{report.queue}: no damage in {report.scanned} tasks"
            out.table(_columns(report.queue), report.findings, empty=empty)
            if not report.is_complete:
                out.note(f"{report.queue}: there is more damage; run the command again")
    is_well = all(report.is_complete and report.repaired == len(report.findings) for report in reports)
    return 0 if is_well else FAILED


@each_command(queue, "finish-moves", names_argument, key="queue")
def finish_moves(session: Session, name: str) -> Answer:
    """Finish interrupted moves of tasks out of queues."""
    count = session.inspector.finish_moves(name)
    return f"{count} task{'' if count == 1 else 's'} of {name} arrived", {"count": count}
