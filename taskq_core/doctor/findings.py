"""What a check found: how bad it is, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    RED = "red"
    YELLOW = "yellow"
    GREEN = "green"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: Name of the check.
        level: How bad it is.
        subject: What it is about: a server, a queue or a key; "" for the whole.
        message: What was found, as a sentence.
        advice: What to do, "" where nothing is to be done.

    Findings about servers are in the current language (`taskq_core.settings.language`), because the web dashboard
    shows them.
    """

    check: str
    level: Level
    subject: str = ""
    message: str
    advice: str = ""


Findings = Iterator[Finding]
