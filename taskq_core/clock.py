"""The only module that reads the wall clock.

Leases and due times are judged by Redis's own clock inside the scripts; "may I still act?" by the monotonic clock.
The wall clock serves what people read, and what a client must send as an absolute time. `RedisClock` is what a process
that waits for a second of Redis's goes by. Tests replace `Clock`.
"""

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

SKEW_VISIBLE_S = 1.0
"""Seconds between this machine's clock and Redis's from which times given by this machine are visibly off."""


class Clock(Protocol):
    """A source of time."""

    def time(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backward, from an arbitrary start."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Block this thread until the event is set or so many seconds have passed; return whether it is set."""
        ...


class SystemClock:
    """The clock of this machine. Its methods are the interpreter's own: workers ask several times a task."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    wait = staticmethod(threading.Event.wait)


SYSTEM_CLOCK = SystemClock()


class RedisClock:
    """Unix time by Redis's clock, moved on by the monotonic clock of this machine.

    Before the first answer it is the wall clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.time() - clock.monotonic()

    def learn(self, now_ns: int, received_at: float) -> None:
        """Take Redis's time (Unix ns) from an answer received at a monotonic second."""
        self._offset = now_ns / 1e9 - received_at

    def time(self) -> float:
        """Unix seconds."""
        return self._clock.monotonic() + self._offset


def utc_datetime(unix_s: float) -> datetime:
    """Return the aware UTC datetime of a Unix time."""
    return datetime.fromtimestamp(unix_s, tz=UTC)
