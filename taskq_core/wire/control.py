"""Task properties beyond Asynq's fields: headers named `taskq-*`, and marks that scripts read.

A header travels with the message, through Go's hands too. A mark is the same in the words of a script, which reads no
headers. It follows `|` in the start argument of a new task.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

EXPIRES: Final = "taskq-expires"
"""Header: the Unix second by which a task has to be started, or `+` and the seconds it may wait, counted by Redis from
its start; behind it ` discard` where it is then dropped rather than archived."""

PRIORITY: Final = "taskq-priority"
"""Header: the band of a task and that of its retries, `<0 to 9>:<0 to 9>`."""
DEAD_LETTER: Final = "taskq-dead-letter"
"""Header: JSON of queue and name of a task that is enqueued when this one is archived."""
ENQUEUED: Final = "taskq-enqueued"
"""Header: when a task was enqueued, Unix ms. For display only; the run ignores it."""
HIGHEST_BAND: Final = 9

_PATTERN = re.compile(r"(\+?)(\d{1,11})( discard)?\Z")
_BANDS = re.compile(r"(\d):(\d)\Z")


@dataclass(frozen=True, slots=True)
class Expiry:
    """By when a task has to be started.

    Attributes:
        value_s: Unix second, or seconds from its start.
        is_relative: Whether it counts from the start.
        is_discarded: Whether a task that expires is dropped, rather than archived.
    """

    value_s: int
    is_relative: bool = False
    is_discarded: bool = False

    def __str__(self) -> str:
        return f"{'+' if self.is_relative else ''}{self.value_s}{' discard' if self.is_discarded else ''}"


def read_expiry(headers: Mapping[str, str]) -> Expiry | None:
    """Return by when a task has to be started, None for whenever; what cannot be read says nothing."""
    found = _PATTERN.match(headers.get(EXPIRES, ""))
    return None if found is None else Expiry(int(found[2]), found[1] == "+", found[3] is not None)


def expiry_mark(expiry: Expiry, *, timeout_s: int, waited_s: float = 0.0) -> str:
    """Return the mark of a relative expiry, "" for an absolute one, which the message already holds.

    Args:
        expiry: As the header says it.
        timeout_s: Longest run: Go's deadline is put so far behind the expiry; 0 leaves the deadline alone.
        waited_s: Seconds the task has waited elsewhere.
    """
    if not expiry.is_relative:
        return ""
    left_ms = max(0, math.ceil((expiry.value_s - waited_s) * 1000))
    return f"x{left_ms},{timeout_s},{'d' if expiry.is_discarded else ''};"


def read_enqueued_ms(headers: Mapping[str, str]) -> int | None:
    """Return when a task was enqueued, Unix ms; None where that is not known."""
    value = headers.get(ENQUEUED, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 14 else None


def read_priority(headers: Mapping[str, str]) -> tuple[int, int]:
    """Return the band of a task and that of its retries; what cannot be read says 0."""
    found = _BANDS.match(headers.get(PRIORITY, ""))
    return (0, 0) if found is None else (int(found[1]), int(found[2]))


def priority_mark(band: int, retry_band: int) -> str:
    """Return the mark of a priority, "" for the default."""
    return f"p{band}:{retry_band};" if band or retry_band else ""
