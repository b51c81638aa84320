"""The only module that reads the wall clock.

Leases and due times are judged by Redis's own clock inside the scripts; "may I still act?" by the monotonic clock.
The wall clock serves what people read, and what a client must send as an absolute time. Tests replace `Clock`.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def time(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backward, from an arbitrary start."""
        ...


class SystemClock:
    """The clock of this machine. Its methods are the interpreter's own: workers ask several times a task."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


SYSTEM_CLOCK = SystemClock()


def utc_datetime(unix_s: float) -> datetime:
    """Return the aware UTC datetime of a Unix time."""
    return datetime.fromtimestamp(unix_s, tz=UTC)
