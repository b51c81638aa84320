"""`taskq doctor`: find problems of Redis and its queues, and repair damage."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import click

from taskq_core.cli.base import FAILED, Command, confirm, yes_option
from taskq_core.cli.render import Output
from taskq_core.cli.session import Session
from taskq_core.cli.table import Column
from taskq_core.doctor.facts import Facts
from taskq_core.doctor.findings import Finding, Level
from taskq_core.doctor.reading import read_facts
from taskq_core.doctor.repair import Repair, Repairer, for_a_person, plan
from taskq_core.doctor.rules import diagnose, unreachable
from taskq_core.errors import BrokerAuthenticationError, BrokerUnavailableError

SHOWN_MAX = 100
"""Maximum number of repairs of one kind in a table. The JSON output contains all repairs."""
_COLUMNS = (Column("QUEUE"), Column("KIND"), Column("TASK OR KEY", whole=True), Column("DETAIL"))
_HEADINGS = {
    "planned": ("to be repaired", "no repair is needed"),
    "repaired": ("repaired", "nothing was repaired, because the problems no longer exist"),
    "not_repaired": ("not repaired", ""),
    "for_a_person": ("needs a person", ""),
}
_STYLES = {Level.RED: "red", Level.YELLOW: "yellow", Level.GREEN: "green"}


@click.command(
    "doctor",
    cls=Command,
    epilog="""\
levels:
  red     tasks can be lost, or nothing works
  yellow  taskq works now, but the setup needs attention
  green   the check found no problem

exit status:
  0  nothing is red, and with --fix everything was repaired
  1  something is red, or could not be repaired
""",
)
@click.option("--quick", is_flag=True, help="skip the check of every task and key")
@click.option("--fix", is_flag=True, help="repair damage, after listing it and asking")
@click.option("--dry-run", is_flag=True, help="with --fix: list the repairs, but change nothing")
@yes_option
@click.pass_obj
def doctor(session: Session, quick: bool, fix: bool, dry_run: bool, yes: bool) -> int:
    """Find problems of Redis and its queues, and say what to do about each.

    It checks the Redis version, persistence, eviction policy, memory, clock, replicas and user rights; keys of a wrong
    type; queues without a worker; half removed queues; periodic tasks without a scheduler; damaged tasks; and keys with
    a wrong expiry. Nothing is changed without --fix.
    """
    if dry_run and not fix:
        raise click.UsageError("--dry-run needs --fix", click.get_current_context())
    if quick and fix:
        raise click.UsageError(
            "--fix cannot be combined with --quick, because it needs the check of every task",
            click.get_current_context(),
        )
    out = session.output
    try:
        facts = _examine(session, is_thorough=not quick)
    except (BrokerUnavailableError, BrokerAuthenticationError) as error:
        _show(out, [unreachable(error)])
        return FAILED
    findings = diagnose(facts)
    planned = plan(facts) if fix else []
    if dry_run or not planned:
        _show(out, findings, {"planned": planned, "for_a_person": for_a_person(facts)} if fix else {})
        return _status(findings)
    if not out.as_json:
        _show(out, findings, {"planned": planned})
    confirm(f"repair {len(planned)} {'problem' if len(planned) == 1 else 'problems'}?", yes=yes)
    return _fix(session, facts)


def _examine(session: Session, *, is_thorough: bool) -> Facts:
    with session.output.progress("checking tasks") as progress:
        return read_facts(session.app, is_thorough=is_thorough, progress=progress)


def _fix(session: Session, facts: Facts) -> int:
    """Repair the planned problems, check everything again, and show the result."""
    out = session.output
    try:
        with out.progress("repairing queues") as progress:
            repairer = Repairer(session.app, facts, progress=progress)
            repairer.work()
        facts = _examine(session, is_thorough=True)
        findings = diagnose(facts)
    except (BrokerUnavailableError, BrokerAuthenticationError) as error:
        findings = [unreachable(error)]
    repairs = {
        "repaired": [each for each in repairer.repairs if each.is_done],
        "not_repaired": [each for each in repairer.repairs if not each.is_done],
        "for_a_person": for_a_person(facts),
    }
    _show(out, [each for each in findings if out.as_json or each.level is not Level.GREEN], repairs)
    left = repairs["not_repaired"] or any(each.check == "damage" and each.level is not Level.GREEN for each in findings)
    return FAILED if left else _status(findings)


def _status(findings: Sequence[Finding]) -> int:
    return FAILED if any(finding.level is Level.RED for finding in findings) else 0


def _show(out: Output, findings: Sequence[Finding], repairs: Mapping[str, Sequence[Repair]] | None = None) -> None:
    repairs = repairs or {}
    if out.as_json:
        out.json(
            {
                "ok": not _status(findings),
                "findings": [asdict(each) for each in findings],
                **{name: [_document(each) for each in some] for name, some in repairs.items()},
            }
        )
        return
    width = max((len(finding.check) for finding in findings), default=0)
    for each in findings:
        subject = f"{each.subject}: " if each.subject else ""
        out.line(f"{each.level:<6}  {each.check:<{width}}  {subject}{each.message}", style=_STYLES[each.level])
        if each.advice:
            out.line(f"{'':<6}  {'':<{width}}  -> {each.advice}")
    for name, some in repairs.items():
        _show_repairs(out, *_HEADINGS[name], some)


def _show_repairs(out: Output, heading: str, empty: str, repairs: Sequence[Repair]) -> None:
    if repairs:
        out.line()
        out.heading(f"{heading}: {len(repairs)}")
        rows = [(each.queue or "-", each.kind, each.subject or "-", each.detail) for each in repairs[:SHOWN_MAX]]
        out.table(_COLUMNS, rows, empty="")
        if len(repairs) > SHOWN_MAX:
            out.line(f"and {len(repairs) - SHOWN_MAX} more, which --json shows")
    elif empty:
        out.line()
        out.line(empty)


def _document(repair: Repair) -> dict[str, str]:
    return {"queue": repair.queue, "kind": repair.kind, "subject": repair.subject, "detail": repair.detail}
