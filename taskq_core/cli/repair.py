"""`taskq queue reconcile` and `finish-moves`: what is damaged in a queue, and what was left on its way to another.

Workers do both by themselves every few minutes; this is for looking, and for queues that no worker serves.
"""

import click

from taskq_core.cli import documents
from taskq_core.cli.base import FAILED, Answer, Command, for_each
from taskq_core.cli.params import QUEUE
from taskq_core.cli.render import Column, Output
from taskq_core.cli.session import Session
from taskq_core.repair.reconcile import ReconcileReport

_names = click.argument("queues", metavar="QUEUE...", nargs=-1, required=True, type=QUEUE)


@click.command("reconcile", cls=Command)
@click.option("--repair", is_flag=True, help="repair the damage")
@_names
@click.pass_obj
def reconcile(session: Session, queues: tuple[str, ...], repair: bool) -> int:
    """Find damaged tasks in queues; with --repair, repair them.

    What looks damaged is looked at again after five seconds. The status is 1 if damage stays.
    """
    out = session.output
    reports = []
    for name in queues:
        with out.progress(f"looking at {name}") as progress:
            reports.append(session.inspector.reconcile(name, repair=repair, progress=progress))
    if out.as_json:
        out.json({"queues": [documents.report(each) for each in reports]})
    else:
        for report in reports:
            _show(out, report)
    is_well = all(report.is_complete and report.repaired == len(report.findings) for report in reports)
    return 0 if is_well else FAILED


def _show(out: Output, report: ReconcileReport) -> None:
    if report.findings:
        columns = (
            Column(title="QUEUE"),
            Column(title="ID", whole=True),
            Column(title="DAMAGE"),
            Column(title="DETAIL"),
        )
        rows = [
            (report.queue, each.task_id or "-", each.kind.value + (" (repaired)" if each.repaired else ""), each.detail)
            for each in report.findings
        ]
        out.table(columns, rows, empty="")
    else:
        out.line(f"{report.queue}: no damage in {report.scanned} tasks")
    if not report.is_complete:
        out.note(f"{report.queue}: there is more; look again")


@click.command("finish-moves", cls=Command)
@_names
@click.pass_obj
def finish_moves(session: Session, queues: tuple[str, ...]) -> int:
    """Finish interrupted moves of tasks out of queues."""

    def finish(name: str) -> Answer:
        count = session.inspector.finish_moves(name)
        return f"{count} task{'' if count == 1 else 's'} of {name} arrived", {"count": count}

    return for_each(session, "queue", queues, finish)
