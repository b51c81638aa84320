"""`taskq doctor`: what is wrong with the broker and its queues, and what to do about it."""

import click

from taskq_core.cli import documents
from taskq_core.cli.base import FAILED, Command
from taskq_core.cli.render import Output
from taskq_core.cli.session import Session
from taskq_core.doctor import Finding, Level, diagnose, read_facts, unreachable
from taskq_core.errors import BrokerAuthenticationError, BrokerUnavailableError


@click.command(
    "doctor",
    cls=Command,
    epilog="""\
levels:
  red     tasks can be lost, or nothing works
  yellow  it works, and will hurt one day
  green   the check found nothing

exit status:
  0  nothing is red
  1  something is red
""",
)
@click.option("--quick", is_flag=True, help="leave out the look at every task for records that contradict each other")
@click.pass_obj
def doctor(session: Session, quick: bool) -> int:
    """Look for what is wrong, and say what to do about it.

    Nothing is changed. Checked are: the server's version, persistence, eviction policy, memory, clock and replicas; the
    rights of the user; keys of a wrong type; queues that nobody serves, or that are half removed; tasks that were put
    aside or are damaged.
    """
    out = session.output
    try:
        with out.progress("looking at tasks") as progress:
            facts = read_facts(session.app, is_thorough=not quick, progress=progress)
        findings = diagnose(facts)
    except (BrokerUnavailableError, BrokerAuthenticationError) as error:
        findings = [unreachable(error)]
    is_well = all(finding.level is not Level.RED for finding in findings)
    if out.as_json:
        out.json({"ok": is_well, "findings": [_document(finding) for finding in findings]})
    else:
        _show(out, findings)
    return 0 if is_well else FAILED


def _document(finding: Finding) -> documents.Document:
    return {
        "check": finding.check,
        "level": finding.level.value,
        "subject": finding.subject,
        "message": finding.message,
        "advice": finding.advice,
    }


def _show(out: Output, findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        subject = f"{finding.subject}: " if finding.subject else ""
        out.line(
            f"{finding.level:<6}  {finding.check:<{width}}  {subject}{finding.message}", style=_STYLES[finding.level]
        )
        if finding.advice:
            out.line(f"{'':<6}  {'':<{width}}  -> {finding.advice}")


_STYLES = {Level.RED: "red", Level.YELLOW: "yellow", Level.GREEN: "green"}
