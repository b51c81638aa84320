"""Task properties beyond Asynq's fields: headers named `taskq-*`, and marks that scripts read.

A header is part of the message, and Go preserves it. Lua scripts cannot read headers, so they receive the same property
as a mark. In the arguments of a script, marks follow the start of a new task, after the character `|`.
"""

import math
import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

EXPIRES: Final = "taskq-expires"
"""Header: expiry of a task, as the latest Unix second of its start, or as `+` and the maximum number of seconds it may
wait. ` discard` follows if the expired task is dropped instead of archived."""

PRIORITY: Final = "taskq-priority"
"""Header: priority band of a task and priority band of its retries, as `<0 to 9>:<0 to 9>`."""
DEAD_LETTER: Final = "taskq-dead-letter"
"""Header: JSON of the queue and the name of a task that is enqueued when the task with this header is archived."""
ENQUEUED: Final = "taskq-enqueued"
"""Header: when a task was enqueued (Unix ms). Tools display this time; runs ignore it."""
HIGHEST_BAND: Final = 9

_PATTERN = re.compile(r"(\+?)(\d{1,11})( discard)?\Z")
_BANDS = re.compile(r"(\d):(\d)\Z")


class Expiry(Struct, frozen=True):
    """The time by which a task has to be started.

    Attributes:
        value_s: Unix second, or seconds from the task's start time.
        is_relative: Whether `value_s` counts from the start time.
        is_discarded: Whether an expired task is dropped instead of archived.
    """

    value_s: int
    is_relative: bool = False
    is_discarded: bool = False

    def __str__(self) -> str:
        return f"{'+' if self.is_relative else ''}{self.value_s}{' discard' if self.is_discarded else ''}"


def read_expiry(headers: Mapping[str, str]) -> Expiry | None:
    """Return the expiry in the headers of a task; None if it is missing or not valid."""
    found = _PATTERN.match(headers.get(EXPIRES, ""))
    return None if found is None else Expiry(int(found[2]), found[1] == "+", found[3] is not None)


def expiry_mark(expiry: Expiry, *, timeout_s: int, waited_s: float = 0.0) -> str:
    """Return the mark by which scripts read a relative expiry; "" for an absolute expiry, which the message contains.

    Args:
        expiry: The expiry in the task's header.
        timeout_s: Maximum duration of a run. The deadline for Go workers is the expiry plus this time; 0 leaves the
            deadline unchanged.
        waited_s: Seconds for which the task has already waited, for example in an outbox.
    """
    if not expiry.is_relative:
        return ""
    left_ms = max(0, math.ceil((expiry.value_s - waited_s) * 1000))
    return f"x{left_ms},{timeout_s},{'d' if expiry.is_discarded else ''};"


def read_enqueued_ms(headers: Mapping[str, str]) -> int | None:
    """Return the time at which a task was enqueued (Unix ms), None if unknown."""
    value = headers.get(ENQUEUED, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 14 else None


def read_priority(headers: Mapping[str, str]) -> tuple[int, int]:
    """Return the priority band of a task and that of its retries; 0 for a band that is missing or not valid."""
    found = _BANDS.match(headers.get(PRIORITY, ""))
    return (0, 0) if found is None else (int(found[1]), int(found[2]))


def priority_mark(band: int, retry_band: int) -> str:
    """Return the mark by which scripts read a task's priority, "" for the default priority."""
    return f"p{band}:{retry_band};" if band or retry_band else ""
