"""`taskq doctor`: what is wrong with the broker and its queues, and what to do about it."""

from collections.abc import Mapping, Sequence

import click

from taskq_core.cli import documents
from taskq_core.cli.base import FAILED, Command, confirm, yes_option
from taskq_core.cli.render import Column, Output
from taskq_core.cli.session import Session
from taskq_core.doctor import (
    Facts,
    Finding,
    Level,
    Repair,
    Repairer,
    diagnose,
    for_a_person,
    plan,
    read_facts,
    unreachable,
)
from taskq_core.errors import BrokerAuthenticationError, BrokerUnavailableError


@click.command(
    "doctor",
    cls=Command,
    epilog="""\
levels:
  red     tasks can be lost, or nothing works
  yellow  it works now, but needs attention
  green   the check found no problem

exit status:
  0  nothing is red, and with --fix everything was repaired
  1  something is red, or could not be repaired
""",
)
@click.option("--quick", is_flag=True, help="skip the check of every task and key")
@click.option("--fix", is_flag=True, help="repair damage, after listing it and asking")
@click.option("--dry-run", is_flag=True, help="with --fix: only list what would be repaired")
@yes_option
@click.pass_obj
def doctor(session: Session, quick: bool, fix: bool, dry_run: bool, yes: bool) -> int:
    """Find problems, and say what to do about each.

    It checks the Redis version, persistence, eviction policy, memory, clock, replicas and user rights; keys of a wrong
    type; queues that no worker serves, or that are half removed; periodic tasks without a scheduler; damaged tasks; and
    keys that were left over. Nothing is changed without --fix.
    """
    if dry_run and not fix:
        raise click.UsageError("--dry-run goes with --fix", click.get_current_context())
    if quick and fix:
        raise click.UsageError(
            "--fix needs the look at every task that --quick leaves out", click.get_current_context()
        )
    out = session.output
    try:
        facts = _look(session, is_thorough=not quick)
    except (BrokerUnavailableError, BrokerAuthenticationError) as error:
        findings = [unreachable(error)]
        _tell(out, findings, {})
        return FAILED
    findings = diagnose(facts)
    if not fix:
        _tell(out, findings, {})
        return _status(findings)
    planned = plan(facts)
    if dry_run or not planned:
        _tell(out, findings, {"planned": planned, "for_a_person": for_a_person(facts)})
        return _status(findings)
    if not out.as_json:
        _show(out, findings)
        _show_repairs(out, "planned", planned)
    confirm(f"repair {len(planned)} {'thing' if len(planned) == 1 else 'things'}?", yes=yes)
    return _fix(session, facts)


def _look(session: Session, *, is_thorough: bool) -> Facts:
    with session.output.progress("looking at tasks") as progress:
        return read_facts(session.app, is_thorough=is_thorough, progress=progress)


def _fix(session: Session, facts: Facts) -> int:
    """Repair, then look again at all of it."""
    out = session.output
    try:
        with out.progress("repairing queues") as progress:
            repairer = Repairer(session.app, facts, progress=progress)
            repairer.work()
        facts = _look(session, is_thorough=True)
        findings = diagnose(facts)
    except (BrokerUnavailableError, BrokerAuthenticationError) as error:
        findings = [unreachable(error)]
    repairs = {
        "repaired": [each for each in repairer.repairs if each.is_done],
        "not_repaired": [each for each in repairer.repairs if not each.is_done],
        "for_a_person": for_a_person(facts),
    }
    _tell(out, [each for each in findings if out.as_json or each.level is not Level.GREEN], repairs)
    left = repairs["not_repaired"] or any(each.check == "damage" and each.level is not Level.GREEN for each in findings)
    return FAILED if left else _status(findings)


def _status(findings: Sequence[Finding]) -> int:
    return FAILED if any(finding.level is Level.RED for finding in findings) else 0


def _tell(out: Output, findings: Sequence[Finding], repairs: Mapping[str, Sequence[Repair]]) -> None:
    if out.as_json:
        document = {"ok": not _status(findings), "findings": [_document(finding) for finding in findings]}
        out.json(document | {name: [_repair_document(each) for each in some] for name, some in repairs.items()})
        return
    _show(out, findings)
    for name, some in repairs.items():
        _show_repairs(out, name, some)


_HEADINGS = {
    "planned": ("to be repaired", "nothing is to be repaired"),
    "repaired": ("repaired", "nothing was repaired: what was found has come right by itself"),
    "not_repaired": ("not repaired", ""),
    "for_a_person": ("needs a person", ""),
}
_SHOWN_MAX = 100
"""Most repairs of one kind that people are shown; JSON has all."""


def _show_repairs(out: Output, name: str, repairs: Sequence[Repair]) -> None:
    heading, empty = _HEADINGS[name]
    if not repairs and not empty:
        return
    out.line()
    if not repairs:
        out.line(empty)
        return
    out.heading(f"{heading}: {len(repairs)}")
    rows = [(each.queue or "-", each.kind, each.subject or "-", each.detail) for each in repairs[:_SHOWN_MAX]]
    columns = [
        Column(title=title, whole=title == "TASK OR KEY") for title in ("QUEUE", "KIND", "TASK OR KEY", "DETAIL")
    ]
    out.table(columns, rows, empty="")
    if len(repairs) > _SHOWN_MAX:
        out.line(f"and {len(repairs) - _SHOWN_MAX} more, which --json shows")


def _repair_document(repair: Repair) -> documents.Document:
    return {"queue": repair.queue, "kind": repair.kind, "subject": repair.subject, "detail": repair.detail}


def _document(finding: Finding) -> documents.Document:
    return {
        "check": finding.check,
        "level": finding.level.value,
        "subject": finding.subject,
        "message": finding.message,
        "advice": finding.advice,
    }


def _show(out: Output, findings: Sequence[Finding]) -> None:
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        subject = f"{finding.subject}: " if finding.subject else ""
        out.line(
            f"{finding.level:<6}  {finding.check:<{width}}  {subject}{finding.message}", style=_STYLES[finding.level]
        )
        if finding.advice:
            out.line(f"{'':<6}  {'':<{width}}  -> {finding.advice}")


_STYLES = {Level.RED: "red", Level.YELLOW: "yellow", Level.GREEN: "green"}
