"""Findings of the doctor: problem, severity and advice."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial


class Level(StrEnum):
    """Severity of a finding: green (no problem), yellow (needs attention) or red (tasks can be lost)."""

    RED = "red"
    YELLOW = "yellow"
    GREEN = "green"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of the doctor: the result of one check of a server, queue or key.

    Attributes:
        level: Severity of the finding.
        check: Name of the check.
        subject: The server, queue or key; "" for the whole installation.
        message: The problem, as a sentence.
        advice: What to do, "" if nothing.

    Findings about servers are in the current language (`taskq_core.settings.language`), because the web dashboard
    shows them.
    """

    level: Level
    check: str
    subject: str
    message: str
    advice: str = ""


Findings = Iterator[Finding]

red = partial(Finding, Level.RED)
yellow = partial(Finding, Level.YELLOW)
green = partial(Finding, Level.GREEN)
